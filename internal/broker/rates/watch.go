package rates

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"example.com/unrestrict-worker/internal/budget"
)

// follow keeps what the bucket says up to date until the connection
// changes: a watch that survived a reconnect may be minutes behind without knowing it.
func (s *Store) follow(ctx context.Context, status <-chan nats.Status) error {
	for range len(status) {
		<-status // of the connection that ended the last follow
	}
	if !s.js.Conn().IsConnected() {
		return nats.ErrConnectionReconnecting
	}
	ctx, cancel := context.WithCancel(ctx) // the watch lives as long as this
	defer cancel()
	started := time.AfterFunc(timeout, cancel)
	watch, err := s.state.WatchFiltered(ctx, []string{closedKey, unrecordedPrefix + ">"})
	started.Stop()
	if err != nil {
		return fmt.Errorf("watch the bucket %s: %w", s.state.Bucket(), err)
	}
	defer watch.Stop() //nolint:errcheck // gone already when the connection is
	tick := time.NewTicker(reread)
	defer tick.Stop()

	s.mu.Lock()
	clear(s.marks)
	s.mu.Unlock()
	for {
		select {
		case entry, ok := <-watch.Updates():
			switch {
			case !ok:
				return errors.New("the watch ended")
			case entry == nil:
				s.inTouch()
			default:
				s.learn(ctx, entry)
			}
		case <-tick.C:
			if err := errors.Join(s.settleDebt(ctx), s.readClosed(ctx)); err != nil {
				return err
			}
		case is := <-status:
			return fmt.Errorf("connection %v", is)
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// learn takes over one entry. What it can't read a newer version may have written.
func (s *Store) learn(ctx context.Context, entry jetstream.KeyValueEntry) {
	key, put := entry.Key(), entry.Operation() == jetstream.KeyValuePut
	if key == closedKey {
		if put { // the end of a closure is not its key's: the broker's clock may have jumped
			s.learnClosed(ctx, entry)
		}
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	window := strings.TrimPrefix(key, unrecordedPrefix)
	delete(s.marks, window)
	if put {
		s.marks[window] = entry.Created()
	}
}

func (s *Store) inTouch() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.failed != nil {
		s.failed = nil
		close(s.touch)
	}
}

func (s *Store) outOfTouch(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.failed == nil {
		s.touch = make(chan struct{})
	}
	s.failed = err
}

// waitTouch waits for a short interruption to end.
func (s *Store) waitTouch(ctx context.Context) error {
	s.mu.Lock()
	touch := s.touch
	s.mu.Unlock()
	select {
	case <-touch: // the common case costs no timer
		return nil
	default:
	}
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	select {
	case <-touch:
		return nil
	case <-ctx.Done():
		s.mu.Lock()
		defer s.mu.Unlock()
		return fmt.Errorf("%w: %w", budget.ErrOutOfTouch, errors.Join(s.failed, ctx.Err()))
	}
}
