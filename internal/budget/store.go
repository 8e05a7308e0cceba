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

// StartLimit is how long after its grant a call may start, counted from right before the store was asked for it. The API may
// count a call up to that much later than the store does, so each grant stays in its window for Span.
const StartLimit = 2 * time.Second

// Span is how long a grant counts in the window.
func (w Window) Span() time.Duration { return w.Per + StartLimit }

// Limits returns the two windows of the API, the shortest first. Both limits hold for all calls of one app registration in
// one tenant ([doc] api-rate-limits).
func Limits(perMinute, perHour int) []Window {
	return []Window{
		{Name: "minute", Per: time.Minute, Limit: perMinute},
		{Name: "hour", Per: time.Hour, Limit: perHour},
	}
}

// State is a window as the Store reports it.
type State struct {
	Limit int // the smallest of all live replicas; 0: no limit, and the other fields mean nothing
	Left  int // grants available now
	// NextIn is how long until a grant ages out and Left can grow: at least 0, at most the window's Span. If Left is still
	// 0 after that, the store is only late: ask again.
	NextIn time.Duration
	Others int    // other live processes that take from it, as far as is known
	Last   uint64 // identifies the last grant
}

// Store is the part of a budget that all replicas share. It must outlive every replica: a restart of all of them, and of the
// store itself, loses no grant and no closure. It is safe for concurrent use by many replicas.
type Store interface {
	Windows
	Closing
}

// Windows grants calls.
type Windows interface {
	// Look returns a window's state and takes nothing. Nothing may be decided on it alone: when it returns, another replica
	// may have taken what was left.
	Look(ctx context.Context, window string) (State, error)

	// Take takes one grant, or returns false if none is available. All replicas together get no more grants than the limit
	// within any span of the window's Span, by one clock that is not the callers'. Take must not retry. After an error it
	// is unknown whether the grant was taken, so it counts as spent. A grant can't be returned. In a window without a limit
	// Take returns true. With last, Take also returns false once another grant than State.Last was given: so what Look saw
	// still holds if it returns true.
	Take(ctx context.Context, window string, last *uint64) (bool, error)
}

// Closing forbids calls for a while, whatever the windows have left.
type Closing interface {
	// Close forbids the calls of all replicas for d from now. A closure that ends later stays as it is, and d has no upper
	// limit. In this process the closure holds from the moment of the call, even if Close returns an error: then the other
	// replicas don't know of it yet, and the store keeps trying to write it until that succeeds or the closure has ended.
	Close(ctx context.Context, d time.Duration) error

	// Closed returns the last known closure, ended or not: the instant at which this process learned of it and the instant
	// of its end, both on this process's monotonic clock. It never blocks. If not known, the store is out of sync, and
	// another replica may have closed the budget meanwhile.
	Closed() (since, until time.Time, known bool)
}
