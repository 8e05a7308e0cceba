package remediation_test

import (
	"fmt"
	"testing"
	"time"

	"example.com/unrestrict-worker/internal/broker"
	"example.com/unrestrict-worker/internal/budget"
	"example.com/unrestrict-worker/internal/defender/defendersim"
	"example.com/unrestrict-worker/internal/remediation"
	"example.com/unrestrict-worker/test/raced"
)

// A bulk that is older than WORKER_GUARD_AFTER goes at the API's speed: of its calls at most 5 % are looks of any kind, and
// at no time are there more than the API allows. Of 5,000 the last one is called after 3 h 20 min at the latest (README);
// the race detector, which has seen all there is after three minutes' calls, gets 290.
func TestOldBulkGoesAtFullSpeed(t *testing.T) {
	burst, within := 5000, 200*time.Minute
	if raced.On {
		burst, within = 290, 3*time.Minute
	}
	for name, c := range map[string]struct {
		requests int
		drip     bool // the hour before was spent evenly, so that calls come free one by one
		within   time.Duration
	}{
		"in bursts":                  {requests: burst, within: within},
		"calls come free one by one": {requests: 440, drip: true, within: 21 * time.Minute},
	} {
		t.Run(name, func(t *testing.T) {
			inWorld(t, setup{
				replicas: -1, limits: budget.Limits(100, 1500), submit: func(c *remediation.SubmitConfig) { c.GuardAfter = time.Minute },
				api: defendersim.Config{
					Limits:  []defendersim.Limit{{Calls: 100, Per: time.Minute}, {Calls: 1500, Per: time.Hour}},
					Latency: 300 * time.Millisecond, Lifecycle: defendersim.Lifecycle{Pending: 30 * time.Second},
				},
			}, func(w *world) {
				w.must(w.shared.Pause(w.ctx, broker.Pause{Reason: "until they are old"}))
				r := w.start()
				for n := range c.requests {
					w.ask(fmt.Sprint("r", n), n)
				}
				time.Sleep(2 * time.Minute)
				for n := 0; c.drip && n < 1500; n++ {
					if _, err := r.budget.Take(w.ctx, "lookup"); err != nil {
						t.Fatal(err)
					}
					time.Sleep(time.Hour / 1500)
				}
				began := time.Now()
				w.must(w.shared.Resume(w.ctx))
				time.Sleep(c.within + 10*time.Minute)
				looks, posts, beside, last := 0, 0, 0, began
				for _, call := range w.api.Calls() {
					switch {
					case call.Status == 429:
						t.Errorf("a call too many after %v", call.At.Sub(began))
					case call.Op == "unrestrict": // looks behind the last one are no matter of this
						posts, last, looks = posts+1, call.At, beside
					default:
						beside++
					}
				}
				sum := fmt.Sprintf("%d calls, the last after %v, and %d looks, %d of them the guard's", posts, last.Sub(began), looks, len(w.guardLooks()))
				t.Log(sum)
				if posts != c.requests || last.Sub(began) > c.within || looks*20 > posts+looks || len(w.guardLooks()) == 0 {
					t.Error(sum)
				}
			})
		})
	}
}
