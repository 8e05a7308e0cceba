package remediation_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"example.com/unrestrict-worker/internal/budget"
	"example.com/unrestrict-worker/internal/defender/defendersim"
	"example.com/unrestrict-worker/internal/remediation"
	"example.com/unrestrict-worker/test/raced"
)

// Of the calls of the quota most release, though one in ten gets a 503: one list serves all looks that are due at a time.
func TestLooksAreShared(t *testing.T) {
	cases := map[string]struct {
		spent   bool // the hour before was, so that calls come free one by one
		for_    time.Duration
		fault   defendersim.Fault
		atLeast int // accepted
		looks   int // at most
	}{
		"100 a minute, 503 without effect": {for_: 5 * time.Minute, fault: defendersim.Fault{Op: "unrestrict", Probability: 0.1, Status: 503}, atLeast: 420, looks: 20},
		"100 a minute, 503 carried out":    {for_: 5 * time.Minute, fault: defendersim.Fault{Op: "unrestrict", Probability: 0.1, Status: 503, CarriedOut: true}, atLeast: 470, looks: 20},
		"25 a minute, 503 without effect":  {spent: true, for_: 20 * time.Minute, fault: defendersim.Fault{Op: "unrestrict", Probability: 0.1, Status: 503}, atLeast: 370, looks: 50},
		"100 a minute, all is well":        {for_: 5 * time.Minute, atLeast: 480, looks: 0},
	}
	if raced.On { // 40 minutes show it no more than five do
		delete(cases, "25 a minute, 503 without effect")
		delete(cases, "100 a minute, all is well")
	}
	for name, c := range cases {
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
				for n := range max(600, c.atLeast*3/2) { // more than there are calls for
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
					case strings.Contains(call.Query, "%28type"):
						looks++
					default:
						follows++
					}
				}
				accepted, ended := len(w.api.Actions()), 0
				w.refresh()
				for _, p := range w.published {
					if r, is := w.final(p.id); is && r.Outcome == "succeeded" {
						ended++
					}
				}
				sum := fmt.Sprintf("%d calls, %d looks for them, %d for what is followed, %d accepted, %d seen to end", calls, looks, follows, accepted, ended)
				t.Log(sum)
				if accepted < c.atLeast || looks > c.looks || ended < accepted*2/3 {
					t.Error(sum)
				}
			})
		})
	}
}

// A long list is not kept as it came, and one as long as a page has another behind it, though nothing says so. The action
// that it shows is found, and stands in the result as the API gives it.
func TestActionOfALongLook(t *testing.T) {
	for others, lists := range map[int]int{1100: 1, 10_050: 2} {
		t.Run(fmt.Sprint(others), func(t *testing.T) {
			inWorld(t, setup{untended: true, submit: func(c *remediation.SubmitConfig) { c.Track = false }}, func(w *world) {
				w.ask("r0", 10)
				w.settled(time.Minute) // the API's clock is known
				for n := range others {
					w.api.Put(defendersim.Action{MachineID: machine(5000 + n), Comment: "another's", Status: "Succeeded"})
					if n%100 == 0 {
						time.Sleep(10 * time.Millisecond)
					}
				}
				w.api.Inject(defendersim.Fault{Op: "unrestrict", Times: 1, Status: 503, CarriedOut: true})
				w.ask("r1", 1)
				w.settled(5 * time.Minute)
				r := w.wantFinal("r1", "submitted")
				if !strings.Contains(string(r.MachineAction), machine(1)) || r.MachineActionTruncated || r.Attempts != 1 || len(w.called("get")) != 1 || len(w.lookUps(1)) != lists {
					t.Errorf("%s, %d attempts, %d lists", r.MachineAction, r.Attempts, len(w.lookUps(1)))
				}
			})
		})
	}
}
