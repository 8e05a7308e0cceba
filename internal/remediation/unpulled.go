package remediation

import (
	"time"

	"example.com/unrestrict-worker/internal/ledger"
)

// unpulled is a run whose end takes its message, in whosever hand: it awaits approval, or was decided as a dead letter that is not
// published.
type unpulled struct {
	source   string // its message
	awaits   bool
	due, try time.Time // when it should have ended, and is named next
}

// letterWithin is how soon whoever has a message in hand publishes the dead letter that it decided on, unless he has died.
const letterWithin = 30 * time.Second

// isAbandonedLetter reports whether a run was decided as a dead letter, and that is not known to be published.
func isAbandonedLetter(e *ledger.Entry) bool {
	return e.State == ledger.StateFinal && e.Dead && !e.Published
}

// Awaiting is how many runs await approval; 0 on all but one replica. One whose message is gone does so no more when its time
// is over.
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

// Unpulled names the messages (STREAM:SEQ) of runs that should have ended by now. Each is named again when as much time has
// passed as since it should have: its message may be gone.
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

// unpull records from an entry until when somebody must have its message in hand.
func (t *Tracker) unpull(key string, e *ledger.Entry) {
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
	u.try = u.due.Add(withdrawAgain) // for whoever has it in hand
	t.unpulled[key] = u
}
