package remediation_test

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"example.com/unrestrict-worker/internal/broker"
	"example.com/unrestrict-worker/internal/budget"
	"example.com/unrestrict-worker/internal/consumer"
	"example.com/unrestrict-worker/internal/defender/defendersim"
)

// A request that waits for something of its own takes no slot and holds no other up.
func TestWaitingRequestHoldsNoOtherUp(t *testing.T) {
	for name, f := range map[string]defendersim.Fault{
		"to be looked for":     {Op: "unrestrict", Status: 503},
		"for its machine":      {Op: "unrestrict", Status: 400, Code: "ActiveRequestAlreadyExists"},
		"for a second 404":     {Op: "unrestrict", Status: 404},
		"for a busy machine":   {Op: "unrestrict", Hang: true, CarriedOut: true},
		"with unclear answers": {Op: "unrestrict", Cut: "body"},
	} {
		t.Run(name, func(t *testing.T) {
			inWorld(t, setup{slots: 2, untended: true, submit: untracked}, func(w *world) {
				f.Machine, f.Times = machine(1), 1
				w.api.Inject(f)
				w.ask("r1", 1)
				w.ask("r2", 1)
				w.until("the call", time.Minute, func() bool { return len(w.posts(1)) > 0 })
				for n := range 20 {
					w.ask(fmt.Sprint("other", n), 10+n)
				}
				w.passes(4 * time.Second)
				for n := range 20 {
					w.wantFinal(fmt.Sprint("other", n), "submitted")
				}
				w.settled(10 * time.Minute)
			})
		})
	}
}

// A slow call holds its own slot and no other.
func TestSlowCallHoldsOneSlot(t *testing.T) {
	inWorld(t, setup{slots: 3, untended: true, submit: untracked}, func(w *world) {
		for n := range 2 {
			w.api.Inject(defendersim.Fault{Op: "unrestrict", Machine: machine(n), Latency: 25 * time.Second})
			w.ask(fmt.Sprint("slow", n), n)
		}
		w.passes(time.Second)
		for n := range 20 {
			w.ask(fmt.Sprint("other", n), 10+n)
		}
		w.passes(3 * time.Second)
		for n := range 20 {
			w.wantFinal(fmt.Sprint("other", n), "submitted")
		}
		for n := range 2 {
			w.wantOutcomes(fmt.Sprint("slow", n))
		}
		w.settled(time.Minute)
		w.wantPosts(0, 1)
		w.wantPosts(1, 1)
	})
}

func TestShutdownFinishesWhatIsInFlight(t *testing.T) {
	inWorld(t, setup{api: defendersim.Config{Latency: 10 * time.Second}, untended: true, submit: untracked}, func(w *world) {
		w.ask("r1", 1)
		w.until("the call", time.Minute, func() bool { return len(w.posts(1)) == 1 })
		asked := time.Now()
		w.replicas[0].stop()
		if took := time.Since(asked); took > 11*time.Second {
			t.Errorf("it took %v", took)
		}
		if err := w.replicas[0].ended; err != nil {
			t.Error(err)
		}
		w.wantFinal("r1", "submitted")
		if n := len(w.pending()); n != 0 {
			t.Errorf("%d messages are not acknowledged", n)
		}
		w.wantPosts(1, 1)
	})
}

// What has not begun, or waits, goes back at once: another replica need not wait for AckWait.
func TestShutdownGivesTheRestBackAtOnce(t *testing.T) {
	inWorld(t, setup{slots: 2, untended: true, submit: untracked}, func(w *world) {
		first := w.replicas[0]
		w.net.setDown(true) // the first request is held while it is tried again
		w.ask("r1", 1)
		w.passes(time.Second)
		w.ask("r2", 2)
		asked := time.Now()
		first.stop()
		if took := time.Since(asked); took > time.Second {
			t.Errorf("it took %v", took)
		}
		w.net.setDown(false)
		w.start()
		w.passes(2 * time.Second)
		w.wantFinal("r1", "submitted")
		w.wantFinal("r2", "submitted")
		w.settled(time.Minute)
	})
}

// A request that is held until a call is free goes back too, and the stop is no fault of the system.
func TestShutdownGivesBackWhatIsHeldForQuota(t *testing.T) {
	inWorld(t, setup{limits: budget.Limits(10, 0), untended: true, submit: untracked}, func(w *world) {
		first := w.replicas[0]
		for n := range 8 {
			w.ask(fmt.Sprint("early", n), 10+n)
		}
		w.passes(57 * time.Second)
		w.tokens.setSlow(500 * time.Millisecond) // so that all are in hand before it is known that no call is left
		w.tokens.grant()
		for n := range 6 { // of which four have to wait for some seconds
			w.ask(fmt.Sprint("r", n), n)
		}
		w.passes(time.Second)
		if n := first.consumer.InFlight(); n != 4 {
			t.Fatalf("%d requests are held", n)
		}
		asked := time.Now()
		first.stop()
		if took := time.Since(asked); took > time.Second {
			t.Errorf("it took %v", took)
		}
		if f, on := first.breaker.Current(); on {
			t.Errorf("the stop counts as a fault: %+v", f)
		}
		w.start()
		w.settled(5 * time.Minute)
		for n := range 6 {
			w.wantFinal(fmt.Sprint("r", n), "submitted")
		}
	})
}

// A call that outlasts the shutdown is cut off, said, and looked up by the next start.
func TestCallThatOutlastsTheShutdownIsLookedUp(t *testing.T) {
	for _, done := range []bool{false, true} {
		t.Run(fmt.Sprintf("carried out %v", done), func(t *testing.T) {
			inWorld(t, setup{untended: true, submit: untracked}, func(w *world) {
				w.api.Inject(defendersim.Fault{Op: "unrestrict", Times: 1, Latency: 29 * time.Second, CarriedOut: done, Status: 201})
				w.ask("r1", 1)
				w.until("the call", time.Minute, func() bool { return len(w.posts(1)) == 1 })
				w.replicas[0].stop()
				if err := w.replicas[0].ended; !errors.Is(err, consumer.ErrUnfinished) {
					t.Errorf("the consumer ended with %v", err)
				}
				w.wantOutcomes("r1")
				w.start()
				w.settled(10 * time.Minute)
				w.wantFinal("r1", "submitted")
				w.wantPosts(1, map[bool]int{true: 1, false: 2}[done])
				if len(w.lookUps(1)) == 0 {
					t.Error("it was not looked for")
				}
			})
		})
	}
}

// The operator's pause keeps every message where it is, and loses nothing that is in flight.
func TestPauseStopsConsumptionOnEveryReplica(t *testing.T) {
	inWorld(t, setup{replicas: 2, api: defendersim.Config{Latency: 5 * time.Second}, untended: true, submit: untracked}, func(w *world) {
		w.ask("in flight", 1)
		w.until("the call", time.Minute, func() bool { return len(w.posts(1)) == 1 })
		w.must(w.shared.Pause(w.ctx, broker.Pause{Reason: "maintenance", Since: time.Now()}))
		w.passes(100 * time.Millisecond)
		for n := range 5 {
			w.ask(fmt.Sprint("r", n), 10+n)
		}
		w.start() // one that comes later knows too
		w.passes(5 * time.Minute)
		w.wantFinal("in flight", "submitted")
		if n := len(w.called("unrestrict")); n != 1 {
			t.Errorf("%d calls during the pause", n-1)
		}
		w.must(w.shared.Resume(w.ctx))
		w.settled(time.Minute)
		for n := range 5 {
			w.wantFinal(fmt.Sprint("r", n), "submitted")
		}
	})
}
