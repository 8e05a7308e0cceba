package remediation

import (
	"slices"
	"sync"

	"example.com/unrestrict-worker/internal/defender"
)

// streak holds the machines of consecutive unclear answers. It counts answers in the order in which they arrive, whatever is
// stored for each afterwards and however long that takes.
type streak []string

// longStreak is how many machines make the streak a fault of the system.
const longStreak = 3

// after returns the streak after one more answer to a call; a is nil for an acceptance.
func (s streak) after(machine string, a *defender.Error) streak {
	switch {
	case a == nil:
		return nil
	case a.Class == defender.Ambiguous && !a.FromProxy(): // a proxy's answer is a fault of its own
		return s.with(machine)
	case a.Class == defender.Throttled, a.Class == defender.Conflict, a.Class == defender.NotFound, a.Class == defender.Rejected, a.Class == defender.System:
		return nil
	}
	return s
}

// with returns the streak after one more unclear answer. Several for one machine count once, because they may be that
// machine's own trouble.
func (s streak) with(machine string) streak {
	if s.long() || slices.Contains(s, machine) {
		return s
	}
	return append(s, machine)
}

func (s streak) long() bool { return len(s) >= longStreak }

// ambiguousRun is the current streak of one process.
type ambiguousRun struct {
	mu  sync.Mutex
	now streak
}

// count counts an answer to a call, and reports whether the streak is long.
func (r *ambiguousRun) count(machine string, a *defender.Error) (long bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.now = r.now.after(machine, a)
	return r.now.long()
}

// add counts a look without a clear answer, and reports whether the streak is long.
func (r *ambiguousRun) add(machine string) (long bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.now = r.now.with(machine)
	return r.now.long()
}

// reset ends the streak, after something else has shown that the API takes calls.
func (r *ambiguousRun) reset() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.now = nil
}
