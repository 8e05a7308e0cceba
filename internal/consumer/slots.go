package consumer

import (
	"context"
	"sync"
	"time"

	"example.com/unrestrict-worker/internal/budget"
	"example.com/unrestrict-worker/internal/message"
)

const (
	// sharedWait is how long an urgent message waits for a shared slot before it takes one of urgent's own. If none is free by
	// then, the deliveries in the shared slots hang, or wait for quota. Until then it waits, so that no more calls run at once
	// than there are shared slots.
	sharedWait = 250 * time.Millisecond
	// nextWithin is how long a lane that has more at the broker keeps its turn while its next message is on its way.
	nextWithin = 100 * time.Millisecond
	// patience is how long a pulled message waits for a slot before it is nakked for another replica.
	patience = 5 * time.Second
)

// slots bound the deliveries handled at once, and decide which lane gets a free slot. Each lane has at most one message that
// waits for a slot.
type slots struct {
	mu        sync.Mutex
	free, own int // shared by all lanes, and urgent's own
	turns     budget.Turns
	lanes     map[message.Lane]*waiting
	changed   chan struct{}
}

// waiting is a lane's place in the line for slots.
type waiting struct {
	since         time.Time // when its waiting message was pulled; zero: none waits
	expectedUntil time.Time // its next message is on its way until then; zero: none is expected
	stuck         bool      // a message of the lane waits for a slot, here or, nakked, at the broker
}

func newSlots(shared, own int) *slots {
	s := &slots{free: shared, own: own, lanes: map[message.Lane]*waiting{}, changed: make(chan struct{})}
	for _, l := range message.Lanes() {
		s.lanes[l] = &waiting{}
	}
	return s
}

// take waits until a lane's message gets a slot, and returns the function that frees the slot. It returns nil when ctx ends
// or patience has passed. more: the broker has more for this lane.
func (s *slots) take(ctx context.Context, l message.Lane, more bool) (release func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	w := s.lanes[l]
	w.since, w.expectedUntil, w.stuck = time.Now(), time.Time{}, true
	for ctx.Err() == nil && time.Since(w.since) < patience {
		if s.turns.Next(s.wantsSlot) == l {
			release, w.stuck = s.occupy(l), false
			if more {
				w.expectedUntil = time.Now().Add(nextWithin)
			}
			break
		}
		s.await(ctx, min(s.nextLook(), max(time.Until(w.since.Add(patience)), 0)))
	}
	w.since = time.Time{}
	s.signal()
	return release
}

// vacancy waits until a slot is free that a lane may use.
func (s *slots) vacancy(ctx context.Context, l message.Lane) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for ctx.Err() == nil && s.free == 0 && (l != message.LaneUrgent || s.own == 0) {
		s.await(ctx, time.Minute)
	}
	s.lanes[l].stuck = false
}

// waiting is the number of lanes with a message that waits for a slot.
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
	s.lanes[l].expectedUntil = time.Time{}
	s.signal()
}

// wantsSlot reports whether a lane is in line for a slot that it may use now.
func (s *slots) wantsSlot(l message.Lane) bool {
	w, now := s.lanes[l], time.Now()
	if w.since.IsZero() {
		return s.free > 0 && now.Before(w.expectedUntil)
	}
	return s.free > 0 || l == message.LaneUrgent && s.own > 0 && now.Sub(w.since) >= sharedWait
}

// nextLook is how long until the passing of time alone may change whose turn it is.
func (s *slots) nextLook() time.Duration {
	next := patience
	for l, w := range s.lanes {
		for _, at := range []time.Time{w.expectedUntil, w.since.Add(sharedWait)} {
			if d := time.Until(at); d > 0 && d < next && (l == message.LaneUrgent || at.Equal(w.expectedUntil)) {
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

// await waits for a change, at most for d. It unlocks mu meanwhile.
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
