package remediation_test

import (
	"fmt"
	"testing"
	"time"

	"example.com/unrestrict-worker/internal/defender/defendersim"
	"example.com/unrestrict-worker/internal/ledger"
)

// follower is the replica that follows now.
func (w *world) follower() *replica {
	for _, r := range w.replicas {
		if r.tracking.Load() && !r.dead.Load() {
			return r
		}
	}
	return nil
}

func TestFollowingIsTakenOver(t *testing.T) {
	for name, leave := range map[string]func(r *replica){"killed": (*replica).kill, "stopped": (*replica).stop} {
		t.Run(name, func(t *testing.T) {
			inWorld(t, setup{replicas: 3, api: defendersim.Config{Lifecycle: defendersim.Lifecycle{Pending: 3 * time.Minute}}}, func(w *world) {
				for n := range 8 {
					w.ask(fmt.Sprint("r", n), n)
				}
				w.passes(time.Minute)
				first := w.follower()
				if first == nil || first.tracker.Following() != 8 {
					t.Fatalf("nobody follows 8 actions\n%s", w.dump())
				}
				leave(first)
				w.passes(leaseLife + 3*time.Second)
				second := w.follower()
				if second == nil || second == first || second.tracker.Following() != 8 {
					t.Fatal("nobody took over what is followed")
				}
				w.settled(5 * time.Minute)
				for n := range 8 {
					w.wantOutcomes(fmt.Sprint("r", n), "1 submitted", "1 succeeded.")
				}
			})
		})
	}
}

// One list for all: of several replicas only one follows.
func TestOneReplicaFollows(t *testing.T) {
	inWorld(t, setup{replicas: 3, api: defendersim.Config{Lifecycle: defendersim.Lifecycle{Pending: 10 * time.Minute}}}, func(w *world) {
		w.ask("r1", 1)
		w.passes(9 * time.Minute)
		if n, most := len(w.called("list")), int(9*time.Minute/pollInterval); n > most || n == 0 {
			t.Errorf("%d lists, at most %d are of one replica", n, most)
		}
	})
}

// A second follower, which believes that it has the lease, only wastes calls.
func TestTwoFollowersTellOnce(t *testing.T) {
	inWorld(t, setup{replicas: 2, untended: true, api: defendersim.Config{Lifecycle: defendersim.Lifecycle{Pending: time.Minute}}}, func(w *world) {
		for _, r := range w.replicas {
			r.parts.Go(func() { _ = r.track(r.ctx) })
		}
		for n := range 20 {
			w.ask(fmt.Sprint("r", n), n)
		}
		w.settled(5 * time.Minute)
		for n := range 20 {
			w.wantOutcomes(fmt.Sprint("r", n), "1 submitted", "1 succeeded.")
		}
	})
}

// An acceptance that its replica did not come to tell is told before the end is, and once, though the message comes
// again only long after.
func TestAcceptanceIsToldThoughItsReplicaDied(t *testing.T) {
	for _, f := range []fault{{at: atRecord, done: true}, {at: atSubmitted}, {at: atSubmitted, done: true}, {at: atAck}} {
		t.Run(f.String(), func(t *testing.T) {
			inWorld(t, setup{ackWait: 4 * time.Minute}, func(w *world) {
				f.dies, f.times = true, 1
				w.faults.inject(f)
				w.ask("r1", 1)
				w.until("the death", time.Minute, func() bool { return w.living() == 0 })
				w.start()
				w.until("the end", 3*time.Minute, func() bool { return w.entry("r1").Published })
				w.passes(time.Second)
				if len(w.pending()) != 1 {
					t.Fatal("the message is not waiting any more, so that nothing is shown")
				}
				w.wantOutcomes("r1", "1 submitted", "1 succeeded.")
				w.settled(10 * time.Minute)
				w.wantOutcomes("r1", "1 submitted", "1 succeeded.")
				w.wantPosts(1, 1)
			})
		})
	}
}

// The same where the end was decided and not told either, and the message comes before a sweep does.
func TestAcceptanceAndEndAreToldThoughBothReplicasDied(t *testing.T) {
	inWorld(t, setup{untended: true}, func(w *world) {
		w.faults.inject(fault{at: atSubmitted, dies: true, times: 1})
		w.ask("r1", 1)
		w.until("the first death", time.Minute, func() bool { return w.living() == 0 })
		w.faults.inject(fault{at: atDecision, done: true, dies: true, times: 1})
		second := w.start()
		second.parts.Go(func() { _ = second.track(second.ctx) })
		w.until("the second death", 19*time.Second, func() bool { return w.living() == 0 })
		w.wantOutcomes("r1")
		w.start()
		w.settled(time.Minute)
		w.wantOutcomes("r1", "1 submitted", "1 succeeded.")
	})
}

// What was decided and not told when its replica died is told by whoever comes next, without another look at the API.
func TestSweepTellsWhatWasDecided(t *testing.T) {
	for _, f := range []fault{{at: atDecision, done: true}, {at: atFinal}, {at: atFinal, done: true}, {at: atMark}} {
		t.Run(f.String(), func(t *testing.T) {
			inWorld(t, setup{}, func(w *world) {
				w.ask("r1", 1)
				w.until("the call", time.Minute, func() bool { return w.entry("r1").State == ledger.StateSubmitted })
				f.dies, f.times = true, 1
				w.faults.inject(f)
				w.until("the death", time.Minute, func() bool { return w.living() == 0 })
				w.passes(time.Hour)
				lists := len(w.called("list"))
				w.start()
				w.settled(time.Minute)
				w.wantOutcomes("r1", "1 submitted", "1 succeeded.")
				if n := len(w.called("list")); n != lists {
					t.Errorf("%d more lists", n-lists)
				}
			})
		})
	}
}

// What could not be marked as told for longer than the streams remember message ids is not told twice.
func TestResultIsNotToldTwicePastTheDuplicateWindow(t *testing.T) {
	inWorld(t, setup{}, func(w *world) {
		for n, id := range []string{"followed", "rejected"} {
			w.faults.inject(fault{at: atFinal, done: true, dies: true, times: 1})
			w.api.Inject(defendersim.Fault{Op: "unrestrict", Machine: machine(1), Status: 400, Code: "InvalidInput"})
			w.ask(id, n)
			w.until("the death", 5*time.Minute, func() bool { return w.living() == 0 })
			if n == 0 {
				w.passes(time.Minute)
				w.start()
			}
		}
		w.passes(24*time.Hour + time.Minute)
		w.start()
		w.settled(5 * time.Minute)
		w.wantFinal("followed", "succeeded")
		w.wantFinal("rejected", "rejected InvalidInput")
		if n := len(w.dead("rejected")); n != 1 {
			t.Errorf("%d dead letters", n)
		}
	})
}
