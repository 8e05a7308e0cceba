// Package rates is the call budget that all replicas on an account share: a stream per window, whose limit the broker
// itself enforces, and the closure after a 429. It knows neither requests nor the API. [Peers] supplies the limits that other
// replicas report.
package rates

import (
	"context"
	"errors"
	"maps"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"example.com/unrestrict-worker/internal/broker/stream"
	"example.com/unrestrict-worker/internal/budget"
	"example.com/unrestrict-worker/internal/ledger"
)

const (
	timeout = 2 * time.Second // for one request to the broker
	reread  = 5 * time.Second // between two reads of the closure

	unrecordedPrefix = "rate.unlimited." // + window: the window's stream lacks grants of calls that were made
	streamPrefix     = "rate.stream."    // + window: when its stream was created
)

// State is the bucket that all replicas share; stream.Bucket implements it.
type State interface {
	Info(ctx context.Context) (*jetstream.StreamInfo, error)
	Load(ctx context.Context, key string) (ledger.Record, error)
	Save(ctx context.Context, w ledger.Write) (revision uint64, err error)
	Put(ctx context.Context, key string, value []byte, ttl time.Duration) error
	Watch(ctx context.Context, patterns []string, synced func(), fn func(key string, r ledger.Record)) error
}

// Peers supplies the limits that the other replicas on the account report.
type Peers interface {
	// Limits are those of the others that have any, by window; known: the presence records of all were received and decoded.
	Limits() (all []map[string]int, known bool)
}

// Limits are the limits that a replica reports. One without limits restricts no other.
func Limits(windows []budget.Window) map[string]int {
	limits := map[string]int{}
	for _, w := range windows {
		if w.Limit > 0 {
			limits[w.Name] = w.Limit
		}
	}
	return limits
}

// Store is the shared side of the call budget: a stream per window, in which to publish is to take a call, and the closure in
// UNRESTRICT_STATE. The smallest limit of all live replicas holds. Store implements [budget.Store]; it knows the closure
// only while Run runs.
type Store struct {
	js       jetstream.JetStream
	state    State
	windows  map[string]budget.Window
	replicas int
	storage  jetstream.StorageType
	peers    Peers

	stateCreated time.Time // when the state's bucket was created; used by the goroutine that follows it only

	settling sync.Mutex           // held by the one goroutine that changes a stream
	created  map[string]time.Time // guarded by settling: when each window's stream was created
	grants   map[string]*grants   // guarded by settling

	mu      sync.Mutex           // guards all below
	touch   chan struct{}        // closed while the watch of the state is up to date
	failed  error                // why touch is not closed
	lost    time.Time            // since when it is not closed
	unread  error                // why the closure's end is not known; nil: it is known, or there is no closure
	marks   map[string]time.Time // unrecordedPrefix: window -> the broker's time of the mark
	marked  map[string]time.Time // when this process last wrote the mark
	since   time.Time            // when this process learned of the closure
	until   time.Time            // when the closure ends
	pending time.Time            // end of a closure that is not written to the state yet
	lifted  uint64               // revision of the last lift that was learned
}

var _ budget.Store = (*Store)(nil)

// New creates the streams of the limited windows, or corrects their settings, except the limits, which are settled when the peers'
// limits are known. replicas is the number of replicas of created streams; 0: nothing may be created. The streams use the same
// kind of storage as the state.
func New(ctx context.Context, js jetstream.JetStream, state State, windows []budget.Window, replicas int, peers Peers) (*Store, error) {
	info, err := state.Info(ctx)
	if err != nil {
		return nil, err
	}
	s := &Store{
		js: js, state: state, replicas: replicas, storage: info.Config.Storage, peers: peers, windows: map[string]budget.Window{},
		touch: make(chan struct{}), failed: errors.New("not started"), lost: time.Now(),
		marks: map[string]time.Time{}, marked: map[string]time.Time{}, created: map[string]time.Time{}, grants: map[string]*grants{},
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

// Run follows the closure until ctx ends, which is no error. Any error in between only puts the budget out of touch.
func (s *Store) Run(ctx context.Context) error {
	conn := s.js.Conn()
	status := conn.StatusChanged(nats.DISCONNECTED, nats.RECONNECTING, nats.CLOSED)
	defer conn.RemoveStatusListener(status)
	for {
		err := s.follow(ctx, status)
		s.outOfTouch(err)
		if errors.Is(err, stream.ErrRecreated) {
			s.restore(ctx)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(250 * time.Millisecond):
		}
	}
}

// restore writes what this process knows into a bucket that was recreated: until when calls are forbidden, and which windows are
// incomplete. If that fails, retryClosure writes the closure, and the next call without a limit the mark.
func (s *Store) restore(ctx context.Context) {
	s.mu.Lock()
	marks := maps.Clone(s.marks)
	if s.until.After(time.Now()) {
		s.pending = s.until
	}
	s.mu.Unlock()
	for window, since := range marks {
		if w := s.windows[window]; time.Since(since) < MarkTTL(w) {
			_ = s.mark(ctx, w)
		}
	}
	_ = s.retryClosure(ctx)
}

// smallest is the limit that holds: the smallest that any live replica is configured with. known: those of all are known.
func (s *Store) smallest(window string) (limit int, known bool) {
	limit = s.windows[window].Limit
	others, known := s.peers.Limits()
	for _, other := range others {
		if l := other[window]; l > 0 && (limit == 0 || l < limit) {
			limit = l
		}
	}
	return limit, known
}

// others is how many other replicas have limits.
func (s *Store) others() int {
	all, _ := s.peers.Limits()
	return len(all)
}
