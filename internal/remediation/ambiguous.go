package remediation

import (
	"sync"

	"example.com/unrestrict-worker/internal/defender"
)

// ambiguousRun counts unclear answers in a row over different machines, in the order in which they arrive.
type ambiguousRun struct {
	mu       sync.Mutex
	machines map[string]struct{}
}

// maxAmbiguous is how many are a fault of the system.
const maxAmbiguous = 3

// add counts one, and says whether there are too many.
func (r *ambiguousRun) add(machine string) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.machines == nil {
		r.machines = map[string]struct{}{}
	}
	if len(r.machines) < maxAmbiguous {
		r.machines[machine] = struct{}{}
	}
	return len(r.machines) >= maxAmbiguous
}

func (r *ambiguousRun) reset() {
	r.mu.Lock()
	defer r.mu.Unlock()
	clear(r.machines)
}

// countAnswer counts an answer. Several unclear ones in a row, for different machines, are a fault of the system.
func (p *attempt) countAnswer(a *defender.Error) (ambiguous bool) {
	switch {
	case a == nil:
		p.ambiguous.reset()
	case a.Class == defender.Ambiguous:
		return !a.FromProxy() && p.ambiguous.add(p.e.MachineID)
	case a.Class == defender.Throttled:
		p.Breaker.ResetFrom(faultUnreachable)
		p.ambiguous.reset()
	case a.Class == defender.Conflict, a.Class == defender.NotFound, a.Class == defender.Rejected, a.Class == defender.System:
		p.ambiguous.reset()
	}
	return false
}
