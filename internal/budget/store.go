package budget

import (
	"context"
	"time"
)

// Window is one sliding window: no more than Limit calls in any span of Per.
type Window struct {
	Name  string        // "minute" or "hour"
	Per   time.Duration // what the API counts over
	Limit int           // 0: no limit
}

// StartLimit is how long after its grant a call may start, counted from right before the store was asked for it. The API
// can count a call that much later than the store does, so each grant stays in its window for Lasts.
const StartLimit = 2 * time.Second

// Lasts is how long a grant counts in the window.
func (w Window) Lasts() time.Duration { return w.Per + StartLimit }

// Limits is the two windows of the API, the shortest first.
// Both limits hold for all calls of one app registration in one tenant ([doc] api-rate-limits).
func Limits(perMinute, perHour int) []Window {
	return []Window{
		{Name: "minute", Per: time.Minute, Limit: perMinute},
		{Name: "hour", Per: time.Hour, Limit: perHour},
	}
}

// State is a window as the Store has it.
type State struct {
	Limit int // the smallest of all live replicas; 0: no limit, and nothing else here means anything
	Left  int // grants to be had now
	// NextIn is how long until a grant ages out and Left can grow: at least 0, at most
	// the window's Lasts. Past it while Left is still 0 the store is late, not wrong: ask again.
	NextIn time.Duration
	Others int    // live processes beside this one that take from it, as far as is known
	Last   uint64 // names the last grant that was given
}

// Store is the side of a budget that all replicas share. It must outlive every replica: a restart
// of all of them, and of the store itself, forgets no grant and no closure.
// All methods may be called by many goroutines and many replicas at once.
type Store interface {
	Windows
	Closing
}

// Windows grants calls.
type Windows interface {
	// Look returns a window's state and takes nothing. Its answer decides nothing: by the time it returns another replica may
	// have taken what was left.
	Look(ctx context.Context, window string) (State, error)

	// Take takes one grant, or returns false if there is none. Of all replicas together no more
	// than the limit succeed within any span of the window's Lasts, by one clock that is not the
	// callers'. It must not retry. After an error nobody knows whether the grant was taken: it
	// counts as spent. A grant can't be returned. In a window without a limit it returns true.
	// With last there is none either once another grant than State.Last was given: what Look saw still holds then.
	Take(ctx context.Context, window string, last *uint64) (bool, error)
}

// Closing forbids calls for a while, whatever the windows have left.
type Closing interface {
	// Close forbids the calls of all replicas for d from now; a closure that ends later already
	// stays as it is, and there is no longest d. It holds in this process from the moment it is
	// called, also when it returns an error: then the others do not know of it yet, and the
	// store goes on telling them until it is known or over.
	Close(ctx context.Context, d time.Duration) error

	// Closed returns the last closure known, over or not: the instant this process learned of it
	// and the instant it ends, both on this process's monotonic clock. It never waits. Not known:
	// the store is out of touch, and another replica may have closed meanwhile.
	Closed() (since, until time.Time, known bool)
}
