package remediation

import (
	"time"

	"example.com/unrestrict-worker/internal/ledger"
)

// unpulled is a run that only its message can end, whichever replica has it: it awaits approval, or was decided as a dead
// letter that is not published.
type unpulled struct {
	source   string // STREAM:SEQ of its message
	awaits   bool
	due, try time.Time // when the run should have ended, and when Unpulled returns it next
}

// letterWithin is how soon a live handler publishes the dead letter that it decided on.
const letterWithin = 30 * time.Second

// isAbandonedLetter reports whether a run was decided as a dead letter, and is not known to be published.
func isAbandonedLetter(e *ledger.Entry) bool {
	return e.State == ledger.StateFinal && e.Dead && !e.Published
}

// Awaiting is the number of runs that await approval; 0 on all but one replica. A run whose message is gone stops counting
// some time after its approval expired.
func (t *Tracker) Awaiting() (n int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, u := range t.unpulled {
		if u.awaits && time.Since(u.due) < 2*turnEvery {
			n++
		}
	}
	return n
}

// Unpulled returns the messages (STREAM:SEQ) of runs that should have ended by now. Each is returned again at growing
// intervals, because its message may be gone: after as much time as has passed since it should have ended.
func (t *Tracker) Unpulled() (all []string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	now := time.Now()
	for _, u := range t.unpulled {
		if now.After(u.try) {
			u.try = now.Add(max(now.Sub(u.due), withdrawAgain))
			all = append(all, u.source)
		}
	}
	return all
}

// updateUnpulled records from an entry when its message must be handled at the latest.
func (t *Tracker) updateUnpulled(key string, e *ledger.Entry) {
	delete(t.unpulled, key)
	u := &unpulled{source: e.Source, awaits: e.Awaits()}
	switch {
	case u.awaits:
		u.due = e.Approval.ExpiresAt
	case isAbandonedLetter(e):
		u.due = e.DecidedAt.Add(letterWithin)
	default:
		return
	}
	u.try = u.due.Add(withdrawAgain) // gives its present handler time
	t.unpulled[key] = u
}
