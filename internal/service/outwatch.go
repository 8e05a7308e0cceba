package service

import (
	"fmt"
	"maps"
	"sync"
	"time"

	"example.com/unrestrict-worker/internal/config"
	"example.com/unrestrict-worker/internal/health"
)

// outWatch finds out that somebody who is no replica has requests in hand: the broker counts more as delivered and not
// acknowledged than all replicas have in hand or have handed back with a delay. It judges what it is told, and asks nobody.
type outWatch struct {
	after   time.Duration // the broker gives back by itself within that what a replica had that died
	longest time.Duration // a delay that a replica which is gone may have given

	mu    sync.Mutex
	hands map[string]hands // by replica; beside them what was out before this one was there
	since time.Time        // zero: nobody else has any
	floor uint64           // of the look at since
	count int              // that somebody else has, at the last look that could tell
	said  bool
}

// hands is what a replica had out, and until when that counts though it says nothing more.
type hands struct {
	inHand, delayed         int
	untilInHand, untilDelay time.Time
}

// outLook is what the consumer says: what is out, whether somebody asks for requests and gets none, so that nothing of that
// waits for a free hand, and up to where everything was acknowledged.
type outLook struct {
	Out   int
	Asked bool
	Floor uint64
}

// newOutWatch begins before this replica takes anything: what is out then replicas may have delayed that ended before.
func newOutWatch(set config.Settings, now time.Time, out int) *outWatch {
	after := set.AckWait + watchEvery
	backoff := time.Duration(float64(set.Backoff.Max) * (1 + set.Backoff.Randomization))
	w := &outWatch{after: after, longest: max(backoff, time.Minute) + after}
	w.hands = map[string]hands{"before": {delayed: out, untilDelay: now.Add(w.longest)}}
	return w
}

// hands is what this replica has out.
func (p *parts) hands() []int {
	return []int{p.Consumer.InFlight() + p.Consumer.Waiting(), p.Consumer.Delayed()}
}

// look is told of a look, and what each replica that is there has in hand and has delayed.
func (w *outWatch) look(now time.Time, l outLook, there map[string][]int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for id, n := range there {
		w.hands[id] = hands{n[0], n[1], now.Add(w.after), now.Add(w.longest)}
	}
	count := l.Out - w.accounted(now)
	switch {
	case count <= 0:
		w.since, w.count, w.said = time.Time{}, 0, false
	case !l.Asked: // some of that may wait for a free hand: who can't tell says what he said before
	case w.since.IsZero() || l.Floor != w.floor && !w.said:
		w.since, w.floor, w.count = now, l.Floor, count
	default:
		w.count, w.said = count, now.Sub(w.since) >= w.after
	}
}

// accounted is how many replicas have out. The caller holds mu.
func (w *outWatch) accounted(now time.Time) (n int) {
	for _, h := range w.hands {
		if now.Before(h.untilInHand) {
			n += h.inHand
		}
		if now.Before(h.untilDelay) {
			n += h.delayed
		}
	}
	maps.DeleteFunc(w.hands, func(_ string, h hands) bool { return now.After(h.untilInHand) && now.After(h.untilDelay) })
	return n
}

// conditions are what is found. What may not be acknowledged stays out, which is said already.
func (w *outWatch) conditions(known []health.Condition) []health.Condition {
	w.mu.Lock()
	defer w.mu.Unlock()
	if _, denied := health.Has(known, health.Denied); !w.said || denied {
		return nil
	}
	c := health.New(health.HeldElsewhere, fmt.Sprintf("%d requests were delivered to somebody who is no replica of this worker, and are neither acknowledged nor nakked", w.count))
	c.Since = w.since.UTC()
	return []health.Condition{c}
}
