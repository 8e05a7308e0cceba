package budget

import (
	"context"
	"fmt"
	"math"
	"time"

	"example.com/unrestrict-worker/internal/message"
)

// WaitError is returned when no call is available for longer than Take blocks. Nothing was granted. Nothing was taken
// either, except after a race that another replica won, see try.
type WaitError struct {
	For    time.Duration // until a call may be available
	Closed bool          // the budget is closed after a 429; false: a window is exhausted
}

// Error names the reason.
func (e *WaitError) Error() string {
	why := "the rate windows are exhausted"
	if e.Closed {
		why = "the API throttles"
	}
	return fmt.Sprintf("no call for %v: %s", e.For.Round(time.Millisecond), why)
}

// Wait is how long until a call may be available.
func (e *WaitError) Wait() time.Duration { return e.For }

// Take takes one call from every window and returns the instant of the grant, with a monotonic reading. The caller passes it
// to Fresh right before it sends. use is "lookup", "follow" or a lane, which leaves its floor untouched (floor.go). Look-ups
// go first, then the lanes as Turns decides. Within a lane messages go in the order of the stream, other callers in the
// order of arrival.
//
// Take blocks for at most MaxHold; for a longer wait every caller gets a *WaitError at once. Any other error is the store's
// or ctx's: nothing was granted, and what may have been taken is spent.
func (b *Budget) Take(ctx context.Context, use string) (time.Time, error) {
	w := &waiter{use: use, sequence: message.DeliverySequence(ctx), entered: time.Now()}
	defer b.line.join(w)()
	for {
		wait, turn, changed, err := b.checkTurn(w)
		switch {
		case err != nil: // the store failed for another caller since we came: don't wait for a second timeout
			return time.Time{}, err
		case turn:
			granted, err := b.try(ctx, use)
			blocked, is := err.(*WaitError) //nolint:errorlint // made by try, never wrapped
			b.tried(ctx, w, err)
			if !is {
				return granted, err
			}
			wait = blocked.For
		}
		if left := b.MaxHold - time.Since(w.entered); w.tried && wait > left || left <= 0 {
			return time.Time{}, b.overdue(wait)
		}
		if turn {
			continue
		}
		if err := await(ctx, changed, min(max(wait, pollInterval), b.MaxHold-time.Since(w.entered))); err != nil {
			return time.Time{}, err
		}
	}
}

// Expect records that a message of a lane is in hand and may ask for a call. The messages behind it in its lane let it go
// first, if it asks soon. done must be called when it is no longer in hand.
func (b *Budget) Expect(l message.Lane, sequence uint64) (done func()) {
	return b.line.expect(l, sequence)
}

// overdue is the error for a caller whose turn did not come in time.
func (b *Budget) overdue(wait time.Duration) error {
	_, until, _ := b.store.Closed()
	return &WaitError{For: max(wait, pollInterval), Closed: until.After(time.Now())}
}

func await(ctx context.Context, changed <-chan struct{}, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-changed:
	case <-timer.C:
	case <-ctx.Done():
		return ctx.Err()
	}
	return nil
}

// Gather waits until n calls of a lane are available at once, or as many as the windows ever allow at once. After d it waits
// no longer if one is available; if none is, the error is a *WaitError. It takes nothing. It is for a caller that pays a
// fixed price once for several calls, where calls come free one by one.
func (b *Budget) Gather(ctx context.Context, l message.Lane, n int, d time.Duration) error {
	for end := time.Now().Add(d); ; {
		if err := b.look(ctx); err != nil {
			return err
		}
		wait, closed, _ := b.wait(string(l))
		free, most := b.free(l)
		overdue := !time.Now().Before(end)
		switch {
		case wait > 0 && (closed || overdue):
			return &WaitError{For: wait, Closed: closed}
		case wait <= 0 && (overdue || free >= min(n, most)):
			return nil
		}
		select {
		case <-time.After(time.Second):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// free is how many calls of a lane are available now as far as is known, and how many the windows allow at once at most.
func (b *Budget) free(l message.Lane) (now, most int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	now, most = math.MaxInt, math.MaxInt
	for _, w := range b.windows {
		if w.seen.Limit > 0 {
			limit := w.seen.Limit - b.floor(w, string(l))
			now, most = min(now, w.seen.Left-(w.seen.Limit-limit), limit-len(w.grants)), min(most, limit)
		}
	}
	return now, most
}

// try takes a call if one is available, and otherwise returns a *WaitError, however short the wait. It looks at every window
// before it takes from any, because a minute's grant is useless without the hour's.
func (b *Budget) try(ctx context.Context, use string) (time.Time, error) {
	if err := b.look(ctx); err != nil {
		return time.Time{}, err
	}
	if _, _, known := b.store.Closed(); !known {
		return time.Time{}, ErrOutOfTouch
	}
	wait, closed, late := b.wait(use)
	if wait == 0 && late {
		wait = pollInterval
	}
	if wait > 0 {
		return time.Time{}, &WaitError{For: wait, Closed: closed}
	}
	granted := time.Now()
	// The minute first: replicas wait for it together and race for it. The loser has taken nothing of the hour then.
	for _, w := range b.windows {
		ok, err := b.store.Take(ctx, w.Name, b.unchanged(w, use))
		if err != nil {
			return time.Time{}, fmt.Errorf("take a call from the %s window: %w", w.Name, err)
		}
		if !ok {
			return time.Time{}, &WaitError{For: pollInterval}
		}
	}
	b.record(granted, use)
	return granted, nil
}

func (b *Budget) record(granted time.Time, use string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.line.took(use)
	for _, w := range b.windows {
		w.record(granted)
		b.measure(w.Name, w.seen)
	}
}

// look reads the state of every window from the store.
func (b *Budget) look(ctx context.Context) error {
	for _, w := range b.windows {
		state, err := b.store.Look(ctx, w.Name)
		if err != nil {
			return fmt.Errorf("look at the %s window: %w", w.Name, err)
		}
		b.mu.Lock()
		w.observe(state, time.Now())
		b.measure(w.Name, state)
		b.mu.Unlock()
	}
	return nil
}

// wait is how long until a use may have a call, as far as is known here. closed: because of a closure. late: a window should
// have a free call by now, but the store has not reported it.
func (b *Budget) wait(use string) (d time.Duration, closed, late bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	now := time.Now()
	for _, w := range b.windows {
		wait, l := w.wait(now, b.floor(w, use))
		d, late = max(d, wait), late || l
	}
	if _, until, _ := b.store.Closed(); until.Sub(now) > d {
		return until.Sub(now), true, false
	}
	return d, false, late
}
