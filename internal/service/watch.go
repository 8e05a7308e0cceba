package service

import (
	"context"
	"fmt"
	"sync"
	"time"

	"example.com/unrestrict-worker/internal/broker"
	"example.com/unrestrict-worker/internal/health"
)

// watch detects that requests wait, or that accepted actions are not looked at, for longer than they should and without a known
// cause: a case that nobody thought of must not be silent. It judges what it is given, and reads nothing itself.
type watch struct {
	after time.Duration // what takes longer stands still

	mu        sync.Mutex
	delivered uint64
	moved     time.Time // when requests were last delivered, none waited, or something was known to hold them up
	still     int       // how many requests stand still; 0: none
}

// stillAfter is longer than a handler holds its slot in any known case: 60 s for calls that come free one by one, and a look-up
// and a call with the given time-out.
func stillAfter(timeout time.Duration) time.Duration { return 2*time.Minute + 2*timeout }

// requests takes how many requests wait that were never delivered, how many deliveries there have been, and whether a known
// condition holds requests up.
func (w *watch) requests(now time.Time, waiting int, delivered uint64, excused bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.moved.IsZero() || waiting == 0 || excused || delivered != w.delivered {
		w.moved, w.delivered = now, delivered
	}
	w.still = 0
	if now.Sub(w.moved) >= w.after {
		w.still = waiting
	}
}

// conditions returns what stands still and none of the known conditions explains.
func (w *watch) conditions(known []health.Condition, open int, looked time.Time, overdue time.Duration) (all []health.Condition) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.still > 0 && len(health.HoldingUp(known, false)) == 0 {
		c := health.New(health.StandingStill, fmt.Sprintf("%d requests wait, and none has been taken for too long, for no known reason", w.still))
		c.Since = w.moved.UTC()
		all = append(all, c)
	}
	if overdue >= w.after && len(health.HoldingUp(known, true)) == 0 {
		c := health.New(health.NotFollowing, fmt.Sprintf("%d actions are followed, and none has been looked up for too long, for no known reason", open))
		c.Since = looked.UTC()
		all = append(all, c)
	}
	return all
}

const watchEvery = 5 * time.Second

// watchQueue feeds the watches until ctx ends. While the broker does not answer they get nothing: that is a condition of its own.
func (s *Service) watchQueue(ctx context.Context, p *parts) error {
	for broker.Tick(ctx, watchEvery) == nil {
		if d, looked := s.Broker.Deliveries(); looked {
			known, _ := s.known()
			p.watch.requests(time.Now(), d.Waiting+p.Consumer.Waiting(), d.Delivered, len(health.HoldingUp(known, false)) > 0)
			if others, all := p.replicas.Outstanding(); all {
				others[""] = p.outstanding()
				p.out.observe(time.Now(), consumerState{Out: d.Out, Asked: d.Asked, Floor: d.Floor}, others)
			}
		}
	}
	return nil
}
