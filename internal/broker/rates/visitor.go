package rates

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"example.com/unrestrict-worker/internal/budget"
)

// Visitor is the shared call budget for a command that makes a call now and then and is not a replica. It takes calls from
// the workers' windows with the limits that they have set. It creates and alters no streams, and reports no limits of its own.
// The zero value is a budget without limits.
type Visitor struct {
	store   *Store
	windows []string // those whose streams exist
}

// Visit looks up the windows' streams. A window whose stream no worker has created has no limit.
func Visit(ctx context.Context, js jetstream.JetStream, state State, windows []budget.Window) (*Visitor, error) {
	s := &Store{js: js, state: state}
	if _, err := state.Info(ctx); err != nil {
		return nil, err
	}
	v := &Visitor{store: s}
	for _, w := range windows {
		_, err := s.stream(ctx, w.Name)
		switch {
		case err == nil:
			v.windows = append(v.windows, w.Name)
		case !errors.Is(err, jetstream.ErrStreamNotFound):
			return nil, err
		}
	}
	return v, nil
}

// Take takes one call of every window, without waiting. If there is none, it returns a *budget.WaitError.
func (v *Visitor) Take(ctx context.Context, _ string) (time.Time, error) {
	granted := time.Now()
	if v.store == nil {
		return granted, nil
	}
	if d, err := v.ClosedFor(ctx); err != nil || d > 0 {
		if err != nil {
			return time.Time{}, err
		}
		return time.Time{}, &budget.WaitError{For: d, Closed: true}
	}
	for _, window := range v.windows {
		switch mark, err := v.store.state.Load(ctx, MarkKey(window)); {
		case err != nil:
			return time.Time{}, err
		case mark.Value != nil: // it is not known how many calls count
			return time.Time{}, &budget.WaitError{For: time.Minute}
		}
		free, err := v.store.publishGrant(ctx, window, nil)
		if err != nil {
			return time.Time{}, fmt.Errorf("take a call of the %s window: %w", window, err)
		}
		if !free {
			return time.Time{}, &budget.WaitError{For: time.Second}
		}
	}
	return granted, nil
}

// Fresh reports whether a call granted at that time may still start.
func (v *Visitor) Fresh(granted time.Time) bool {
	return budget.InTime(granted)
}

// Close closes the budget for d, for all workers too, because the API throttles.
func (v *Visitor) Close(ctx context.Context, d time.Duration) error {
	if v.store == nil {
		return nil
	}
	return v.store.writeClosed(ctx, time.Now().Add(d))
}

// Lift ends every closure before its time, and returns how much longer it would have lasted; 0: there was no closure, or no
// state bucket.
func (v *Visitor) Lift(ctx context.Context) (rest time.Duration, err error) {
	if rest, err = v.ClosedFor(ctx); err != nil || rest == 0 {
		return rest, err
	}
	return rest, v.store.lift(ctx, rest)
}

// ClosedFor is how much longer the budget is closed because the API throttles; 0: it is open.
func (v *Visitor) ClosedFor(ctx context.Context) (time.Duration, error) {
	if v.store == nil {
		return 0, nil
	}
	if err := v.store.readClosed(ctx); err != nil {
		return 0, err
	}
	_, until, _ := v.store.Closed()
	return max(time.Until(until), 0), nil
}
