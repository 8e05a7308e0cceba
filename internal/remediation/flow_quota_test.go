package remediation_test

import (
	"fmt"
	"testing"
	"time"

	"example.com/unrestrict-worker/internal/budget"
	"example.com/unrestrict-worker/internal/defender/defendersim"
)

// After a 429 no replica starts a call before its Retry-After is over, not even one that is started meanwhile; the
// request that met it has lost nothing but the time.
func TestRetryAfterHoldsForAllReplicas(t *testing.T) {
	for name, c := range map[string]struct {
		op    string
		after time.Duration
	}{
		"call, a quarter of an hour": {"unrestrict", 15 * time.Minute}, "look-up, two minutes": {"list", 2 * time.Minute}, "call, ten seconds": {"unrestrict", 10 * time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			inWorld(t, setup{replicas: 2, untended: true, submit: impatient}, func(w *world) {
				w.ask("r0", 10)
				w.settled(time.Minute)
				if c.op == "list" { // something to look up
					w.api.Inject(defendersim.Fault{Op: "unrestrict", Times: 1, Status: 503, CarriedOut: true})
				}
				w.api.Inject(defendersim.Fault{Op: c.op, Times: 1, Status: 429, RetryAfter: c.after})
				w.ask("r1", 1)
				throttled := func() (at time.Time) {
					for _, call := range w.api.Calls() {
						if call.Status == 429 {
							at = call.At
						}
					}
					return at
				}
				w.until("the 429", time.Minute, func() bool { return !throttled().IsZero() })
				for n := range 5 {
					w.ask(fmt.Sprint("more", n), 20+n)
				}
				w.passes(c.after / 2)
				w.start()
				w.replicas[0].stop()
				w.settled(2 * c.after)
				at := throttled()
				for _, call := range w.api.Calls() {
					if call.At.After(at) && call.At.Before(at.Add(c.after)) {
						t.Errorf("a call %v after the 429\n%s", call.At.Sub(at), w.dump())
					}
				}
				if r := w.wantFinal("r1", "submitted"); c.op == "unrestrict" && r.Attempts != 2 {
					t.Errorf("%d attempts", r.Attempts)
				}
				for n := range 5 {
					w.wantFinal(fmt.Sprint("more", n), "submitted")
				}
			})
		})
	}
}

// Three replicas together keep the windows as the API counts them, and all requests get through.
func TestReplicasShareTheWindows(t *testing.T) {
	limits := budget.Limits(10, 20)
	api := defendersim.Config{Limits: []defendersim.Limit{{Calls: 10, Per: time.Minute}, {Calls: 20, Per: time.Hour}}, Latency: 50 * time.Millisecond}
	inWorld(t, setup{replicas: 2, untended: true, limits: limits, api: api, submit: impatient}, func(w *world) {
		for n := range 25 {
			w.ask(fmt.Sprint("r", n), n)
		}
		w.passes(30 * time.Minute)
		if n := len(w.called("unrestrict")); n < 16 {
			t.Errorf("%d calls in half an hour, though 20 are allowed", n)
		}
		w.settled(3 * time.Hour) // far longer than any may fail
		for n := range 25 {
			w.wantFinal(fmt.Sprint("r", n), "submitted")
		}
		if n := w.api.Throttled(); n != 0 {
			t.Errorf("%d calls too many", n)
		}
	})
}

// others keeps some other request being served.
func (w *world) others(d time.Duration) {
	w.t.Helper()
	for end := time.Now().Add(d); time.Now().Before(end); {
		n := 1000 + len(w.published)
		w.ask(fmt.Sprint("other", n), n)
		w.passes(20 * time.Second)
	}
}

// A request that can't be carried out while others can is given up in the end, with what was the matter.
func TestRequestIsGivenUpForFaultsOfItsOwn(t *testing.T) {
	const mine = 1
	for name, c := range map[string]struct {
		faults []defendersim.Fault
		want   string
	}{
		"its call always fails":            {[]defendersim.Fault{{Op: "unrestrict", Status: 503}}, "abandoned gaveUp"},
		"its call hangs":                   {[]defendersim.Fault{{Op: "unrestrict", Hang: true}}, "abandoned gaveUp"},
		"its call can't be looked for":     {[]defendersim.Fault{{Op: "unrestrict", Status: 503}, {Op: "list", Status: 500}}, "abandoned fateUnknown"},
		"its look-ups are unreadable":      {[]defendersim.Fault{{Op: "unrestrict", Cut: "before"}, {Op: "list", Body: []byte("<html>")}}, "abandoned fateUnknown"},
		"another action holds its machine": {[]defendersim.Fault{{Op: "unrestrict", Status: 400, Code: "ActiveRequestAlreadyExists"}}, "abandoned gaveUp"},
	} {
		t.Run(name, func(t *testing.T) {
			inWorld(t, setup{untended: true, free: true, submit: impatient}, func(w *world) {
				for _, f := range c.faults {
					if f.Op != "list" { // one of those is for all machines
						f.Machine = machine(mine)
					}
					w.api.Inject(f)
				}
				w.ask("mine", mine)
				w.others(impatience - time.Minute)
				w.wantOutcomes("mine")
				w.others(outage)
				r := w.wantFinal("mine", c.want)
				if r.Error == nil || r.Error.Origin != "worker" || len(w.dead("mine")) != 1 {
					t.Errorf("%+v, %d dead letters", r.Error, len(w.dead("mine")))
				}
				w.settled(time.Minute)
				for _, p := range w.published[1:] {
					w.wantFinal(p.id, "submitted")
				}
			})
		})
	}
}
