package consumer

import (
	"context"
	"sync"
	"time"

	"example.com/unrestrict-worker/internal/budget"
	"example.com/unrestrict-worker/internal/message"
)

const (
	// hangs is how long an urgent message waits for one of the slots of all lanes before it takes one of urgent's own: those in
	// hand hang, or wait for quota. Until then it waits, so that no more is called at once than there are slots.
	hangs = 250 * time.Millisecond
	// comesWithin is how long a lane that has more at the broker keeps its turn while its next message is on its way.
	comesWithin = 100 * time.Millisecond
	// patience is how long a message waits in hand for a slot before another replica may have it.
	patience = 5 * time.Second
)

// slots bound what is in hand at once, and decide which lane gets a slot that is free. Each lane has one message at most that
// waits for one.
type slots struct {
	mu        sync.Mutex
	free, own int // of all lanes, and urgent's own
	turns     budget.Turns
	lanes     map[message.Lane]*waiting
	changed   chan struct{}
}

// waiting is a lane's place at the slots.
type waiting struct {
	since time.Time // when its message came; zero: none waits
	comes time.Time // until then its next message is expected
	stuck bool      // a message of it waits for a slot, here or at the broker, to which it was given back
}

func newSlots(shared, own int) *slots {
	s := &slots{free: shared, own: own, lanes: map[message.Lane]*waiting{}, changed: make(chan struct{})}
	for _, l := range message.Lanes() {
		s.lanes[l] = &waiting{}
	}
	return s
}

// take waits for a slot for a lane's message, which stands in line until it has one. It returns what gives the slot back, or
// nil when ctx has ended or patience is over. more: the broker has more for this lane.
func (s *slots) take(ctx context.Context, l message.Lane, more bool) (release func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	w := s.lanes[l]
	w.since, w.comes, w.stuck = time.Now(), time.Time{}, true
	for ctx.Err() == nil && time.Since(w.since) < patience {
		if s.turns.Next(s.stands) == l {
			release, w.stuck = s.occupy(l), false
			if more {
				w.comes = time.Now().Add(comesWithin)
			}
			break
		}
		s.await(ctx, min(s.nextLook(), max(time.Until(w.since.Add(patience)), 0)))
	}
	w.since = time.Time{}
	s.signal()
	return release
}

// vacancy waits until a lane could have a slot.
func (s *slots) vacancy(ctx context.Context, l message.Lane) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for ctx.Err() == nil && s.free == 0 && (l != message.LaneUrgent || s.own == 0) {
		s.await(ctx, time.Minute)
	}
	s.lanes[l].stuck = false
}

// waiting is how many lanes have a message that waits for a slot.
func (s *slots) waiting() (n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, w := range s.lanes {
		if w.stuck {
			n++
		}
	}
	return n
}

// none records that the broker had nothing for a lane.
func (s *slots) none(l message.Lane) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.lanes[l].comes = time.Time{}
	s.signal()
}

// stands reports whether a lane is in line for a slot that it could have now.
func (s *slots) stands(l message.Lane) bool {
	w, now := s.lanes[l], time.Now()
	if w.since.IsZero() {
		return s.free > 0 && now.Before(w.comes)
	}
	return s.free > 0 || l == message.LaneUrgent && s.own > 0 && now.Sub(w.since) >= hangs
}

// nextLook is how long until time alone may change who is next.
func (s *slots) nextLook() time.Duration {
	next := patience
	for l, w := range s.lanes {
		for _, at := range []time.Time{w.comes, w.since.Add(hangs)} {
			if d := time.Until(at); d > 0 && d < next && (l == message.LaneUrgent || at.Equal(w.comes)) {
				next = d
			}
		}
	}
	return next
}

// occupy takes a slot. The caller holds mu.
func (s *slots) occupy(l message.Lane) (release func()) {
	s.turns = s.turns.After(l)
	from := &s.free
	if s.free == 0 {
		from = &s.own
	}
	*from--
	return func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		*from++
		s.signal()
	}
}

func (s *slots) signal() {
	close(s.changed)
	s.changed = make(chan struct{})
}

// await waits for a change, for d at most. It gives mu up meanwhile.
func (s *slots) await(ctx context.Context, d time.Duration) {
	changed, timer := s.changed, time.NewTimer(d)
	s.mu.Unlock()
	defer s.mu.Lock()
	defer timer.Stop()
	select {
	case <-changed:
	case <-timer.C:
	case <-ctx.Done():
	}
}
