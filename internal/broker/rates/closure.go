package rates

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/nats-io/nats.go/jetstream"
)

const closedKey = "closed"

// closure is the value of the key closedKey. The closure ends For after the broker stored it:
// the only clock that all replicas share.
type closure struct {
	Until time.Time `json:"until"` // the same by the writer's estimate of the broker's clock, to be read by people
	For   string    `json:"for"`   // a Go duration
}

// errClosureUnread is a closure whose end is not understood, perhaps because a newer version wrote it.
var errClosureUnread = errors.New("not understood")

func closureEnd(entry jetstream.KeyValueEntry) (time.Time, error) {
	var c closure
	if err := json.Unmarshal(entry.Value(), &c); err != nil {
		return time.Time{}, fmt.Errorf("the key %s: %w: %w", closedKey, errClosureUnread, err)
	}
	d, err := time.ParseDuration(c.For)
	if err != nil {
		return time.Time{}, fmt.Errorf("the key %s: %w: %w", closedKey, errClosureUnread, err)
	}
	return entry.Created().Add(d), nil
}

// Close implements [budget.Closing].
func (s *Store) Close(ctx context.Context, d time.Duration) error {
	until := time.Now().Add(d)
	s.extend(until)
	err := s.writeClosed(ctx, until)
	if err != nil { // Run will try again
		s.mu.Lock()
		defer s.mu.Unlock()
		if until.After(s.owed) {
			s.owed = until
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

// writeClosed replaces the key by an end that is later. A lost reply is harmless: the write that
// took place is found and is not earlier.
func (s *Store) writeClosed(ctx context.Context, until time.Time) error {
	for range 10 { // each lost race has made the closure longer
		now, err := s.brokerTime(ctx)
		if err != nil {
			return err
		}
		d := time.Until(until)
		if d <= 0 {
			return nil
		}
		var revision uint64
		last, err := s.state.Get(ctx, closedKey)
		switch {
		case errors.Is(err, jetstream.ErrKeyNotFound):
		case err != nil:
			return fmt.Errorf("read the closure: %w", err)
		default:
			revision = last.Revision()
			end, err := closureEnd(last)
			if err != nil {
				return err // it may end later
			}
			if !now.Add(d).After(end) {
				return nil
			}
		}
		value, err := json.Marshal(closure{Until: now.Add(d).UTC(), For: d.String()})
		if err != nil {
			return err
		}
		if revision == 0 {
			_, err = s.state.Create(ctx, closedKey, value, jetstream.KeyTTL(lifetime(d)))
		} else {
			err = s.put(ctx, closedKey, value, d, jetstream.WithExpectLastSequencePerSubject(revision))
		}
		if err == nil || !isConflict(err) {
			return err
		}
	}
	return errors.New("write the closure: too many others do")
}

// settleDebt tells the others of a closure that could not be written when it began. While there is one that is not
// understood it goes on being owed.
func (s *Store) settleDebt(ctx context.Context) error {
	s.mu.Lock()
	owed := s.owed
	s.mu.Unlock()
	if owed.IsZero() {
		return nil
	}
	if err := s.writeClosed(ctx, owed); errors.Is(err, errClosureUnread) {
		return nil
	} else if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.owed.After(owed) {
		s.owed = time.Time{}
	}
	return nil
}

// readClosed is for a watch whose consumer went down with one server of a cluster: the client
// notices the silence only after ten seconds.
func (s *Store) readClosed(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	entry, err := s.state.Get(ctx, closedKey)
	if errors.Is(err, jetstream.ErrKeyNotFound) {
		return nil
	} else if err != nil {
		return fmt.Errorf("read the closure: %w", err)
	}
	s.learnClosed(ctx, entry)
	return nil
}

// learnClosed takes over a closure that another replica, or an earlier process, has written. How
// much of it is over is a difference of two readings of the broker's clock.
func (s *Store) learnClosed(ctx context.Context, entry jetstream.KeyValueEntry) {
	end, err := closureEnd(entry)
	if err != nil { // closed until it is read again, and so as long as it is there
		s.extend(time.Now().Add(2 * reread))
		return
	}
	now, err := s.brokerTime(ctx)
	if err != nil || now.Before(entry.Created()) {
		now = entry.Created() // at worst closed for too long
	}
	s.extend(time.Now().Add(end.Sub(now)))
}

func (s *Store) extend(until time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if now := time.Now(); until.After(now) && until.After(s.until) {
		s.since, s.until = now, until
	}
}

// brokerTime is the broker's clock at some instant of this call.
func (s *Store) brokerTime(ctx context.Context) (time.Time, error) {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	info, err := s.bucket.Info(ctx)
	if err != nil {
		return time.Time{}, fmt.Errorf("ask for the broker's time: %w", err)
	}
	return info.TimeStamp, nil
}

// isConflict tells whether a compare-and-swap was lost: the code differs by the number of replicas.
func isConflict(err error) bool {
	var api *jetstream.APIError
	return errors.Is(err, jetstream.ErrKeyExists) || errors.As(err, &api) &&
		(api.ErrorCode == jetstream.JSErrCodeStreamWrongLastSequence || api.ErrorCode == jetstream.JSErrCodeStreamWrongLastSequenceConstant)
}
