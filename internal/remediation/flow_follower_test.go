package remediation_test

import (
	"testing"
	"time"

	"example.com/unrestrict-worker/internal/defender/defendersim"
	"example.com/unrestrict-worker/internal/health"
)

// A list that hangs is said before its time-out, and no more once one is answered.
func TestHangingListIsSaidSoon(t *testing.T) {
	inWorld(t, setup{}, func(w *world) {
		w.api.Inject(defendersim.Fault{Op: "list", Hang: true})
		w.ask("r1", 1)
		w.passes(pollInterval + 14*time.Second)
		if !w.replicas[0].holds(health.NotFollowing) {
			t.Error("it is not said within 30 s of the acceptance")
		}
		w.passes(2 * time.Minute)
		if !w.replicas[0].holds(health.NotFollowing) {
			t.Error("it is not said any more, and lasts")
		}
		w.api.ClearFaults()
		w.settled(5 * time.Minute)
		if w.replicas[0].holds(health.NotFollowing) {
			t.Error("still said")
		}
	})
}

// A replica that follows and has lost its own way to the API leaves following to another one, and says what it knows until
// that one has had its time. Where there is no other it goes on trying.
func TestFollowerWithoutAWayToTheAPILetsGo(t *testing.T) {
	for name, replicas := range map[string]int{"alone": 1, "beside another": 2} {
		t.Run(name, func(t *testing.T) {
			inWorld(t, setup{replicas: replicas, api: defendersim.Config{Lifecycle: defendersim.Lifecycle{Pending: time.Minute}}}, func(w *world) {
				w.ask("r1", 1)
				w.until("the action to be followed", time.Minute, func() bool { return w.follower() != nil && w.follower().tracker.Following() == 1 })
				first := w.follower()
				first.astray.Store(true)
				w.passes(4 * time.Minute)
				if replicas == 1 {
					if w.follower() != first || !first.holds(health.NotFollowing) {
						t.Error("it has let go, or says nothing")
					}
					first.astray.Store(false)
				}
				w.settled(4 * time.Minute)
				w.wantFinal("r1", "succeeded")
				w.passes(3 * time.Minute)
				if first.holds(health.NotFollowing) {
					t.Error("still said")
				}
			})
		})
	}
}
