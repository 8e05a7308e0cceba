package remediation_test

import (
	"fmt"
	"testing"
	"time"

	"example.com/unrestrict-worker/internal/defender/defendersim"
	"example.com/unrestrict-worker/internal/ledger"
)

// ways are the ways a request goes, with every point where something becomes durable on them.
var ways = []struct {
	name    string
	points  []point
	fault   defendersim.Fault // of the API; the zero one: none
	set     setup
	expired bool // when it is published
	signed  bool
	ordered bool // to be cancelled, before it comes
	outcome string
}{
	{
		name: "followed", outcome: "succeeded",
		points: []point{atIntent, atMachine, atPost, atRecord, atAudit, atSubmitted, atAck, atDecision, atFinal, atMark},
	},
	{
		name: "untracked", outcome: "submitted", set: setup{submit: untracked},
		points: []point{atIntent, atMachine, atPost, atDecision, atAudit, atFinal, atMark, atAck},
	},
	{
		name: "rejected", outcome: "rejected ClientVersionNotSupported",
		fault:  defendersim.Fault{Op: "unrestrict", Status: 400, Code: "ClientVersionNotSupported"},
		points: []point{atIntent, atMachine, atDecision, atAudit, atLetter, atFinal, atMark, atAck},
	},
	{
		name: "rejected uncalled", outcome: "rejected expired", expired: true,
		points: []point{atDecision, atLetter, atFinal, atMark, atAck},
	},
	{
		name: "unclear, carried out", outcome: "succeeded",
		fault:  defendersim.Fault{Op: "unrestrict", Status: 500, CarriedOut: true, Times: 1},
		points: []point{atUnknown, atRecord, atAudit, atSubmitted, atAck},
	},
	{
		name: "unclear, refused", outcome: "succeeded",
		fault:  defendersim.Fault{Op: "unrestrict", Status: 500, Times: 1},
		points: []point{atUnknown, atIntent, atMachine, atPost, atRecord},
	},
	{
		name: "throttled", outcome: "succeeded",
		fault:  defendersim.Fault{Op: "unrestrict", Status: 429, RetryAfter: 10 * time.Second, Times: 1},
		points: []point{atWaiting, atIntent, atMachine, atPost, atRecord},
	},
	{
		name: "cancelled", outcome: "cancelled cancelledByRequest", ordered: true, set: setup{ordered: true},
		points: []point{atDecision, atAudit, atFinal, atMark, atAck},
	},
	{
		name: "signed", outcome: "succeeded", signed: true,
		points: []point{atHeld, atIntent, atMachine, atPost, atRecord, atSubmitted, atAck, atDecision, atFinal, atMark},
	},
}

// come asks for a request whose way leads to a fault, and waits for its end.
func (w *world) come(way int, by signer, id string, n int, f fault) {
	w.t.Helper()
	w.faults.clear()
	w.api.ClearFaults()
	if ways[way].fault.Op != "" {
		w.api.Inject(ways[way].fault)
	}
	w.faults.inject(f)
	switch {
	case ways[way].expired:
		w.ask(id, n, expiresIn(-time.Second))
	case ways[way].signed:
		w.askAs(by, id, n)
	case ways[way].ordered:
		w.order(`{"verb":"cancel","id":%q}`, id)
		w.passes(2 * time.Second) // everybody has heard it
		w.ask(id, n)
	default:
		w.ask(id, n)
	}
	w.settled(10 * time.Minute)
	w.passes(time.Second)
	w.wantFinal(id, ways[way].outcome)
	if w.faults.armed() != 0 {
		w.t.Errorf("%s: nobody came to the point", f)
	}
}

// A replica that dies at any point, before it or behind it, leaves nothing behind that another one can't finish.
func TestDeathAtAnyPointIsSurvived(t *testing.T) {
	for i, way := range ways {
		t.Run(way.name, func(t *testing.T) {
			set := way.set
			set.replicas = 2
			ann := newSigner(t)
			if way.signed {
				set.rules = trusting("ann=" + ann.public)
			}
			inWorld(t, set, func(w *world) {
				for n, at := range way.points {
					for m, done := range []bool{false, true} {
						f := fault{at: at, done: done, dies: true, times: 1}
						w.come(i, ann, fmt.Sprint("r ", f), 1+2*n+m, f)
						if w.living() != 1 {
							w.t.Errorf("%s: %d replicas live", f, w.living())
						}
						// Whoever comes after is not held up by what was left behind.
						w.faults.clear()
						w.api.ClearFaults()
						w.ask(fmt.Sprint("behind ", f), 1+2*n+m, field{"comment", fmt.Sprintf("%q", "another, "+f.String())}) // of a signed world's it is refused
						w.settled(10 * time.Minute)
						w.start()
					}
				}
			})
		})
	}
}

// A broker that refuses one write, or loses one reply, costs nothing but time.
func TestFaultAtAnyPointIsSurvived(t *testing.T) {
	for i, way := range ways {
		t.Run(way.name, func(t *testing.T) {
			set, ann := way.set, newSigner(t)
			if way.signed {
				set.rules = trusting("ann=" + ann.public)
			}
			inWorld(t, set, func(w *world) {
				for n, at := range way.points {
					for m, done := range []bool{false, true} {
						f := fault{at: at, done: done, times: 1}
						w.come(i, ann, fmt.Sprint("r ", f), 1+2*n+m, f)
						w.until("the pause to end", time.Minute, func() bool { _, on := w.replicas[0].breaker.Current(); return !on })
					}
				}
			})
		})
	}
}

// A process that dies once the call is made known, and before it is made, has made no call: another one makes it.
func TestDeathBeforeTheCallCostsNoLookWhereNoneIsNeeded(t *testing.T) {
	for _, f := range []fault{{at: atIntent, done: true}, {at: atMachine}} {
		t.Run(f.String(), func(t *testing.T) {
			inWorld(t, setup{replicas: 2, untended: true, submit: untracked}, func(w *world) {
				f.dies, f.times = true, 1
				w.faults.inject(f)
				w.ask("r1", 1)
				w.settled(10 * time.Minute)
				w.wantPosts(1, 1)
				if n := len(w.lookUps(1)); n != 0 {
					t.Errorf("%d looks for a call that nobody can have made", n)
				}
				if r := w.wantFinal("r1", "submitted"); r.Attempts != 1 {
					t.Errorf("%d attempts", r.Attempts)
				}
			})
		})
	}
}

// living is how many replicas were not killed.
func (w *world) living() (n int) {
	for _, r := range w.replicas {
		if !r.dead.Load() {
			n++
		}
	}
	return n
}

// A process that lives is left alone as long as it can be calling, by others and by itself.
func TestLiveCallIsNotTakenOver(t *testing.T) {
	for _, replicas := range []int{1, 2} {
		t.Run(fmt.Sprintf("%d replicas", replicas), func(t *testing.T) {
			api := defendersim.Config{Latency: 28 * time.Second}
			inWorld(t, setup{replicas: replicas, api: api, untended: true, submit: untracked}, func(w *world) {
				w.ask("r1", 1)
				w.passes(time.Second)
				called := w.entry("r1")
				for range 3 {
					w.ask("r1", 1) // the others get it while the first one calls
				}
				w.passes(26 * time.Second)
				if e := w.entry("r1"); e.State != ledger.StateCalled || e.Revision != called.Revision {
					t.Errorf("somebody wrote over a call that is under way: %+v", e)
				}
				w.settled(10 * time.Minute)
				w.wantPosts(1, 1)
				if n := len(w.lookUps(1)); n != 0 {
					t.Errorf("%d looks for the call of a live process", n)
				}
			})
		})
	}
}

// The answer of a replica that could not write for so long that another one took over is not lost, whether the list
// shows the action or not.
func TestLateAnswerIsMerged(t *testing.T) {
	for _, listed := range []time.Duration{0, time.Hour} {
		t.Run(fmt.Sprintf("listed after %v", listed), func(t *testing.T) {
			api := defendersim.Config{ListLag: listed, Lifecycle: defendersim.Lifecycle{Pending: 2 * time.Hour}}
			inWorld(t, setup{api: api, replicas: -1, untended: true}, func(w *world) {
				first := w.start()
				w.faults.inject(fault{at: atRecord, who: first}) // until cleared
				w.ask("r1", 1)
				w.until("the call", time.Minute, func() bool { return len(w.posts(1)) == 1 })
				w.start()
				w.ask("r1", 1) // of which the second replica hears
				w.until("the second replica to look", 5*time.Minute, func() bool { return len(w.lookUps(1)) > 0 })
				w.passes(2 * time.Minute)
				w.faults.clear()
				w.passes(6 * time.Second)
				e, a := w.entry("r1"), w.api.Actions()
				if e.State != ledger.StateSubmitted || e.ActionID != a[0].ID || len(a) != 1 || e.Adopted {
					t.Errorf("entry %+v, actions %+v", e, a)
				}
				w.passes(10 * time.Minute)
				w.wantOutcomes("r1", "1 submitted")
				if n := len(w.pending()); n != 0 {
					t.Errorf("%d messages are not acknowledged", n)
				}
			})
		})
	}
}

// A call that its process did not live to hear the answer of is found as soon as its message comes to another one, which
// waits for nothing, and for which no look counts that was made before the call. One that took no effect is called again
// only after three looks, the last when it must have ended.
func TestCallOfADeadProcessIsFoundAtOnce(t *testing.T) {
	const ack = 5 * time.Second
	for _, done := range []bool{true, false} {
		t.Run(fmt.Sprintf("carried out %v", done), func(t *testing.T) {
			inWorld(t, setup{replicas: 2, untended: true, submit: untracked, ackWait: ack}, func(w *world) {
				for n := range 10 { // looks, of either replica
					w.api.Inject(defendersim.Fault{Op: "unrestrict", Machine: machine(100 + n), Times: 1, Status: 503, CarriedOut: true})
					w.ask(fmt.Sprint("before", n), 100+n)
					w.ask(fmt.Sprint("between", n), 200+n)
					w.passes(time.Second)
				}
				w.settled(2 * time.Minute)
				before := len(w.lookUps(1))
				if before == 0 {
					t.Fatal("no looks before")
				}
				w.faults.inject(fault{at: atPost, done: done, dies: true, times: 1})
				asked := time.Now()
				w.ask("r1", 1)
				w.until("the death", time.Minute, func() bool { return w.living() == 1 })
				w.passes(ack + time.Second)
				if _, found := w.final("r1"); found != done {
					t.Errorf("found: %v\n%s", found, w.dump())
				}
				w.settled(10 * time.Minute)
				w.wantFinal("r1", "submitted")
				looks, posts := w.lookUps(1)[before:], w.posts(1)
				if done {
					if len(looks) != 1 || len(posts) != 1 {
						t.Errorf("%d looks, %d calls", len(looks), len(posts))
					}
					return
				}
				if len(posts) != 1 || len(looks) < 3 || len(looks) > 6 || posts[0].At.Sub(asked) < startLimit+timeout {
					t.Errorf("%d looks, %d calls\n%s", len(looks), len(posts), w.dump())
				}
			})
		})
	}
}
