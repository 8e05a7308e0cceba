// Package budget is one call budget, a minute and an hour window, shared by all replicas: its grants and their freshness,
// waiting for them, and closing the budget after a 429.
package budget

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"

	"example.com/unrestrict-worker/internal/message"
)

const (
	pollInterval = 30 * time.Millisecond // between two looks at a store that has not freed a grant in time (window.wait)
	refresh      = 5 * time.Second       // how stale the state behind OpensIn and the metric may become
	refreshStill = 30 * time.Second      // the same while calls are free and none is taken
)

// ErrOutOfTouch is returned while this process can't see whether another replica has closed the budget.
var ErrOutOfTouch = errors.New("the budget's store is out of touch")

// Budget grants the calls of one tenant. It is safe for concurrent use.
type Budget struct {
	// MaxHold is the longest that Take blocks; for a longer wait it returns a WaitError. To be set before the first Take.
	MaxHold time.Duration
	// UrgentReserve is the percentage of each window that normal leaves to urgent. To be set before the first Take.
	UrgentReserve int

	store    Store
	log      *zap.Logger
	left     *prometheus.GaugeVec
	limit    *prometheus.GaugeVec
	reserved atomic.Bool
	line     *line

	mu      sync.Mutex // guards all below; never held during a call to the store
	windows []*window  // shortest first
}

// New returns a budget over windows, the shortest first. reg may be nil.
func New(store Store, windows []Window, log *zap.Logger, reg prometheus.Registerer) *Budget {
	b := &Budget{
		MaxHold: 5 * time.Second, store: store, log: log, line: newLine(),
		left: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "unrestrict_budget_remaining",
			Help: "Calls that the API's window still has for all replicas together; +Inf without a limit.",
		}, []string{"window"}),
		limit: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "unrestrict_budget_limit", Help: "Calls that the window grants in all, the smallest of what the replicas have set; +Inf without a limit.",
		}, []string{"window"}),
	}
	for _, w := range windows {
		b.windows = append(b.windows, newWindow(w))
		b.measure(w.Name, State{Limit: w.Limit, Left: w.Limit})
	}
	if reg != nil {
		reg.MustRegister(b.left, b.limit)
	}
	return b
}

// SetReserve sets whether the lanes must leave the last 2 % of each window (at least one call, of the hour one for each
// replica, but never all) to look-ups. It is on while there is something to look up, or will be. It affects this process
// alone.
func (b *Budget) SetReserve(on bool) { b.reserved.Store(on) }

// Close forbids the calls of all replicas for d from now, unless they are closed for longer already. In this process the
// closure holds even if Close returns an error.
func (b *Budget) Close(ctx context.Context, d time.Duration) error {
	if d <= 0 {
		return nil
	}
	b.log.Warn("no calls for a while: the API throttles", zap.Duration("for", d))
	if err := b.store.Close(ctx, d); err != nil {
		return fmt.Errorf("close the call budget: %w", err)
	}
	return nil
}

// Fresh reports whether a call granted at that time may still start now: StartLimit has not passed, and the budget was not
// closed since.
func (b *Budget) Fresh(granted time.Time) bool {
	since, until, known := b.store.Closed()
	return known && !time.Now().Before(until) && !since.After(granted) && InTime(granted)
}

// InTime reports whether StartLimit has not passed yet since a grant. It uses the monotonic clock, or the wall clock if that
// shows more time, because the wall clock goes on while a virtual machine is frozen.
func InTime(granted time.Time) bool {
	now := time.Now()
	return max(now.Sub(granted), now.Round(0).Sub(granted.Round(0))) <= StartLimit
}

// OpensIn is for how long a lane can have no call, as far as this process knows without asking the store: 0, or until a
// closure after a 429 ends (closed) or a grant ages out of its window. Until then it makes no sense to start anything that
// needs a call.
func (b *Budget) OpensIn(l message.Lane) (in time.Duration, closed bool) {
	in, closed, _ = b.wait(string(l))
	return in, closed
}

// Throttled is the span in which no call is made because the API throttles; zero if no closure is known.
func (b *Budget) Throttled() (since, until time.Time) {
	since, until, _ = b.store.Closed()
	if !until.After(time.Now()) {
		return time.Time{}, time.Time{}
	}
	return since, until
}

// Reserves is how many calls of each window are reserved for look-ups now; nil: none.
func (b *Budget) Reserves() map[string]int {
	if !b.reserved.Load() {
		return nil
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	all := map[string]int{}
	for _, w := range b.windows {
		if w.seen.Limit > 0 {
			all[w.Name] = w.reserve()
		}
	}
	return all
}

// WindowStatus is a window as status pages show it. Without a limit both numbers are 0.
type WindowStatus struct {
	Window    string
	Limit     int
	Remaining int
	// FreesAt is when the next of the grants that count ages out, FullAt when the last one does; zero: none counts, or it is
	// unknown.
	FreesAt, FullAt time.Time
}

// Remaining asks the store how many calls each window has left.
func (b *Budget) Remaining(ctx context.Context) ([]WindowStatus, error) {
	if err := b.look(ctx); err != nil {
		return nil, err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	var all []WindowStatus
	for _, w := range b.windows {
		all = append(all, WindowStatus{Window: w.Name, Limit: w.seen.Limit, Remaining: max(0, w.seen.Left)})
	}
	return all, nil
}

// Run keeps the state behind OpensIn and the metric up to date until ctx ends, which is no error. Take works without it.
func (b *Budget) Run(ctx context.Context) error {
	for {
		before := b.states()
		if err := b.look(ctx); err != nil && ctx.Err() == nil {
			b.log.Debug("what remains of the call budget is not known", zap.Error(err))
		}
		every := refresh
		if in, _ := b.OpensIn(message.LaneBulk); in == 0 && slices.Equal(before, b.states()) {
			every = refreshStill
		}
		due := time.NewTimer(every)
		select {
		case <-ctx.Done():
			due.Stop()
			return nil
		case <-due.C:
		}
	}
}

// states are the calls left and the limit of each window, as last seen.
func (b *Budget) states() (all [][2]int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, w := range b.windows {
		all = append(all, [2]int{w.seen.Left, w.seen.Limit})
	}
	return all
}

func (b *Budget) measure(window string, s State) {
	left, limit := float64(max(0, s.Left)), float64(s.Limit)
	if s.Limit == 0 {
		left, limit = math.Inf(1), math.Inf(1)
	}
	b.left.WithLabelValues(window).Set(left)
	b.limit.WithLabelValues(window).Set(limit)
}
