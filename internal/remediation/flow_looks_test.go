package remediation_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"example.com/unrestrict-worker/internal/budget"
	"example.com/unrestrict-worker/internal/defender/defendersim"
)

// Of the calls of the quota most release, though one in ten gets a 503: one list serves all looks that are due at a time.
func TestLooksAreShared(t *testing.T) {
	for name, c := range map[string]struct {
		spent   bool // the hour before was, so that calls come free one by one
		for_    time.Duration
		fault   defendersim.Fault
		atLeast int // accepted
		looks   int // at most
	}{
		"100 a minute, 503 without effect": {for_: 5 * time.Minute, fault: defendersim.Fault{Op: "unrestrict", Probability: 0.1, Status: 503}, atLeast: 420, looks: 20},
		"100 a minute, 503 carried out":    {for_: 5 * time.Minute, fault: defendersim.Fault{Op: "unrestrict", Probability: 0.1, Status: 503, CarriedOut: true}, atLeast: 470, looks: 20},
		"25 a minute, 503 without effect":  {spent: true, for_: 40 * time.Minute, fault: defendersim.Fault{Op: "unrestrict", Probability: 0.1, Status: 503}, atLeast: 750, looks: 100},
		"100 a minute, all is well":        {for_: 5 * time.Minute, atLeast: 480, looks: 0},
	} {
		t.Run(name, func(t *testing.T) {
			inWorld(t, setup{
				replicas: -1, limits: budget.Limits(100, 1500),
				api: defendersim.Config{
					Seed:    1,
					Limits:  []defendersim.Limit{{Calls: 100, Per: time.Minute}, {Calls: 1500, Per: time.Hour}},
					Latency: 100 * time.Millisecond, Lifecycle: defendersim.Lifecycle{Pending: 30 * time.Second},
				},
			}, func(w *world) {
				r := w.start()
				for n := 0; c.spent && n < 1500; n++ {
					if _, err := r.budget.Take(w.ctx, "lookup"); err != nil {
						t.Fatal(err)
					}
					time.Sleep(time.Hour / 1500)
				}
				if c.fault.Op != "" {
					w.api.Inject(c.fault)
				}
				for n := range 1200 {
					w.ask(fmt.Sprint("r", n), n)
				}
				began := time.Now()
				time.Sleep(c.for_)
				calls, looks, follows := 0, 0, 0
				for _, call := range w.api.Calls() {
					switch {
					case call.At.Before(began):
					case call.Op == "unrestrict":
						calls++
					case strings.Contains(call.Query, "$top"):
						follows++
					default:
						looks++
					}
				}
				accepted := len(w.api.Actions())
				sum := fmt.Sprintf("%d calls, %d looks for them, %d for what is followed, %d accepted", calls, looks, follows, accepted)
				t.Log(sum)
				if accepted < c.atLeast || looks > c.looks {
					t.Error(sum)
				}
			})
		})
	}
}
