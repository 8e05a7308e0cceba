package budget

import (
	"context"
	"slices"
	"sync"
	"time"

	"example.com/unrestrict-worker/internal/message"
)

// Uses besides the lanes.
const (
	useLookup = "lookup"
	useFollow = "follow"
)

// line is where callers of Take wait for their turn to ask the store, one at a time.
type line struct {
	mu       sync.Mutex
	waiters  []*waiter // in the order of their messages in the stream, then of arrival
	expected []*expected
	busy     bool
	turns    Turns
	awaits   map[message.Lane]time.Time // by lane, until when requests count as waiting elsewhere (NoteWaiting)
	spent    bool                       // urgent found no call left, and no other lane got one since
	changed  chan struct{}

	failure  error // the last error of the store
	failedAt time.Time
}

// waiter is one caller of Take.
type waiter struct {
	use      string
	sequence uint64 // of the message being handled; 0: none
	entered  time.Time
	tried    bool      // has asked the store at least once
	retryAt  time.Time // earliest next try, after it lost a race
}

// expected is a message in hand that has not asked for a call yet.
type expected struct {
	lane     message.Lane
	sequence uint64
	until    time.Time // until then those behind it wait for it
}

// asksWithin is how long the messages behind one in its lane wait for it to ask for a call. It has to read the ledger first,
// which takes several round trips to the broker. One that takes longer waits for something of its own, and no longer holds
// up the others.
const asksWithin = 250 * time.Millisecond

func newLine() *line {
	return &line{awaits: map[message.Lane]time.Time{}, changed: make(chan struct{})}
}

// join adds a caller to the line. leave removes it.
func (n *line) join(w *waiter) (leave func()) {
	n.mu.Lock()
	defer n.mu.Unlock()
	at := len(n.waiters)
	for at > 0 && n.waiters[at-1].sequence > w.sequence {
		at--
	}
	n.waiters = slices.Insert(n.waiters, at, w)
	n.expected = slices.DeleteFunc(n.expected, func(c *expected) bool { return string(c.lane) == w.use && c.sequence == w.sequence })
	return func() {
		n.mu.Lock()
		defer n.mu.Unlock()
		n.waiters = slices.DeleteFunc(n.waiters, func(other *waiter) bool { return other == w })
		n.signal()
	}
}

// expect makes the messages behind this one wait for it, until it joins or done is called.
func (n *line) expect(l message.Lane, sequence uint64) (done func()) {
	n.mu.Lock()
	defer n.mu.Unlock()
	one := &expected{lane: l, sequence: sequence, until: time.Now().Add(asksWithin)}
	n.expected = append(n.expected, one)
	return func() {
		n.mu.Lock()
		defer n.mu.Unlock()
		if i := slices.Index(n.expected, one); i >= 0 {
			n.expected = slices.Delete(n.expected, i, i+1)
			n.signal()
		}
	}
}

// ahead is how long a caller still waits at most for earlier messages that have not asked yet. The caller holds mu.
func (n *line) ahead(w *waiter) (wait time.Duration) {
	for _, c := range n.expected {
		if string(c.lane) == w.use && c.sequence < w.sequence {
			wait = max(wait, time.Until(c.until))
		}
	}
	return wait
}

func (n *line) signal() {
	close(n.changed)
	n.changed = make(chan struct{})
}

func (n *line) await(l message.Lane, until time.Time) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.awaits[l] = until
}

// took records that a use got a call.
func (n *line) took(use string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.turns = n.turns.After(message.Lane(use))
	if use == string(message.LaneNormal) || use == string(message.LaneBulk) {
		n.spent = false
	}
}

// waits reports whether requests of a lane wait. The caller holds mu.
func (n *line) waits(l message.Lane) bool {
	return time.Now().Before(n.awaits[l]) || slices.ContainsFunc(n.waiters, func(w *waiter) bool { return w.use == string(l) })
}

// floorLane is the lane whose floor applies to a lane now, and whether it must leave one call more, which is due to another
// lane.
func (n *line) floorLane(l message.Lane) (as message.Lane, yields bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.turns.floorLane(l, n.waits, n.spent)
}

// checkTurn reports whether it is a caller's turn. If not, wait is how long until it may be, as far as that depends on time,
// and changed is closed when something else changes. err is an error of the store that another caller met after this one
// came.
func (b *Budget) checkTurn(w *waiter) (wait time.Duration, turn bool, changed <-chan struct{}, err error) {
	n, open := b.line, map[string]time.Duration{}
	for _, use := range []string{useLookup, useFollow, string(message.LaneUrgent), string(message.LaneNormal), string(message.LaneBulk)} {
		open[use], _, _ = b.wait(use)
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.failedAt.After(w.entered) {
		return 0, false, nil, n.failure
	}
	until := func(one *waiter) time.Duration {
		if !one.tried {
			return n.ahead(one)
		}
		return max(n.ahead(one), open[one.use], time.Until(one.retryAt))
	}
	if wait := until(w); wait > 0 {
		return wait, false, n.changed, nil
	}
	if n.busy || n.first(func(one *waiter) bool { return until(one) <= 0 }) != w {
		return 0, false, n.changed, nil
	}
	n.busy = true
	return 0, true, n.changed, nil
}

// first is the waiter whose turn it is, of those that are ready. The caller holds mu.
func (n *line) first(ready func(*waiter) bool) *waiter {
	of := map[string]*waiter{}
	for _, w := range n.waiters {
		switch {
		case !ready(w):
		case w.use == useLookup, w.use == useFollow:
			return w
		case of[w.use] == nil:
			of[w.use] = w
		}
	}
	return of[string(n.turns.Next(func(l message.Lane) bool { return of[string(l)] != nil }))]
}

// tried ends a caller's turn.
func (b *Budget) tried(ctx context.Context, w *waiter, err error) {
	n := b.line
	n.mu.Lock()
	defer n.mu.Unlock()
	n.busy, w.tried = false, true
	blocked, is := err.(*WaitError) //nolint:errorlint // made by try, never wrapped
	switch {
	case is:
		if blocked.For <= pollInterval {
			w.retryAt = time.Now().Add(blocked.For)
		}
		n.spent = n.spent || w.use == string(message.LaneUrgent) && !blocked.Closed && blocked.For > pollInterval
	case err != nil && ctx.Err() == nil:
		n.failure, n.failedAt = err, time.Now()
	}
	n.signal()
}
