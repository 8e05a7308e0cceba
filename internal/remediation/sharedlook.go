package remediation

import (
	"context"
	"strings"
	"sync"
	"time"

	"example.com/unrestrict-worker/internal/defender"
	"example.com/unrestrict-worker/internal/ledger"
)

// sharedLook is the look at the API that the guarded requests of one process share: all actions since some time that
// restrict or isolate a machine. The zero value is ready.
type sharedLook struct {
	once sync.Once
	turn chan struct{} // held by the one that looks

	mu            sync.Mutex
	waiting       map[string]time.Time // who waits for a look, by entry key, and when the request was published
	at            time.Time            // right before the last look; zero: none yet
	since         time.Time            // in the API's time: it shows what was created from then on
	actions       map[string][]defender.MachineAction
	call          ledger.Call
	disabledUntil time.Time // until then such a look shows nothing
}

// acquire waits for the turn to look. Whoever has it finds in oldest what all that wait need.
func (l *sharedLook) acquire(ctx context.Context, key string, published time.Time) (leave func(), err error) {
	l.once.Do(func() { l.turn, l.waiting = make(chan struct{}, 1), map[string]time.Time{} })
	l.mu.Lock()
	l.waiting[key] = published
	l.mu.Unlock()
	gone := func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		delete(l.waiting, key)
	}
	select {
	case l.turn <- struct{}{}:
		return func() { gone(); <-l.turn }, nil
	case <-ctx.Done():
		gone()
		return nil, context.Cause(ctx)
	}
}

// oldest is when the oldest of those that wait was published.
func (l *sharedLook) oldest() (published time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, t := range l.waiting {
		if published.IsZero() || t.Before(published) {
			published = t
		}
	}
	return published
}

func (l *sharedLook) record(at, since time.Time, actions []defender.MachineAction, call ledger.Call) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.at, l.since, l.call, l.actions = at, since, call, map[string][]defender.MachineAction{}
	for _, a := range actions {
		a.Raw = nil
		machine := strings.ToLower(a.MachineID)
		l.actions[machine] = append(l.actions[machine], a)
	}
}

// covers reports whether the last look is no older than good and shows everything since then.
func (l *sharedLook) covers(since time.Time, good time.Duration) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return !l.at.IsZero() && time.Since(l.at) <= good && !l.since.After(since)
}

// actionsOf are a machine's actions in the last look, and the call that showed them.
func (l *sharedLook) actionsOf(machine string) ([]defender.MachineAction, ledger.Call) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.actions[strings.ToLower(machine)], l.call
}

// disable says that a look at all machines shows nothing for now; each request has to look at its own.
func (l *sharedLook) disable() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.disabledUntil = time.Now().Add(gatherFor)
}

func (l *sharedLook) disabled() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return time.Now().Before(l.disabledUntil)
}
