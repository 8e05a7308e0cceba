package budget

import (
	"context"
	"fmt"
	"slices"
	"time"
)

// WaitError says that no call can be had for longer than Take holds a caller. Nothing was granted, and nothing taken but
// for a race that another replica won, see try.
type WaitError struct {
	For    time.Duration // until a call may be had
	Closed bool          // closed after a 429, not an exhausted window
}

func (e *WaitError) Error() string {
	why := "the rate windows are exhausted"
	if e.Closed {
		why = "the API throttles"
	}
	return fmt.Sprintf("no call for %v: %s", e.For.Round(time.Millisecond), why)
}

// Wait is how long until a call may be had.
func (e *WaitError) Wait() time.Duration { return e.For }

// Take takes one call from every window and returns the instant of the grant, with a monotonic
// reading: Fresh goes by it, which the caller asks right before it sends. Callers are served in
// their order; use is "unrestrict", which leaves the reserve alone, or "lookup" or "follow".
//
// A wait within MaxHold is held here; for a longer one everybody gets a *WaitError at once. Any
// other error is the store's or ctx's: nothing was granted, and what was perhaps taken is spent.
func (b *Budget) Take(ctx context.Context, use string) (time.Time, error) {
	entered := time.Now()
	hold := time.NewTimer(b.MaxHold)
	defer hold.Stop()
	select {
	case b.slot <- struct{}{}:
		defer func() { <-b.slot }()
	case <-hold.C:
		return time.Time{}, b.overdue(entered, use)
	case <-ctx.Done():
		return time.Time{}, ctx.Err()
	}
	if err := b.failedSince(entered); err != nil {
		return time.Time{}, err // the store failed the caller before us: no need to time out again
	}
	for {
		granted, err := b.try(ctx, use)
		wait, blocked := err.(*WaitError) //nolint:errorlint // made by try, never wrapped
		if !blocked {
			if err != nil && ctx.Err() == nil {
				b.failed(err)
			}
			return granted, err
		}
		if time.Since(entered)+wait.For > b.MaxHold {
			return time.Time{}, wait
		}
		select {
		case <-time.After(wait.For):
		case <-ctx.Done():
			return time.Time{}, ctx.Err()
		}
	}
}

// try takes a call if there is one, and else returns a *WaitError, however short the wait. Every window is looked at
// before any is spent: a minute's grant is of no use without the hour's.
func (b *Budget) try(ctx context.Context, use string) (time.Time, error) {
	if err := b.look(ctx); err != nil {
		return time.Time{}, err
	}
	if _, _, known := b.store.Closed(); !known {
		return time.Time{}, ErrOutOfTouch
	}
	wait, closed, late := b.wait(use == "unrestrict" && b.reserved.Load())
	if wait == 0 && late {
		wait = again
	}
	if wait > 0 {
		return time.Time{}, &WaitError{For: wait, Closed: closed}
	}
	began := time.Now()
	for _, w := range b.order() {
		ok, err := b.hold(ctx, w)
		if err != nil {
			return time.Time{}, fmt.Errorf("take a call from the %s window: %w", w.Name, err)
		}
		if !ok { // another replica was faster; what was taken before is kept while it can be of use
			return time.Time{}, &WaitError{For: again}
		}
	}
	b.pace = time.Since(began)
	return b.spend(began), nil
}

// order is the minute before the hour: it is the minute that replicas wait for together and race for, and taken last each
// call of it would cost the losers one of the hour's. But with a store that is slow the hour comes first, for its margin is
// larger: then the minute's grant has only its own way to the store behind it when the caller gets it, not the hour's too.
func (b *Budget) order() []*window {
	order := slices.Clone(b.windows)
	if b.pace > b.margin()/5 {
		slices.Reverse(order)
	}
	return order
}

// hold takes a call of a window, unless one is in hand from a try that failed in another window, and can still be used.
func (b *Budget) hold(ctx context.Context, w *window) (ok bool, err error) {
	if now := time.Now(); !w.held.IsZero() && age(w.held, now) < w.Margin-b.margin() {
		return true, nil
	}
	w.held = time.Now()
	if ok, err = b.store.Take(ctx, w.Name); !ok {
		w.held = time.Time{}
	}
	return ok, err
}

// spend makes one grant of the calls in hand. Its instant is that of the one with the smallest margin: the others are
// younger, or older by less than their margin is larger. For one that is not, which the store was slow to give, the
// instant is as much earlier.
func (b *Budget) spend(began time.Time) (granted time.Time) {
	margin := b.margin()
	b.mu.Lock()
	defer b.mu.Unlock()
	granted = began
	for _, w := range slices.Backward(b.windows) {
		if w.limited {
			granted = w.held
		}
	}
	shortest, late := granted, time.Duration(0)
	for _, w := range b.windows {
		if w.limited {
			late = max(late, age(w.held, shortest)-(w.Margin-margin))
		}
		w.took(w.held)
		w.held = time.Time{}
		b.measure(w.Name, w.seen)
	}
	return granted.Add(-late)
}

// age is by the monotonic clock, or by the wall clock if that is more: it goes on while a virtual machine is frozen.
func age(since, now time.Time) time.Duration {
	return max(now.Sub(since), now.Round(0).Sub(since.Round(0)))
}

// look asks the store for every window.
func (b *Budget) look(ctx context.Context) error {
	for _, w := range b.windows {
		state, err := b.store.Look(ctx, w.Name)
		if err != nil {
			return fmt.Errorf("look at the %s window: %w", w.Name, err)
		}
		b.mu.Lock()
		w.told(state, time.Now())
		b.measure(w.Name, state)
		b.mu.Unlock()
	}
	return nil
}

// wait is how long until a call may be had as far as is known here, and whether that is for a
// closure. Late: a window should be open by now, and the store has not said so.
func (b *Budget) wait(reserved bool) (d time.Duration, closed, late bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	now := time.Now()
	for _, w := range b.windows {
		wait, l := w.wait(now, reserved)
		d, late = max(d, wait), late || l
	}
	if _, until, _ := b.store.Closed(); until.Sub(now) > d {
		return until.Sub(now), true, false
	}
	return d, false, late
}

func (b *Budget) failed(err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.failure, b.failedAt = err, time.Now()
}

func (b *Budget) failedSince(entered time.Time) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.failedAt.After(entered) {
		return b.failure
	}
	return nil
}

// overdue is for a caller whose turn did not come in time.
func (b *Budget) overdue(entered time.Time, use string) error {
	if err := b.failedSince(entered); err != nil {
		return err
	}
	wait, closed, _ := b.wait(use == "unrestrict" && b.reserved.Load())
	return &WaitError{For: max(wait, again), Closed: closed}
}
