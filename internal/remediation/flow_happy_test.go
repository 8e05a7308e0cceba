package remediation_test

import (
	"encoding/json"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/nats-io/nats.go"

	"example.com/unrestrict-worker/internal/budget"
	"example.com/unrestrict-worker/internal/defender/defendersim"
	"example.com/unrestrict-worker/internal/ledger"
	"example.com/unrestrict-worker/internal/message"
	"example.com/unrestrict-worker/internal/remediation"
)

// outcomes are a request's results so far, final ones with a full stop.
func (w *world) outcomes(id string) (all []string) {
	w.t.Helper()
	for _, r := range w.resultsOf(id) {
		s := fmt.Sprintf("%d %s", r.Run, r.Outcome)
		if r.Final {
			s += "."
		}
		all = append(all, s)
	}
	return all
}

func (w *world) wantOutcomes(id string, want ...string) {
	w.t.Helper()
	if diff := cmp.Diff(want, w.outcomes(id)); diff != "" {
		w.t.Errorf("results of %s (-want +got):\n%s%s", id, diff, w.dump())
	}
}

func TestRequestIsCalledFollowedAndTold(t *testing.T) {
	inWorld(t, setup{}, func(w *world) {
		seq := w.ask("r1", 1, field{"requestedBy", `"ann"`}, field{"ticket", `"T-1"`}, field{"batch", `"b"`}, field{"metadata", `{"a": [1]}`})
		w.settled(time.Minute)
		w.wantOutcomes("r1", "1 submitted", "1 succeeded.")
		w.wantPosts(1, 1)
		r := w.wantFinal("r1", "succeeded")
		if r.RequestedBy != "ann" || r.Ticket != "T-1" || r.Batch != "b" || string(r.Metadata) != `{"a": [1]}` || r.MachineID != machine(1) || r.Attempts != 1 || r.Adopted {
			t.Errorf("final result %+v", r)
		}
		var action struct{ ID, Status, RequestorComment string }
		w.must(json.Unmarshal(r.MachineAction, &action))
		if a := w.api.Actions()[0]; action.ID != a.ID || action.Status != "Succeeded" || action.RequestorComment != commentOf("r1") {
			t.Errorf("machineAction %s", r.MachineAction)
		}
		if e := w.entry("r1"); e.Source != w.ref(seq) || e.Comment != "" || e.Action != nil || e.Metadata != nil {
			t.Errorf("the ledger still has what nobody needs: %+v", e)
		}
	})
}

func TestUntrackedRequestEndsWithTheAcceptedCall(t *testing.T) {
	inWorld(t, setup{submit: func(c *remediation.SubmitConfig) { c.Track = false }}, func(w *world) {
		w.ask("r1", 1)
		w.settled(time.Minute)
		w.passes(10 * time.Minute)
		w.wantOutcomes("r1", "1 submitted.")
		if n := len(w.called("list")); n != 0 {
			t.Errorf("%d lists though nothing is followed", n)
		}
	})
}

// Whether a request is followed is fixed when its call is accepted.
func TestFollowingIsFixedAtAcceptance(t *testing.T) {
	track := true
	inWorld(t, setup{submit: func(c *remediation.SubmitConfig) { c.Track = track }}, func(w *world) {
		w.ask("r1", 1)
		w.until("the call", time.Minute, func() bool { return w.entry("r1").State == ledger.StateSubmitted })
		w.replicas[0].stop()
		track = false
		w.start()
		w.settled(time.Minute)
		w.wantOutcomes("r1", "1 submitted", "1 succeeded.")
	})
}

func TestDryRunCallsNothing(t *testing.T) {
	dry := true
	inWorld(t, setup{submit: func(c *remediation.SubmitConfig) { c.DryRun = dry }}, func(w *world) {
		w.ask("r1", 1)
		w.ask("r1", 1)
		w.settled(time.Minute)
		w.wantOutcomes("r1", "1 dryRun.")
		w.wantPosts(1, 0)
		w.replicas[0].stop()
		dry = false
		w.start()
		w.ask("r1", 1)
		w.settled(time.Minute)
		w.wantOutcomes("r1", "1 dryRun.", "2 submitted", "2 succeeded.")
		w.wantPosts(1, 1)
	})
}

// A message of the dry run that comes again, because its acknowledgement was lost, is not the request coming again.
func TestDryRunsOwnMessageIsNeverCalledFor(t *testing.T) {
	for _, f := range []fault{
		{at: atDecision, done: true}, {at: atFinal}, {at: atFinal, done: true}, {at: atMark}, {at: atMark, done: true}, {at: atAck},
	} {
		t.Run(f.String(), func(t *testing.T) {
			dry := true
			inWorld(t, setup{submit: func(c *remediation.SubmitConfig) { c.DryRun = dry }}, func(w *world) {
				f.dies, f.times = true, 1
				w.faults.inject(f)
				w.ask("r1", 1)
				w.until("the crash", time.Minute, func() bool { return w.replicas[0].dead.Load() })
				dry = false
				w.start()
				w.settled(5 * time.Minute)
				w.wantOutcomes("r1", "1 dryRun.")
				w.wantPosts(1, 0)
				w.ask("r1", 1)
				w.settled(time.Minute)
				w.wantOutcomes("r1", "1 dryRun.", "2 submitted", "2 succeeded.")
			})
		})
	}
}

func TestReplyToGetsEachResult(t *testing.T) {
	inWorld(t, setup{}, func(w *world) {
		got := make(chan string, 10)
		sub, err := w.broker.Conn().Subscribe("answers.here", func(m *nats.Msg) {
			var r message.Result
			_ = json.Unmarshal(m.Data, &r)
			got <- r.RequestID + " " + r.Outcome
		})
		w.must(err)
		w.must(w.broker.Conn().Flush())
		w.ask("r1", 1, field{"replyTo", `"answers.here"`})
		w.ask("r2", 2, field{"replyTo", `"answers.here"`}, field{"machineId", `"nonsense"`})
		w.until("the end", time.Minute, func() bool { return len(w.told) == 3 })
		w.settled(time.Minute)
		w.must(sub.Unsubscribe())
		close(got)
		var all []string
		for s := range got {
			all = append(all, s)
		}
		slices.Sort(all)
		if diff := cmp.Diff([]string{w.ref(2) + " rejected", "r1 submitted", "r1 succeeded"}, all); diff != "" {
			t.Errorf("replyTo got (-want +got):\n%s", diff)
		}
	})
}

func TestTheSameIDForSomethingElseIsAnIDConflict(t *testing.T) {
	inWorld(t, setup{}, func(w *world) {
		w.ask("r1", 1)
		w.until("the call", time.Minute, func() bool { return len(w.posts(1)) == 1 })
		other := w.publish("", nil, payload("r1", 2))
		comment := w.publish("", nil, payload("r1", 1, field{"comment", `"another"`}))
		w.settled(time.Minute)
		for _, seq := range []uint64{other, comment} {
			r := w.wantFinal(w.ref(seq), "rejected idConflict")
			if r.ClaimedID != "r1" || len(w.dead(w.ref(seq))) != 1 {
				t.Errorf("claimed id %q, %d dead letters", r.ClaimedID, len(w.dead(w.ref(seq))))
			}
		}
		w.wantOutcomes("r1", "1 submitted", "1 succeeded.")
		w.wantPosts(1, 1)
		w.wantPosts(2, 0)
	})
}

func TestAnIDIsCarriedOutOnceByManyReplicas(t *testing.T) {
	inWorld(t, setup{replicas: 3, api: defendersim.Config{Latency: time.Second}}, func(w *world) {
		for range 5 {
			for n := range 6 {
				w.ask(fmt.Sprint("r", n), n)
			}
		}
		w.settled(5 * time.Minute)
		for n := range 6 {
			w.ask(fmt.Sprint("r", n), n)
		}
		w.settled(time.Minute)
		for n := range 6 {
			w.wantOutcomes(fmt.Sprint("r", n), "1 submitted", "1 succeeded.")
			w.wantPosts(n, 1)
		}
	})
}

// expiresIn is the field expiresAt.
func expiresIn(d time.Duration) field {
	return field{"expiresAt", fmt.Sprintf("%q", time.Now().Add(d).UTC().Format(time.RFC3339))}
}

func TestExpiredRequestIsNotCalledFor(t *testing.T) {
	perMinute := budget.Limits(2, 0)
	for name, c := range map[string]struct {
		set   setup
		ahead int // requests before it that use the quota up
		in    time.Duration
	}{
		"before it is taken":       {setup{}, 0, -time.Second},
		"while it waits for quota": {setup{limits: perMinute, untended: true, submit: untracked}, 2, 30 * time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			inWorld(t, c.set, func(w *world) {
				for n := range c.ahead {
					w.ask(fmt.Sprint("a", n), 10+n)
				}
				w.passes(time.Second)
				w.ask("r1", 1, expiresIn(c.in))
				w.settled(5 * time.Minute)
				w.wantFinal("r1", "rejected expired")
				w.wantPosts(1, 0)
				if n := len(w.dead("r1")); n != 1 {
					t.Errorf("%d dead letters", n)
				}
			})
		})
	}
}

func untracked(c *remediation.SubmitConfig) { c.Track = false }

func TestAgeIsJudgedWhenARequestIsFirstTaken(t *testing.T) {
	inWorld(t, setup{replicas: -1, untended: true, submit: func(c *remediation.SubmitConfig) { c.MaxAge, c.Track = 10*time.Minute, false }}, func(w *world) {
		w.ask("old", 1)
		w.passes(15 * time.Minute)
		w.ask("young", 2)
		w.api.Inject(defendersim.Fault{Op: "unrestrict", Machine: machine(2), Times: 1, Status: 429, RetryAfter: 20 * time.Minute})
		w.start()
		w.ends("old")
		w.wantFinal("old", "rejected tooOld")
		w.settled(time.Hour)
		w.wantFinal("young", "submitted")
		w.wantPosts(1, 0)
		w.wantPosts(2, 2)
	})
}
