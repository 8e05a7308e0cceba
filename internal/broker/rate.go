package broker

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"example.com/unrestrict-worker/internal/budget"
)

const (
	rateTimeout  = 2 * time.Second  // for one request to the broker
	rateAnnounce = 5 * time.Second  // between two announcements of this replica's limits
	rateLimitTTL = 15 * time.Second // how long a dead replica's limits still count

	rateKeys       = "rate.>"
	rateLimits     = "rate.limits."    // + replica: its limits, {"minute":100,"hour":1500}
	rateUnrecorded = "rate.unlimited." // + window: calls were made of which the window knows nothing
)

// RateStore is the shared side of the call budget: a stream per window, in which publishing is
// taking, and in UNRESTRICT_STATE the closure and the limits of the live replicas, of which the
// smallest holds. It implements [budget.Store], which knows the closure only while Run runs.
type RateStore struct {
	js       jetstream.JetStream
	state    jetstream.KeyValue
	bucket   jetstream.Stream // of state
	windows  map[string]budget.Window
	replicas int
	storage  jetstream.StorageType
	id       string // of this process, in its announcements

	settling sync.Mutex // held by the one goroutine that changes a stream

	mu     sync.Mutex // guards all below
	touch  chan struct{}
	failed error                     // why touch is not closed
	limits map[string]map[string]int // announced by others: key -> window -> limit; nil: not understood
	marks  map[string]time.Time      // rateUnrecorded: window -> the broker's time of it
	marked map[string]time.Time      // when this process last wrote one
	since  time.Time                 // closure: learned
	until  time.Time                 // closure: ends
	owed   time.Time                 // end of a closure that the others don't know of yet
}

var _ budget.Store = (*RateStore)(nil)

// NewRateStore sees to it that the streams of the limited windows are there, and alters them where
// they differ, but not yet their limits: that needs Run, which knows the other replicas'. The state
// bucket must allow per-message TTL (LimitMarkerTTL); grants are kept in the same kind of storage.
func NewRateStore(ctx context.Context, js jetstream.JetStream, state jetstream.KeyValue, windows []budget.Window, replicas int) (*RateStore, error) {
	bucket, err := js.Stream(ctx, "KV_"+state.Bucket())
	if err != nil {
		return nil, fmt.Errorf("stream of the bucket %s: %w", state.Bucket(), err)
	}
	s := &RateStore{
		js: js, state: state, bucket: bucket, replicas: replicas, storage: bucket.CachedInfo().Config.Storage,
		id: rand.Text(), windows: map[string]budget.Window{},
		touch: make(chan struct{}), failed: errors.New("not started"),
		limits: map[string]map[string]int{}, marks: map[string]time.Time{}, marked: map[string]time.Time{},
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

// Run follows the closure and the other replicas' limits, and announces this one's, until ctx ends,
// which is no error. Whatever goes wrong in between only puts the budget out of touch.
func (s *RateStore) Run(ctx context.Context) error {
	conn := s.js.Conn()
	status := conn.StatusChanged(nats.DISCONNECTED, nats.RECONNECTING, nats.CLOSED)
	defer conn.RemoveStatusListener(status)
	for {
		err := s.follow(ctx, status)
		s.outOfTouch(err)
		select {
		case <-ctx.Done():
			// The others need not wait for our limits to expire. If this is lost, they do.
			ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), rateTimeout)
			defer cancel()
			if s.limited() {
				_ = s.put(ctx, rateLimits+s.id, []byte("{}"), time.Second)
			}
			return nil
		case <-time.After(250 * time.Millisecond):
		}
	}
}

// announce tells the others our limits. Whoever has none is in nobody's way and says nothing.
func (s *RateStore) announce(ctx context.Context) error {
	if !s.limited() {
		return nil
	}
	limits := map[string]int{}
	for name, w := range s.windows {
		limits[name] = w.Limit
	}
	value, err := json.Marshal(limits)
	if err == nil {
		err = s.put(ctx, rateLimits+s.id, value, rateLimitTTL)
	}
	if err != nil {
		return fmt.Errorf("announce the rate limits: %w", err)
	}
	return nil
}

func (s *RateStore) limited() bool {
	for _, w := range s.windows {
		if w.Limit > 0 {
			return true
		}
	}
	return false
}

// smallest is the limit that holds: the smallest that any live replica is configured with.
func (s *RateStore) smallest(window string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	limit := s.windows[window].Limit
	for _, other := range s.limits {
		if l := other[window]; l > 0 && (limit == 0 || l < limit) {
			limit = l
		}
	}
	return limit
}

// others is how many other replicas have announced limits.
func (s *RateStore) others() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.limits)
}

// unread reports whether another replica's limits are not understood: the smallest may be one of those.
func (s *RateStore) unread() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, limits := range s.limits {
		if limits == nil {
			return true
		}
	}
	return false
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
