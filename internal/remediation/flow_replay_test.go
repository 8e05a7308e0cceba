package remediation_test

import (
	"bytes"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nkeys"

	"example.com/unrestrict-worker/internal/defender/defendersim"
	"example.com/unrestrict-worker/internal/message"
	"example.com/unrestrict-worker/internal/remediation"
)

// replayLetter publishes a dead letter again as the command does; id is whose run it opens.
func (w *world) replayLetter(id string, l letter) uint64 {
	w.t.Helper()
	return w.publish(id, message.ReplayHeader(l.seq, l.header), l.payload)
}

// kept is how many dead letters are still there.
func (w *world) kept() int {
	w.t.Helper()
	info, err := w.letterbox.Info(w.ctx)
	w.must(err)
	return int(info.State.Msgs)
}

// lastDead waits for a request's dead letter and returns the last one.
func (w *world) lastDead(id string) (l letter) {
	w.t.Helper()
	w.settled(3 * time.Hour)
	all := w.dead(id)
	if len(all) == 0 {
		w.t.Fatalf("%s has no dead letter\n%s", id, w.dump())
	}
	return all[len(all)-1]
}

var rejectOnce = defendersim.Fault{Op: "unrestrict", Times: 1, Status: 400, Code: "InvalidInput"}

// However a request is named, its replay is the next run of the same request.
func TestReplayOpensTheNextRun(t *testing.T) {
	for name, c := range map[string]struct {
		id      string // "": STREAM:SEQ
		header  message.Header
		payload []byte
	}{
		"id in the payload":         {"r1", nil, payload("r1", 1)},
		"id in Nats-Msg-Id":         {"m1", message.Header{"Nats-Msg-Id": {"m1"}}, payload("", 1)},
		"id of a CloudEvent":        {"src#e1", message.Header{"ce-specversion": {"1.0"}, "ce-id": {"e1"}, "ce-source": {"src"}, "ce-type": {"t"}}, payload("", 1)},
		"structured CloudEvent":     {"src#e1", nil, fmt.Appendf(nil, `{"specversion":"1.0","id":"e1","source":"src","type":"t","data":%s}`, payload("", 1))},
		"no id":                     {"", message.Header{"X-Mine": {"kept"}}, payload("", 1)},
		"an id that needs encoding": {"ü 100% /*", nil, payload("ü 100% /*", 1)},
	} {
		t.Run(name, func(t *testing.T) {
			inWorld(t, setup{}, func(w *world) {
				w.api.Inject(rejectOnce)
				seq := w.publish(c.id, c.header, c.payload)
				id := c.id
				if id == "" {
					id = w.ref(seq)
				}
				dead := w.lastDead(id)
				if !bytes.Equal(dead.payload, c.payload) {
					t.Errorf("payload of the dead letter %s", dead.payload)
				}
				w.replayLetter(id, dead)
				w.settled(10 * time.Minute)
				w.wantOutcomes(id, "1 rejected.", "2 submitted", "2 succeeded.")
				w.wantPosts(1, 2)
				if w.kept() != 0 || len(w.told) != 3 {
					t.Errorf("%d dead letters kept, %d results\n%s", w.kept(), len(w.told), w.dump())
				}
			})
		})
	}
}

func TestReplayThatFailsAgainIsADeadLetterAgain(t *testing.T) {
	inWorld(t, setup{}, func(w *world) {
		f := rejectOnce
		f.Times = 3
		w.api.Inject(f)
		w.ask("r1", 1)
		for run := range 3 {
			dead := w.lastDead("r1")
			if got := dead.header.Get(message.HeaderDeadRun); got != fmt.Sprint(run+1) || w.kept() != 1 {
				t.Fatalf("run %s, %d dead letters kept, want run %d\n%s", got, w.kept(), run+1, w.dump())
			}
			w.replayLetter("r1", dead)
			w.until("the next run", time.Minute, func() bool { return w.entry("r1").Run == run+2 })
		}
		w.settled(10 * time.Minute)
		w.wantOutcomes("r1", "1 rejected.", "2 rejected.", "3 rejected.", "4 submitted", "4 succeeded.")
	})
}

func TestReplayTwiceOpensOneRun(t *testing.T) {
	inWorld(t, setup{}, func(w *world) {
		w.api.Inject(rejectOnce)
		w.ask("r1", 1)
		dead := w.lastDead("r1")
		w.replayLetter("r1", dead)
		w.passes(time.Second)
		w.publish("r1", message.ReplayHeader(dead.seq, dead.header), dead.payload) // the broker knows its Nats-Msg-Id
		w.settled(10 * time.Minute)
		w.passes(15 * time.Minute)
		w.replayLetter("r1", dead) // the broker has forgotten it
		w.settled(10 * time.Minute)
		w.wantOutcomes("r1", "1 rejected.", "2 submitted", "2 succeeded.")
		if len(w.told) != 3 || w.kept() != 0 {
			t.Errorf("%d results, %d dead letters\n%s", len(w.told), w.kept(), w.dump())
		}
	})
}

// An abandoned request can be replayed; one whose call was never found is looked for before it is called again.
func TestReplayOfAnAbandonedRequest(t *testing.T) {
	for name, c := range map[string]struct {
		faults []defendersim.Fault
		why    string
		posts  int
	}{
		"gave up":                    {[]defendersim.Fault{{Op: "unrestrict", Machine: machine(1), Status: 503}}, "abandoned gaveUp", -1},
		"fate unknown, carried out":  {[]defendersim.Fault{{Op: "unrestrict", Status: 503, Times: 1, CarriedOut: true}, {Op: "list", Status: 500}}, "abandoned fateUnknown", 1},
		"fate unknown, not made out": {[]defendersim.Fault{{Op: "unrestrict", Status: 503, Times: 1}, {Op: "list", Status: 500}}, "abandoned fateUnknown", 2},
	} {
		t.Run(name, func(t *testing.T) {
			inWorld(t, setup{untended: true, free: true, submit: impatient}, func(w *world) {
				for _, f := range c.faults {
					w.api.Inject(f)
				}
				w.ask("r1", 1)
				w.until("the call", time.Minute, func() bool { return len(w.posts(1)) == 1 })
				w.others(outage)
				w.wantFinal("r1", c.why)
				w.api.ClearFaults()
				first := len(w.posts(1))
				looks := len(w.lookUps(1)) + len(w.guardLooks())
				w.replayLetter("r1", w.lastDead("r1"))
				w.settled(10 * time.Minute)
				w.wantOutcomes("r1", "1 abandoned.", "2 submitted.")
				if c.posts >= 0 {
					w.wantPosts(1, c.posts)
				} else if len(w.posts(1)) != first+1 {
					t.Errorf("%d calls by the replay", len(w.posts(1))-first)
				}
				if len(w.lookUps(1))+len(w.guardLooks()) == looks {
					t.Error("it was not looked for")
				}
				if r := w.wantFinal("r1", "submitted"); r.Adopted {
					t.Error("adopted")
				}
			})
		})
	}
}

// A message that only pretends to be a replay is malformed, and leaves the dead letter and the request alone.
func TestForgedReplayIsRefused(t *testing.T) {
	inWorld(t, setup{}, func(w *world) {
		w.api.Inject(rejectOnce)
		w.ask("r1", 1)
		dead := w.lastDead("r1")
		header := message.ReplayHeader(dead.seq, dead.header)
		mark := func(seq string, id string) message.Header {
			return message.Header{message.HeaderReplay: {seq}, "Nats-Msg-Id": {id}}
		}
		refused := []uint64{
			w.publish("", header, payload("r1", 2)),                                                            // altered
			w.publish("", message.ReplayHeader(99, dead.header), dead.payload),                                 // no such dead letter
			w.publish("", mark("99", "replay:99x"), payload("r1", 1)),                                          // nor here
			w.publish("", mark("0", "a"), payload("r1", 1)),                                                    // no sequence
			w.publish("", mark("nonsense", "b"), payload("r1", 1)),                                             // nor here
			w.publish("", message.ReplayHeader(98, message.Header{}), payload("r2", 2, field{"id", `"r2"`})),   // of nothing
			w.publish("", message.Header{message.HeaderReplay: {"99"}}, payload("", 3)),                        // without any id
			w.publish("", message.Header{message.HeaderReplay: {fmt.Sprint(dead.seq)}}, []byte(`{"id":"r1"}`)), // altered
		}
		w.settled(10 * time.Minute)
		for _, seq := range refused {
			w.wantFinal(w.ref(seq), "rejected malformed")
		}
		w.wantOutcomes("r1", "1 rejected.")
		w.wantPosts(2, 0)
		w.wantPosts(3, 0)
		if w.kept() != 1+len(refused) {
			t.Errorf("%d dead letters kept", w.kept())
		}
		w.replayLetter("r1", dead) // dropped, for its Nats-Msg-Id was used by a forgery
		w.settled(10 * time.Minute)
		w.wantOutcomes("r1", "1 rejected.")
		again := message.ReplayHeader(dead.seq, dead.header)
		again["Nats-Msg-Id"] = []string{again.Get("Nats-Msg-Id") + ":5ab3"} // as the command publishes it then
		w.publish("r1", again, dead.payload)
		w.settled(10 * time.Minute)
		w.wantOutcomes("r1", "1 rejected.", "2 submitted", "2 succeeded.")
	})
}

// Deployments may share a stream of dead letters: what was asked of one is not carried out by another.
func TestReplayOfAnotherDeploymentIsRefused(t *testing.T) {
	for name, c := range map[string]struct{ header, value string }{
		"another subject": {message.HeaderDeadSubject, "staging.unrestrict"},
		"another stream":  {message.HeaderDeadStream, "STAGING"},
	} {
		t.Run(name, func(t *testing.T) {
			inWorld(t, setup{}, func(w *world) {
				w.api.Inject(rejectOnce)
				w.ask("r1", 1)
				dead := w.lastDead("r1")
				w.must(w.broker.NewPublisher().Drop(w.ctx, dead.seq))
				dead.header[c.header] = []string{c.value}
				dead.header["Nats-Msg-Id"] = []string{"another's"}
				ack, err := w.broker.JS().PublishMsg(w.ctx, &nats.Msg{Subject: w.broker.Names().DeadletterSubject, Header: nats.Header(dead.header), Data: dead.payload})
				w.must(err)
				dead.seq = ack.Sequence
				again := w.replayLetter("", dead)
				w.settled(10 * time.Minute)
				if r := w.wantFinal(w.ref(again), "rejected malformed"); !strings.Contains(r.Error.Message, c.value) && c.header == message.HeaderDeadSubject {
					t.Errorf("%+v", r.Error)
				}
				w.wantOutcomes("r1", "1 rejected.")
				w.wantPosts(1, 1)
			})
		})
	}
}

// Expiry and signature are judged anew.
func TestReplayIsJudgedAnew(t *testing.T) {
	key, err := nkeys.CreateUser()
	if err != nil {
		t.Fatal(err)
	}
	public, _ := key.PublicKey()
	seed, _ := key.Seed()
	other, _ := nkeys.CreateUser()
	stranger, _ := other.PublicKey()
	trusted := ""
	set := setup{rules: func(r *remediation.Submitter) {
		var err error
		if r.Rules.Signers, err = message.ParseSigners(trusted); err != nil {
			t.Error(err)
		}
	}}
	t.Run("expired meanwhile", func(t *testing.T) {
		inWorld(t, setup{}, func(w *world) {
			w.api.Inject(rejectOnce)
			w.ask("r1", 1, expiresIn(10*time.Minute))
			dead := w.lastDead("r1")
			w.passes(20 * time.Minute)
			w.replayLetter("r1", dead)
			w.settled(10 * time.Minute)
			w.wantOutcomes("r1", "1 rejected.", "2 rejected.")
			w.wantFinal("r1", "rejected expired")
			w.wantPosts(1, 1)
		})
	})
	t.Run("signer trusted meanwhile", func(t *testing.T) {
		trusted = "somebody=" + stranger
		inWorld(t, set, func(w *world) {
			data := payload("r1", 1, expiresIn(time.Hour))
			_, sig, err := message.Sign(seed, w.broker.Names().Subject, data)
			w.must(err)
			seq := w.publish("", message.Header{message.HeaderSigner: {public}, message.HeaderSignature: {sig}}, data)
			dead := w.lastDead(w.ref(seq))
			again := w.replayLetter("", dead) // still unknown: refused again, and the letter replaced
			w.settled(10 * time.Minute)
			w.wantFinal(w.ref(again), "rejected unknownSigner")
			if w.kept() != 1 {
				t.Errorf("%d dead letters kept", w.kept())
			}
			w.replicas[0].stop()
			trusted = "ann=" + public
			w.start()
			w.replayLetter("r1", w.lastDead(w.ref(again)))
			w.settled(10 * time.Minute)
			if r := w.wantFinal("r1", "succeeded"); r.SignedBy != "ann" {
				t.Errorf("signed by %q", r.SignedBy)
			}
			if w.kept() != 0 {
				t.Errorf("%d dead letters kept", w.kept())
			}
		})
	})
	t.Run("malformed stays malformed", func(t *testing.T) {
		inWorld(t, setup{}, func(w *world) {
			seq := w.publish("", nil, []byte(`{"machineId":"x"`))
			again := w.replayLetter("", w.lastDead(w.ref(seq)))
			w.settled(10 * time.Minute)
			w.wantFinal(w.ref(again), "rejected malformed")
			if w.kept() != 1 {
				t.Errorf("%d dead letters kept", w.kept())
			}
		})
	})
}
