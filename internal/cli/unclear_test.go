package cli

import (
	"testing"

	"example.com/unrestrict-worker/internal/defender/defendersim"
)

// TestTwoMachinesWithoutAClearAnswer: too few to trip the breaker, and all that there are. Every place says it, however long it
// lasts, and no place once they are served.
func TestTwoMachinesWithoutAClearAnswer(t *testing.T) {
	t.Parallel()
	p := newConditionPlace(t, situation{})
	p.sim.Inject(defendersim.Fault{Op: "unrestrict", Status: 503, Code: "ServiceUnavailable", Message: "later"})
	p.publish(t, "one", 1)
	p.publish(t, "two", 2)
	p.isSaid(t, unclearForFew())
	p.sim.ClearFaults()
	p.isUnsaid(t, unclearForFew().Code)
}
