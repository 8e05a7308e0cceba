package remediation_test

import (
	"fmt"
	"testing"
	"time"

	"example.com/unrestrict-worker/internal/defender"
	"example.com/unrestrict-worker/internal/defender/defendersim"
)

// TestCodesOfTheAPIMakeNoSeriesOfTheirOwn: whoever answers in the API's place, or the API itself, can send any code.
func TestCodesOfTheAPIMakeNoSeriesOfTheirOwn(t *testing.T) {
	inWorld(t, setup{}, func(w *world) {
		for n := range 20 {
			w.api.Inject(defendersim.Fault{Op: "unrestrict", Machine: machine(n), Status: 400, Code: fmt.Sprint("MadeUp", n), Message: "no"})
			w.ask(fmt.Sprint("r", n), n)
		}
		w.api.Inject(defendersim.Fault{Op: "unrestrict", Machine: machine(20), Status: 400, Code: "InvalidInput", Message: "no"})
		w.ask("r20", 20)
		w.settled(10 * time.Minute)
		got := map[string]float64{}
		families, err := w.registry.Gather()
		w.must(err)
		for _, f := range families {
			for _, m := range f.GetMetric() {
				if f.GetName() == "unrestrict_deadletters_total" {
					got[m.GetLabel()[0].GetValue()] = m.GetCounter().GetValue()
				}
			}
		}
		if len(got) != 2 || got[defender.OtherCode] != 20 || got["InvalidInput"] != 1 {
			t.Errorf("series by code: %v", got)
		}
	})
}

// TestFaultOfAMadeUpCode: its code is shown to whoever may ask /readyz, and is a metric's label.
func TestFaultOfAMadeUpCode(t *testing.T) {
	inWorld(t, setup{}, func(w *world) {
		w.api.Inject(defendersim.Fault{Op: "unrestrict", Times: 3, Status: 401, Code: "MadeUp", Message: "no"})
		w.ask("r", 1)
		w.passes(2 * time.Second)
		if fault, on := w.replicas[0].submitter.Breaker.Current(); !on || fault.Code != defender.OtherCode {
			t.Errorf("fault %+v, %t", fault, on)
		}
		w.settled(10 * time.Minute)
	})
}
