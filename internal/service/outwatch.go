package service

import (
	"fmt"
	"maps"
	"sync"
	"time"

	"example.com/unrestrict-worker/internal/config"
	"example.com/unrestrict-worker/internal/health"
)

// outWatch detects that a client that is no replica has pulled requests: the broker counts more messages as delivered and not
// acknowledged than all replicas have in hand or have nakked with a delay. It compares the numbers it is given, and reads nothing
// itself.
type outWatch struct {
	after   time.Duration // within this time the broker redelivers what a dead replica had in hand
	longest time.Duration // how long the naks of a replica that is gone may delay its messages

	mu       sync.Mutex
	replicas map[string]outstanding // by replica; "before": what was out before this one started
	since    time.Time              // zero: no other client has any
	floor    uint64                 // the ack floor at since
	count    int                    // what other clients have, as last known
	reported bool
}

// outstanding is what a replica had out when it last reported, and until when that counts if it reports no more.
type outstanding struct {
	inHand, delayed         int
	untilInHand, untilDelay time.Time
}

// consumerState is what the broker reports of the consumers: how many messages are out, whether each has a pull request open, so
// that none of its messages waits for a free slot, and the sum of the ack floors.
type consumerState struct {
	Out   int
	Asked bool
	Floor uint64
}

// newOutWatch is called before this replica takes anything: replicas that have ended may have nakked with a delay what is out
// then.
func newOutWatch(set config.Settings, now time.Time, out int) *outWatch {
	after := set.AckWait + watchEvery
	backoff := time.Duration(float64(set.Backoff.Max) * (1 + set.Backoff.Randomization))
	w := &outWatch{after: after, longest: max(backoff, time.Minute) + after}
	w.replicas = map[string]outstanding{"before": {delayed: out, untilDelay: now.Add(w.longest)}}
	return w
}

// outstanding returns what this replica has in hand, and what it has nakked with a delay.
func (p *parts) outstanding() []int {
	return []int{p.Consumer.InFlight() + p.Consumer.Waiting(), p.Consumer.Delayed()}
}

// observe takes the state of the consumers, and what each running replica has in hand and has nakked with a delay.
func (w *outWatch) observe(now time.Time, state consumerState, replicas map[string][]int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for id, n := range replicas {
		w.replicas[id] = outstanding{n[0], n[1], now.Add(w.after), now.Add(w.longest)}
	}
	count := state.Out - w.accounted(now)
	switch {
	case count <= 0:
		w.since, w.count, w.reported = time.Time{}, 0, false
	case !state.Asked: // some of it may wait for a free slot: keep the last verdict
	case w.since.IsZero() || state.Floor != w.floor && !w.reported:
		w.since, w.floor, w.count = now, state.Floor, count
	default:
		w.count, w.reported = count, now.Sub(w.since) >= w.after
	}
}

// accounted returns how many messages the replicas account for. The caller holds mu.
func (w *outWatch) accounted(now time.Time) (n int) {
	for _, h := range w.replicas {
		if now.Before(h.untilInHand) {
			n += h.inHand
		}
		if now.Before(h.untilDelay) {
			n += h.delayed
		}
	}
	maps.DeleteFunc(w.replicas, func(_ string, h outstanding) bool { return now.After(h.untilInHand) && now.After(h.untilDelay) })
	return n
}

// conditions returns what was found; nothing while the broker denies acknowledgements. Then messages stay out, and that is
// reported already.
func (w *outWatch) conditions(known []health.Condition) []health.Condition {
	w.mu.Lock()
	defer w.mu.Unlock()
	if _, denied := health.Has(known, health.Denied); !w.reported || denied {
		return nil
	}
	c := health.New(health.HeldElsewhere, fmt.Sprintf("%d requests were delivered to a client that is no replica of this worker, and are neither acknowledged nor nakked", w.count))
	c.Since = w.since.UTC()
	return []health.Condition{c}
}
