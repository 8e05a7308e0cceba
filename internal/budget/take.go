package budget

import (
	"context"
	"fmt"
	"math"
	"time"

	"example.com/unrestrict-worker/internal/message"
)

// WaitError says that no call can be had for longer than Take holds a caller. Nothing was granted, and nothing taken but
// for a race that another replica won, see try.
type WaitError struct {
	For    time.Duration // until a call may be had
	Closed bool          // closed after a 429, not an exhausted window
}

// Error says why there is no call.
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
// reading: Fresh goes by it, which the caller asks right before it sends. use is "lookup", "follow" or a lane, which leaves
// its floor alone (floor.go). Look-ups go first, then the lanes as Turns decides, and within a lane the messages as
// they stand in the stream; other callers in their order.
//
// A wait within MaxHold is held here; for a longer one everybody gets a *WaitError at once. Any
// other error is the store's or ctx's: nothing was granted, and what was perhaps taken is spent.
func (b *Budget) Take(ctx context.Context, use string) (time.Time, error) {
	w := &waiter{use: use, sequence: message.SequenceInHand(ctx), entered: time.Now()}
	defer b.line.join(w)()
	for {
		wait, turn, changed, err := b.stand(w)
		switch {
		case err != nil: // the store failed a caller after we came: no need to time out again
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

// Expect records that a message of a lane is in hand and may ask for a call: those behind it in its lane let it go first, if
// it asks soon. gone is called when it is not in hand any more.
func (b *Budget) Expect(l message.Lane, sequence uint64) (gone func()) {
	return b.line.expect(l, sequence)
}

// overdue is the error of a caller whose turn does not come in time.
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

// Gather waits until n calls of a lane may be had at once, or as many as the windows ever allow at once, or, after d,
// until one may be had. If there is none by then the error is a *WaitError. It takes nothing. It is for a caller that pays
// a fixed price once for several calls, where calls become free one by one.
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

// free is how many calls of a lane may be had now as far as is known, and how many the windows let out at once at most.
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

// try takes a call if there is one, and else returns a *WaitError, however short the wait. Every window is looked at
// before any is spent: a minute's grant is of no use without the hour's.
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
	// The minute first: replicas wait for it together and race for it, and who loses it has taken nothing of the hour.
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
	b.line.went(use)
	for _, w := range b.windows {
		w.record(granted)
		b.measure(w.Name, w.seen)
	}
}

// look asks the store for every window.
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

// wait is how long until a call of a use may be had as far as is known here, and whether that is for a
// closure. Late: a window should be open by now, and the store has not said so.
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
