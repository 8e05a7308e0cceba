package rates

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"example.com/unrestrict-worker/internal/ledger"
)

const closedKey = "closed"

// closure is the value of the key closedKey. It ends For after the broker has stored it, by the broker's clock: the only one
// that all replicas share.
type closure struct {
	Until  time.Time `json:"until"`            // the same end, by the writer's estimate of the broker's clock, for people
	For    string    `json:"for"`              // a Go duration
	Lifted bool      `json:"lifted,omitempty"` // an operator has ended all closures before this one; For is 0
}

// errClosureUnread means that a closure's end can't be decoded, perhaps because a newer version wrote it.
var errClosureUnread = errors.New("not understood")

func closureEnd(r ledger.Record) (end time.Time, lifted bool, err error) {
	var c closure
	if err := json.Unmarshal(r.Value, &c); err != nil {
		return time.Time{}, false, fmt.Errorf("the key %s: %w: %w", closedKey, errClosureUnread, err)
	}
	d, err := time.ParseDuration(c.For)
	if err != nil {
		return time.Time{}, false, fmt.Errorf("the key %s: %w: %w", closedKey, errClosureUnread, err)
	}
	return r.Written.Add(d), c.Lifted, nil
}

// Close implements [budget.Closing].
func (s *Store) Close(ctx context.Context, d time.Duration) error {
	until := time.Now().Add(d)
	s.extend(until)
	err := s.writeClosed(ctx, until)
	if err != nil { // Run retries
		s.mu.Lock()
		defer s.mu.Unlock()
		if until.After(s.pending) {
			s.pending = until
		}
	}
	return err
}

// Closed implements [budget.Closing].
func (s *Store) Closed() (since, until time.Time, known bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.since, s.until, s.failed == nil
}

// writeClosed writes the closure, unless the stored one ends later.
func (s *Store) writeClosed(ctx context.Context, until time.Time) error {
	ctx, cancel := context.WithTimeout(ctx, 5*timeout)
	defer cancel()
	for range 10 { // each lost race has extended the closure
		info, err := s.state.Info(ctx)
		if err != nil {
			return err
		}
		d := time.Until(until)
		if d <= 0 {
			return nil
		}
		last, err := s.state.Load(ctx, closedKey)
		if err != nil {
			return fmt.Errorf("read the closure: %w", err)
		}
		if last.Value != nil {
			end, _, err := closureEnd(last)
			if err != nil {
				return err // the stored closure may end later
			}
			if !info.TimeStamp.Add(d).After(end) {
				return nil
			}
		}
		value, err := json.Marshal(closure{Until: info.TimeStamp.Add(d).UTC(), For: d.String()})
		if err != nil {
			return err
		}
		if _, err = s.state.Save(ctx, ledger.Write{Key: closedKey, Value: value, Revision: last.Revision, TTL: d}); !errors.Is(err, ledger.ErrConflict) {
			return err
		}
	}
	return errors.New("write the closure: too many others do")
}

// lift ends every present closure, whatever the key's value. A closure that begins later holds. Replicas learn of the lift by the
// key, which lasts at least as long as the longest closure that one of them may know, so a replica that is cut off for a while
// learns of it too.
func (s *Store) lift(ctx context.Context, longest time.Duration) error {
	ctx, cancel := context.WithTimeout(ctx, 5*timeout)
	defer cancel()
	for range 10 {
		info, err := s.state.Info(ctx)
		if err != nil {
			return err
		}
		last, err := s.state.Load(ctx, closedKey)
		if err != nil {
			return fmt.Errorf("read the closure: %w", err)
		}
		value, err := json.Marshal(closure{Until: info.TimeStamp.UTC(), For: "0s", Lifted: true})
		if err != nil {
			return err
		}
		if _, err = s.state.Save(ctx, ledger.Write{Key: closedKey, Value: value, Revision: last.Revision, TTL: max(longest, time.Hour)}); !errors.Is(err, ledger.ErrConflict) {
			return err
		}
	}
	return errors.New("lift the closure: too many others write it")
}

// retryClosure publishes a closure that could not be written when it began. While the key has a closure that can't be decoded,
// this one stays pending.
func (s *Store) retryClosure(ctx context.Context) error {
	s.mu.Lock()
	pending := s.pending
	s.mu.Unlock()
	if pending.IsZero() {
		return nil
	}
	if err := s.writeClosed(ctx, pending); errors.Is(err, errClosureUnread) {
		return nil
	} else if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.pending.After(pending) {
		s.pending = time.Time{}
	}
	return nil
}

// readClosed reads the closure. It covers a watch whose consumer was lost with one server of a cluster: the client notices only
// after ten seconds that updates are missing.
func (s *Store) readClosed(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	r, err := s.state.Load(ctx, closedKey)
	if err == nil {
		s.learnClosed(ctx, r)
	}
	return err
}

// ClosureErr is why it is not known whether and until when calls are forbidden; nil: it is known.
func (s *Store) ClosureErr() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.unread
}

func (s *Store) setUnread(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.unread = err
}

// learnClosed adopts a closure that another replica, or an earlier process, has written. How much of it has passed is the
// difference between two readings of the broker's clock. The closure's end is not its key's expiry, because that clock may have
// jumped.
func (s *Store) learnClosed(ctx context.Context, r ledger.Record) {
	if r.Value == nil {
		s.setUnread(nil)
		return
	}
	end, lifted, err := closureEnd(r)
	s.setUnread(err)
	switch {
	case err != nil: // closed until the next reread, and so for as long as the key has this value
		s.extend(time.Now().Add(2 * reread))
		return
	case lifted:
		s.learnLifted(r.Revision)
		return
	}
	now := r.Written // if the clock can't be read: at worst closed for too long
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	if info, err := s.state.Info(ctx); err == nil && info.TimeStamp.After(now) {
		now = info.TimeStamp
	}
	s.extend(time.Now().Add(end.Sub(now)))
}

// learnLifted ends the present closure, only once for each lift, which its revision identifies: the key still has the value of
// that lift while a later closure is not written yet.
func (s *Store) learnLifted(revision uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if revision != s.lifted {
		s.lifted, s.until, s.pending = revision, time.Time{}, time.Time{}
	}
}

func (s *Store) extend(until time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if now := time.Now(); until.After(now) && until.After(s.until) {
		s.since, s.until = now, until
	}
}
