package remediation_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nkeys"

	"example.com/unrestrict-worker/internal/broker"
	"example.com/unrestrict-worker/internal/budget"
	"example.com/unrestrict-worker/internal/defender/defendersim"
	"example.com/unrestrict-worker/internal/health"
	"example.com/unrestrict-worker/internal/message"
	"example.com/unrestrict-worker/internal/policy"
	"example.com/unrestrict-worker/internal/remediation"
)

func always(c *remediation.SubmitConfig) { c.GuardAfter = 0 }

// analystDoes puts an action of somebody else on machine n.
func (w *world) analystDoes(n int, kind, status string) {
	w.api.Put(defendersim.Action{Type: kind, MachineID: machine(n), Comment: "seen again", Requestor: analyst, Status: status})
}

// guardLooks are the guard's: at all machines that were restricted or isolated, or at one.
func (w *world) guardLooks() (looks []defendersim.Call) {
	for _, c := range w.called("list") {
		if !strings.Contains(c.Query, "UnrestrictCodeExecution") {
			looks = append(looks, c)
		}
	}
	return looks
}

func (w *world) wantGuardLooks(want int) {
	w.t.Helper()
	if got := len(w.guardLooks()); got != want {
		w.t.Errorf("%d looks of the guard, want %d\n%s", got, want, w.dump())
	}
}

func TestGuardHoldsOldRequestsAgainstNewerActions(t *testing.T) {
	const restricted = "rejected restrictedAgain"
	for name, c := range map[string]struct {
		set           func(*remediation.SubmitConfig)
		before, after func(w *world) // publishing
		age           time.Duration
		offset        time.Duration // of the API's clock
		want          string
		looks         int
	}{
		"nothing was done":           {age: 2 * time.Hour, want: "succeeded", looks: 1},
		"restricted after":           {after: does("RestrictCodeExecution", ""), age: 2 * time.Hour, want: restricted, looks: 1},
		"isolated after":             {after: does("Isolate", ""), age: 2 * time.Hour, want: restricted, looks: 1},
		"restriction still open":     {after: does("RestrictCodeExecution", "Pending"), age: 2 * time.Hour, want: restricted, looks: 1},
		"in a status nobody knows":   {after: does("Isolate", "Deferred"), age: 2 * time.Hour, want: restricted, looks: 1},
		"restriction failed":         {after: does("RestrictCodeExecution", "Failed"), age: 2 * time.Hour, want: "succeeded", looks: 1},
		"restriction cancelled":      {after: does("RestrictCodeExecution", "Cancelled"), age: 2 * time.Hour, want: "succeeded", looks: 1},
		"isolation timed out":        {after: does("Isolate", "TimeOut"), age: 2 * time.Hour, want: "succeeded", looks: 1},
		"something else after":       {after: does("RunAntiVirusScan", ""), age: 2 * time.Hour, want: "succeeded", looks: 1},
		"another machine":            {after: func(w *world) { w.analystDoes(2, "Isolate", "") }, age: 2 * time.Hour, want: "succeeded", looks: 1},
		"restricted before":          {before: does("RestrictCodeExecution", ""), age: 2 * time.Hour, want: "succeeded", looks: 1},
		"a young request":            {after: does("RestrictCodeExecution", ""), age: 50 * time.Minute, want: "succeeded"},
		"a young request, always":    {set: always, after: does("RestrictCodeExecution", ""), age: 10 * time.Second, want: restricted, looks: 1},
		"at once, always":            {set: always, before: does("RestrictCodeExecution", ""), want: "succeeded", looks: 1},
		"the API's clock is ahead":   {after: does("Isolate", ""), age: 2 * time.Hour, offset: 3 * time.Hour, want: restricted, looks: 1},
		"the API's clock is behind":  {after: does("Isolate", ""), age: 2 * time.Hour, offset: -3 * time.Hour, want: restricted, looks: 2},
		"before, its clock is ahead": {before: does("Isolate", ""), age: 2 * time.Hour, offset: 3 * time.Hour, want: "succeeded", looks: 1},
		"before, and it is behind":   {before: does("Isolate", ""), age: 2 * time.Hour, offset: -3 * time.Hour, want: "succeeded", looks: 2},
		"a dry run": {
			set: func(c *remediation.SubmitConfig) { c.DryRun = true }, after: does("Isolate", ""), age: 2 * time.Hour, want: restricted, looks: 1,
		},
	} {
		t.Run(name, func(t *testing.T) {
			inWorld(t, setup{replicas: -1, submit: c.set, api: defendersim.Config{ClockOffset: c.offset}}, func(w *world) {
				if c.before != nil {
					c.before(w)
				}
				w.passes(time.Minute)
				w.ask("r1", 1)
				w.passes(3 * time.Second)
				if c.after != nil {
					c.after(w)
				}
				w.passes(c.age)
				w.start()
				w.settled(5 * time.Minute)
				r := w.wantFinal("r1", c.want)
				w.wantGuardLooks(c.looks)
				if c.want == "succeeded" {
					w.wantPosts(1, 1)
					return
				}
				w.wantPosts(1, 0)
				a := w.api.Actions()[0]
				if r.Error == nil || r.Error.Origin != "request" || !strings.Contains(r.Error.Message, a.ID) || !strings.Contains(r.Error.Message, a.Created.Format(time.RFC3339)) {
					t.Errorf("%+v does not name action %s of %s", r.Error, a.ID, a.Created)
				}
				if len(w.dead("r1")) != 1 {
					t.Errorf("%d dead letters", len(w.dead("r1")))
				}
			})
		})
	}
}

func does(kind, status string) func(w *world) {
	return func(w *world) { w.analystDoes(1, kind, status) }
}

// replay publishes a request's only dead letter again.
func (w *world) replay(id string) {
	w.t.Helper()
	letters := w.dead(id)
	l := letters[len(letters)-1]
	w.publish(id, message.ReplayHeader(l.seq, l.header), l.payload)
}

// A replay is held against what was done since the original was published, however young either is.
func TestGuardHoldsEveryReplay(t *testing.T) {
	for _, again := range []bool{false, true} {
		t.Run(fmt.Sprintf("restricted since %v", again), func(t *testing.T) {
			inWorld(t, setup{}, func(w *world) {
				w.api.Inject(defendersim.Fault{Op: "unrestrict", Times: 1, Status: 400, Code: "ClientVersionNotSupported"})
				w.ask("r1", 1)
				w.settled(time.Minute)
				w.wantFinal("r1", "rejected ClientVersionNotSupported")
				w.wantGuardLooks(0)
				if again {
					w.analystDoes(1, "RestrictCodeExecution", "")
				}
				w.passes(time.Minute)
				w.replay("r1")
				w.settled(time.Minute)
				w.wantGuardLooks(1)
				if !again {
					w.wantFinal("r1", "succeeded")
					return
				}
				w.wantFinal("r1", "rejected restrictedAgain")
				w.wantPosts(1, 1)
				w.replay("r1") // and that one's replay too
				w.settled(time.Minute)
				w.wantOutcomes("r1", "1 rejected.", "2 rejected.", "3 rejected.")
				w.wantPosts(1, 1)
			})
		})
	}
}

// When a replay's message comes again its dead letter is gone, and with headers of its own it says no more when the
// original was published.
func TestGuardKnowsTheOriginalWhenTheDeadLetterIsGone(t *testing.T) {
	inWorld(t, setup{}, func(w *world) {
		w.api.Inject(defendersim.Fault{Op: "unrestrict", Times: 1, Status: 400, Code: "ClientVersionNotSupported"})
		w.ask("r1", 1)
		w.settled(time.Minute)
		w.analystDoes(1, "Isolate", "")
		w.passes(time.Minute)
		w.api.Inject(defendersim.Fault{Op: "list", Times: 1, Status: 429, RetryAfter: time.Minute})
		l := w.dead("r1")[0]
		w.publish("r1", message.Header{message.HeaderReplay: {fmt.Sprint(l.seq)}}, l.payload)
		w.settled(5 * time.Minute)
		w.wantFinal("r1", "rejected restrictedAgain")
		w.wantGuardLooks(2)
	})
}

// A look that fails decides nothing: nothing is called, nothing rejected, until one tells.
func TestGuardWaitsForALookThatTells(t *testing.T) {
	for name, f := range map[string]defendersim.Fault{
		"500": {Status: 500}, "cut": {Cut: "before"}, "unreadable": {Body: []byte("<html>")}, "hangs": {Hang: true},
		"429": {Status: 429, RetryAfter: time.Minute}, "an entity without id": {Body: []byte(`{"value":[{"type":"Isolate"}]}`)},
	} {
		for _, again := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, restricted %v", name, again), func(t *testing.T) {
				inWorld(t, setup{submit: always}, func(w *world) {
					f.Op, f.Times = "list", 3
					w.api.Inject(f)
					w.ask("r1", 1)
					if again {
						w.analystDoes(1, "Isolate", "")
					}
					w.settled(time.Hour)
					if looks := w.guardLooks(); len(looks) != 4 || len(w.posts(1)) > 0 && w.posts(1)[0].At.Before(looks[3].At) {
						t.Errorf("%d looks\n%s", len(looks), w.dump())
					}
					if again {
						w.wantFinal("r1", "rejected restrictedAgain")
						w.wantPosts(1, 0)
					} else {
						w.wantFinal("r1", "succeeded")
						w.wantPosts(1, 1)
					}
				})
			})
		}
	}
}

func TestGuardWaitsForThePermissionToLook(t *testing.T) {
	inWorld(t, setup{replicas: -1, free: true, untended: true, submit: impatientGuard}, func(w *world) {
		w.tokens.grant("Machine.RestrictExecution")
		w.ask("old", 1)
		w.passes(2 * time.Hour)
		w.start()
		w.ask("young", 2)
		w.ends("young")
		w.passes(outage)
		w.wantPosts(1, 0)
		w.wantOutcomes("old")
		if !w.replicas[0].holds(health.MayNotList) {
			t.Error("nobody says that a permission is missing")
		}
		w.tokens.grant()
		w.settled(time.Hour)
		w.wantFinal("old", "submitted")
		w.wantPosts(1, 1)
	})
}

func impatientGuard(c *remediation.SubmitConfig) { impatient(c); c.GuardAfter = time.Hour }

// A call that may have taken place is looked for, whatever was done since; only a further call is not made.
func TestGuardLeavesACallThatMayHaveTakenPlaceToTheLooks(t *testing.T) {
	inWorld(t, setup{submit: always}, func(w *world) {
		w.api.Inject(defendersim.Fault{Op: "unrestrict", Machine: machine(refused), Times: 1, Status: 503})
		w.api.Inject(defendersim.Fault{Op: "unrestrict", Machine: machine(carriedOut), Times: 1, Status: 503, CarriedOut: true})
		w.ask("refused", refused)
		w.ask("carried out", carriedOut)
		w.until("the calls", time.Minute, func() bool { return len(w.posts(refused)) == 1 && len(w.posts(carriedOut)) == 1 })
		w.analystDoes(refused, "Isolate", "")
		w.analystDoes(carriedOut, "Isolate", "")
		w.settled(5 * time.Minute)
		w.wantFinal("carried out", "succeeded")
		w.wantFinal("refused", "rejected restrictedAgain")
		w.wantPosts(refused, 1)
		w.wantPosts(carriedOut, 1)
		w.wantGuardLooks(2) // before both, and before the second call
	})
}

// What happens to a machine while its request waits for quota is seen: the guard looks when the call is due.
func TestGuardLooksAfterTheWaitForQuota(t *testing.T) {
	inWorld(t, setup{untended: true, limits: budget.Limits(4, 0), submit: func(c *remediation.SubmitConfig) { untracked(c); always(c) }}, func(w *world) {
		for n := range 6 {
			w.ask(fmt.Sprint("r", n), n)
		}
		w.passes(10 * time.Second)
		waiting := map[int]bool{}
		for n := range 6 {
			if len(w.posts(n)) == 0 {
				waiting[n] = true
				w.analystDoes(n, "Isolate", "")
			}
		}
		if len(waiting) == 0 || len(waiting) == 6 {
			t.Fatalf("%d requests wait", len(waiting))
		}
		w.settled(20 * time.Minute)
		for n := range 6 {
			if waiting[n] {
				w.wantFinal(fmt.Sprint("r", n), "rejected restrictedAgain")
				w.wantPosts(n, 0)
			} else {
				w.wantFinal(fmt.Sprint("r", n), "submitted")
			}
		}
	})
}

// With less quota than slots the guard's looks do not use up what the calls need.
func TestGuardLeavesQuotaForTheCalls(t *testing.T) {
	inWorld(t, setup{replicas: 2, untended: true, limits: budget.Limits(4, 0), submit: func(c *remediation.SubmitConfig) { untracked(c); always(c) }}, func(w *world) {
		const requests = 9 // looks and calls fit into the five minutes that a look is good for, in whatever order they come
		for n := range requests {
			w.ask(fmt.Sprint("r", n), n)
		}
		w.settled(20 * time.Minute)
		for n := range requests {
			w.wantFinal(fmt.Sprint("r", n), "submitted")
		}
	})
}

// One look serves what is called within 15 s of it and was published no earlier than it reaches back; no call is later, and
// what is done to a machine in between is seen by the next.
func TestGuardsLookServesTheCallsThatFollow(t *testing.T) {
	inWorld(t, setup{submit: func(c *remediation.SubmitConfig) { untracked(c); c.GuardAfter = time.Minute }}, func(w *world) {
		for n := range 2 {
			w.api.Inject(defendersim.Fault{Op: "unrestrict", Machine: machine(n), Times: 1, Status: 400, Code: "ClientVersionNotSupported"})
			w.ask(fmt.Sprint("r", n), n)
		}
		w.passes(2 * time.Minute)
		w.must(w.shared.Pause(w.ctx, broker.Pause{Reason: "until they are old"}))
		w.passes(time.Minute)
		for n := 2; n < 42; n++ {
			w.ask(fmt.Sprint("r", n), n)
		}
		w.passes(2 * time.Minute)
		w.must(w.shared.Resume(w.ctx))
		w.settled(time.Minute)
		w.wantGuardLooks(1)
		w.replay("r0") // published before all that the look shows
		w.settled(time.Minute)
		w.wantFinal("r0", "submitted")
		w.wantGuardLooks(2)
		w.passes(16 * time.Second)
		w.analystDoes(1, "Isolate", "")
		w.replay("r1")
		w.settled(time.Minute)
		w.wantFinal("r1", "rejected restrictedAgain")
		w.wantGuardLooks(3)
	})
}

// A look at all machines that proves nothing, for one entity in it can't be read or it is cut short, holds up nobody: each
// request then looks at its own machine.
func TestGuardLooksAtOneMachineWhereAllAreUnclear(t *testing.T) {
	inWorld(t, setup{replicas: -1, submit: always}, func(w *world) {
		w.api.Inject(defendersim.Fault{Op: "list", Times: 1, Body: []byte(`{"value":[{"type":"Isolate"}]}`)})
		w.ask("r1", 1)
		w.ask("r2", 2)
		w.analystDoes(2, "Isolate", "")
		w.start()
		w.settled(time.Minute)
		w.wantFinal("r1", "succeeded")
		w.wantFinal("r2", "rejected restrictedAgain")
		w.wantGuardLooks(3)
		w.passes(2 * time.Minute) // then it is tried again
		w.ask("r3", 3)
		w.ask("r4", 4)
		w.settled(time.Minute)
		w.wantGuardLooks(4)
	})
}

// signer is a user who signs requests.
type signer struct{ public, seed string }

func newSigner(t *testing.T) signer {
	t.Helper()
	pair, err := nkeys.CreateUser()
	if err != nil {
		t.Fatal(err)
	}
	public, _ := pair.PublicKey()
	seed, _ := pair.Seed()
	return signer{public, string(seed)}
}

// askAs publishes a signed request that expires in a day.
func (w *world) askAs(s signer, id string, n int, more ...field) {
	w.t.Helper()
	h, data := w.sign(s, id, n, more...)
	w.publish(id, h, data)
	w.signed = append(w.signed, signed{id, h, data})
}

// sign makes such a request.
func (w *world) sign(s signer, id string, n int, more ...field) (message.Header, []byte) {
	w.t.Helper()
	data := payload(id, n, append(more, expiresIn(24*time.Hour))...)
	key, signature, err := message.Sign([]byte(s.seed), w.broker.Names().Subject, data)
	w.must(err)
	return message.Header{message.HeaderSigner: {key}, message.HeaderSignature: {signature}}, data
}

// governed sets up signers ann and bob, and a policy in a file.
func governed(t *testing.T, text string) (ann, bob signer, file string, rules func(*remediation.Submitter)) {
	t.Helper()
	ann, bob = newSigner(t), newSigner(t)
	file = filepath.Join(t.TempDir(), "policy.yaml")
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return ann, bob, file, func(r *remediation.Submitter) {
		var err error
		if r.Rules.Signers, err = message.ParseSigners("ann=" + ann.public + " bob=" + bob.public); err != nil {
			t.Error(err)
		}
		if r.Policy, err = policy.Load(file, r.Rules.Signers); err != nil {
			t.Error(err)
		}
	}
}

func TestPolicyIsWhatASignerMayAsk(t *testing.T) {
	ann, bob, _, rules := governed(t, "signers:\n  ann:\n    comment: ^INC-\n    ticket_required: true\n    machines: ["+machine(1)+", "+machine(2)+"]\n")
	comment, ticket := field{"comment", `"INC-1 done"`}, field{"ticket", `"INC-1"`}
	inWorld(t, setup{rules: rules}, func(w *world) {
		w.askAs(ann, "good", 1, comment, ticket)
		w.askAs(ann, "comment", 2, ticket)
		w.askAs(ann, "ticket", 2, comment)
		w.askAs(ann, "machine", 3, comment, ticket)
		w.askAs(bob, "nobody", 1, comment, ticket)
		w.settled(time.Minute)
		w.wantFinal("good", "succeeded")
		for id, why := range map[string]string{"comment": "comment: ", "ticket": "ticket: ", "machine": "machineId: ", "nobody": "names no signer bob"} {
			r := w.wantFinal(id, "rejected policy")
			if r.Error == nil || r.Error.Origin != "request" || !strings.Contains(r.Error.Message, why) || len(w.dead(id)) != 1 {
				t.Errorf("%s: %+v, %d dead letters", id, r.Error, len(w.dead(id)))
			}
		}
		w.wantPosts(1, 1)
		w.wantPosts(2, 0)
		w.wantPosts(3, 0)
	})
}

// The policy is asked when a request is first taken and for each replay, not again for each attempt.
func TestPolicyIsAskedOncePerRun(t *testing.T) {
	ann, _, file, rules := governed(t, "default: {}\n")
	inWorld(t, setup{rules: rules}, func(w *world) {
		w.api.Inject(defendersim.Fault{Op: "unrestrict", Machine: machine(1), Times: 1, Status: 429, RetryAfter: time.Minute})
		w.api.Inject(defendersim.Fault{Op: "unrestrict", Machine: machine(2), Times: 1, Status: 400, Code: "ClientVersionNotSupported"})
		w.askAs(ann, "waits", 1)
		w.passes(time.Second)
		w.must(os.WriteFile(file, []byte("default: {ticket_required: true}\n"), 0o600))
		w.settled(5 * time.Minute)
		w.wantFinal("waits", "succeeded")
		w.must(os.WriteFile(file, []byte("default: {}\n# all\n"), 0o600))
		w.askAs(ann, "again", 2)
		w.settled(time.Minute)
		w.must(os.WriteFile(file, []byte("default: {ticket_required: true}\n"), 0o600))
		w.replay("again")
		w.settled(time.Minute)
		w.wantFinal("again", "rejected policy")
		w.wantPosts(2, 1)
		w.must(os.WriteFile(file, []byte("default: {}\n# all again\n"), 0o600))
		w.replay("again")
		w.settled(time.Minute)
		w.wantOutcomes("again", "1 rejected.", "2 rejected.", "3 submitted", "3 succeeded.")
	})
}

// Two replicas share a signer's hour; a machine counts once, others' hours are their own, and it ends.
func TestPolicyRateIsSharedByReplicas(t *testing.T) {
	ann, bob, _, rules := governed(t, "default: {machines_per_hour: 5}\n")
	inWorld(t, setup{replicas: 2, rules: rules}, func(w *world) {
		ask := func(round string, from int) (ended map[string]int) {
			for n := range 12 {
				w.askAs(ann, fmt.Sprint(round, n), from+n)
			}
			w.settled(5 * time.Minute)
			ended = map[string]int{}
			for n := range 12 {
				r, _ := w.final(fmt.Sprint(round, n))
				code := r.Outcome
				if r.Error != nil {
					code += " " + r.Error.Code
				}
				ended[code]++
			}
			return ended
		}
		if got := ask("first", 0); got["succeeded"] != 5 || got["rejected policy"] != 7 {
			t.Errorf("the first hour: %v\n%s", got, w.dump())
		}
		called := 0
		for len(w.posts(called)) == 0 {
			called++
		}
		w.askAs(ann, "the same machine", called)
		w.askAs(bob, "another signer", 50)
		w.settled(5 * time.Minute)
		w.wantFinal("the same machine", "succeeded")
		w.wantFinal("another signer", "succeeded")
		w.hourWithoutReplicas()
		w.start()
		if got := ask("second", 20); got["succeeded"] != 5 {
			t.Errorf("the second hour: %v", got)
		}
	})
}

// hourWithoutReplicas lets an hour pass in which nobody works, which costs a test next to nothing.
func (w *world) hourWithoutReplicas() {
	for _, r := range w.replicas {
		r.stop()
	}
	w.passes(time.Hour + startLimit)
}

// A request that is attempted again counts once, also when the process died between counting and calling.
func TestPolicyRateCountsARunOnce(t *testing.T) {
	ann, _, _, rules := governed(t, "default: {machines_per_hour: 1}\n")
	for name, misfortune := range map[string]func(w *world){
		"a 404, then a call": func(w *world) {
			w.api.Inject(defendersim.Fault{Op: "unrestrict", Times: 1, Status: 404})
		},
		"throttled for an hour": func(w *world) {
			w.api.Inject(defendersim.Fault{Op: "unrestrict", Times: 1, Status: 429, RetryAfter: 61 * time.Minute})
		},
		"dies at the intent": func(w *world) {
			w.faults.inject(fault{at: atIntent, dies: true, times: 1})
			w.start()
		},
	} {
		t.Run(name, func(t *testing.T) {
			inWorld(t, setup{rules: rules}, func(w *world) {
				misfortune(w)
				w.askAs(ann, "r1", 1)
				if name == "throttled for an hour" {
					w.until("the 429", time.Minute, func() bool { return len(w.posts(1)) == 1 })
					w.hourWithoutReplicas()
					w.start()
				}
				w.settled(10 * time.Minute)
				w.wantFinal("r1", "succeeded")
				w.askAs(ann, "r2", 2)
				w.settled(time.Minute)
				if name == "throttled for an hour" {
					w.wantFinal("r2", "succeeded") // its hour is over
					return
				}
				r := w.wantFinal("r2", "rejected policy")
				if r.Error == nil || !strings.Contains(r.Error.Message, "no more than 1 machines an hour") {
					t.Errorf("%+v", r.Error)
				}
				w.wantPosts(2, 0)
			})
		})
	}
}
