package broker

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"example.com/unrestrict-worker/internal/budget"
)

const (
	rateTimeout = 2 * time.Second // for one request to the broker
	rateReread  = 5 * time.Second // between two looks at the closure

	rateUnrecorded = "rate.unlimited." // + window: calls were made of which the window knows nothing
)

// RateStore is the shared side of the call budget: a stream per window, in which publishing is
// taking, and in UNRESTRICT_STATE the closure. Of the limits of all live replicas the smallest holds.
// It implements [budget.Store], which knows the closure only while Run runs.
type RateStore struct {
	js       jetstream.JetStream
	state    jetstream.KeyValue
	bucket   jetstream.Stream // of state
	windows  map[string]budget.Window
	replicas int
	storage  jetstream.StorageType
	peers    *Replicas

	settling sync.Mutex // held by the one goroutine that changes a stream

	mu     sync.Mutex // guards all below
	touch  chan struct{}
	failed error                // why touch is not closed
	marks  map[string]time.Time // rateUnrecorded: window -> the broker's time of it
	marked map[string]time.Time // when this process last wrote one
	since  time.Time            // closure: learned
	until  time.Time            // closure: ends
	owed   time.Time            // end of a closure that the others don't know of yet
}

var _ budget.Store = (*RateStore)(nil)

// NewRateStore sees to it that the streams of the limited windows are there, and alters them where
// they differ, but not yet their limits: those are settled once the peers' are known. The state bucket must allow per-message TTL (LimitMarkerTTL); grants are kept in the same kind of storage.
func NewRateStore(ctx context.Context, js jetstream.JetStream, state jetstream.KeyValue, windows []budget.Window, replicas int, peers *Replicas) (*RateStore, error) {
	bucket, err := js.Stream(ctx, "KV_"+state.Bucket())
	if err != nil {
		return nil, fmt.Errorf("stream of the bucket %s: %w", state.Bucket(), err)
	}
	s := &RateStore{
		js: js, state: state, bucket: bucket, replicas: replicas, storage: bucket.CachedInfo().Config.Storage,
		peers: peers, windows: map[string]budget.Window{},
		touch: make(chan struct{}), failed: errors.New("not started"),
		marks: map[string]time.Time{}, marked: map[string]time.Time{},
	}
	for _, w := range windows {
		s.windows[w.Name] = w
		if w.Limit == 0 {
			continue
		}
		if err := s.ensure(ctx, w); err != nil {
			return nil, err
		}
	}
	return s, nil
}

// Run follows the closure until ctx ends, which is no error. Whatever goes wrong in between only puts the budget out of touch.
func (s *RateStore) Run(ctx context.Context) error {
	conn := s.js.Conn()
	status := conn.StatusChanged(nats.DISCONNECTED, nats.RECONNECTING, nats.CLOSED)
	defer conn.RemoveStatusListener(status)
	for {
		err := s.follow(ctx, status)
		s.outOfTouch(err)
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(250 * time.Millisecond):
		}
	}
}

// smallest is the limit that holds: the smallest that any live replica is configured with. known: all were heard.
func (s *RateStore) smallest(window string) (limit int, known bool) {
	limit = s.windows[window].Limit
	others, known := s.peers.limits()
	for _, other := range others {
		if l := other[window]; l > 0 && (limit == 0 || l < limit) {
			limit = l
		}
	}
	return limit, known
}

// others is how many other replicas have limits.
func (s *RateStore) others() int {
	all, _ := s.peers.limits()
	return len(all)
}

// put writes a key that the broker expires; no kv method does that to a key that is there.
func (s *RateStore) put(ctx context.Context, key string, value []byte, ttl time.Duration, opts ...jetstream.PublishOpt) error {
	ctx, cancel := context.WithTimeout(ctx, rateTimeout)
	defer cancel()
	msg := &nats.Msg{Subject: "$KV." + s.state.Bucket() + "." + key, Data: value}
	_, err := s.js.PublishMsg(ctx, msg, append(opts, jetstream.WithMsgTTL(rateCeil(ttl)), jetstream.WithRetryAttempts(0))...)
	return err
}

// rateCeil rounds up to what the broker can expire: whole seconds, and not for ever.
func rateCeil(d time.Duration) time.Duration {
	const century = 100 * 365 * 24 * time.Hour
	if d >= century {
		return century
	}
	return max(time.Second, (d + time.Second - 1).Truncate(time.Second))
}
