package remediation

import "sync"

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
