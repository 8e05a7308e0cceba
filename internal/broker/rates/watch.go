package rates

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"golang.org/x/sync/errgroup"

	"example.com/unrestrict-worker/internal/broker/stream"
	"example.com/unrestrict-worker/internal/budget"
	"example.com/unrestrict-worker/internal/ledger"
)

// follow keeps the closure and the marks up to date with the bucket, until the connection changes: a watch that survives a
// reconnect may be minutes behind without an error.
func (s *Store) follow(ctx context.Context, status <-chan nats.Status) error {
	for range len(status) {
		<-status // changes that ended the last follow
	}
	if !s.js.Conn().IsConnected() {
		return nats.ErrConnectionReconnecting
	}
	info, err := s.state.Info(ctx)
	if err != nil {
		return err
	}
	if err := stream.Same(info, &s.stateCreated); err != nil {
		return err
	}
	s.mu.Lock()
	clear(s.marks)
	s.mu.Unlock()
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error {
		return s.state.Watch(ctx, []string{closedKey, unrecordedPrefix + ">"}, s.inTouch, func(key string, r ledger.Record) { s.learn(ctx, key, r) })
	})
	g.Go(func() error {
		for {
			select {
			case <-time.After(stream.UntilTick(reread)):
				if err := errors.Join(s.retryClosure(ctx), s.readClosed(ctx)); err != nil {
					return err
				}
			case is := <-status:
				return fmt.Errorf("connection %v", is)
			case <-ctx.Done():
				return ctx.Err()
			}
		}
	})
	return g.Wait()
}

// learn adopts one value of the bucket. A value that it can't decode may be from a newer version.
func (s *Store) learn(ctx context.Context, key string, r ledger.Record) {
	if key == closedKey {
		s.learnClosed(ctx, r)
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	window := strings.TrimPrefix(key, unrecordedPrefix)
	if delete(s.marks, window); r.Value != nil {
		s.marks[window] = r.Written
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
		s.touch, s.lost = make(chan struct{}), time.Now()
	}
	s.failed = err
}

// OutOfTouch is since when the closure and the marks are not known, and why; nil: they are known.
func (s *Store) OutOfTouch() (since time.Time, why error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.lost, s.failed
}

// waitTouch waits until the watch is up to date, through a short interruption only.
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
