package budget

import (
	"context"
	"slices"
	"sync"
	"time"

	"example.com/unrestrict-worker/internal/message"
)

// Uses that are no lane.
const (
	useLookup = "lookup"
	useFollow = "follow"
)

// line is where callers of Take wait for their turn to talk to the store: one at a time.
type line struct {
	mu      sync.Mutex
	waiters []*waiter // in the order of the messages that they have in hand, else in which they came
	coming  []*coming
	busy    bool
	turns   Turns
	awaits  map[message.Lane]time.Time // until when requests of a lane are known to wait, beside those here
	spent   bool                       // urgent found nothing left, and none of the others has had a call since
	changed chan struct{}

	failure  error // the last error of the store
	failedAt time.Time
}

// waiter is one caller of Take.
type waiter struct {
	use      string
	sequence uint64 // of the message in hand; 0: none
	entered  time.Time
	tried    bool      // it has asked the store once
	again    time.Time // not before this, for it lost a race
}

// coming is a message in hand that has not asked for a call yet.
type coming struct {
	lane     message.Lane
	sequence uint64
	until    time.Time // those behind it wait for it
}

// comesWithin is how long those behind a message in its lane wait for it to ask for a call. It has to read the ledger first,
// several round trips to the broker. One that takes longer waits for something of its own, and holds up nobody.
const comesWithin = 250 * time.Millisecond

func newLine() *line {
	return &line{awaits: map[message.Lane]time.Time{}, changed: make(chan struct{})}
}

// join has a caller wait in line, until leave.
func (n *line) join(w *waiter) (leave func()) {
	n.mu.Lock()
	defer n.mu.Unlock()
	at := len(n.waiters)
	for at > 0 && n.waiters[at-1].sequence > w.sequence {
		at--
	}
	n.waiters = slices.Insert(n.waiters, at, w)
	n.coming = slices.DeleteFunc(n.coming, func(c *coming) bool { return string(c.lane) == w.use && c.sequence == w.sequence })
	return func() {
		n.mu.Lock()
		defer n.mu.Unlock()
		n.waiters = slices.DeleteFunc(n.waiters, func(other *waiter) bool { return other == w })
		n.signal()
	}
}

// expect has those behind a message wait for it, until it joins or is gone.
func (n *line) expect(l message.Lane, sequence uint64) (gone func()) {
	n.mu.Lock()
	defer n.mu.Unlock()
	one := &coming{lane: l, sequence: sequence, until: time.Now().Add(comesWithin)}
	n.coming = append(n.coming, one)
	return func() {
		n.mu.Lock()
		defer n.mu.Unlock()
		if i := slices.Index(n.coming, one); i >= 0 {
			n.coming = slices.Delete(n.coming, i, i+1)
			n.signal()
		}
	}
}

// ahead is how long a caller waits at most for messages before its own that have not asked yet. The caller holds mu.
func (n *line) ahead(w *waiter) (wait time.Duration) {
	for _, c := range n.coming {
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

// went records that a use got a call.
func (n *line) went(use string) {
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

// standing is the lane whose floor a lane leaves now, and whether it leaves one call more, which is due to another.
func (n *line) standing(l message.Lane) (as message.Lane, yields bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.turns.standing(l, n.waits, n.spent)
}

// stand tells a caller whether it is its turn, and else how long until it may be as far as time goes, and what is closed when
// something else changes. An error is the store's, which failed another caller after this one came.
func (b *Budget) stand(w *waiter) (wait time.Duration, turn bool, changed <-chan struct{}, err error) {
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
		return max(n.ahead(one), open[one.use], time.Until(one.again))
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

// first is whose turn it is of those that are ready. The caller holds mu.
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
			w.again = time.Now().Add(blocked.For)
		}
		n.spent = n.spent || w.use == string(message.LaneUrgent) && !blocked.Closed && blocked.For > pollInterval
	case err != nil && ctx.Err() == nil:
		n.failure, n.failedAt = err, time.Now()
	}
	n.signal()
}
