package broker

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"go.uber.org/zap"
	"golang.org/x/sync/errgroup"

	"example.com/unrestrict-worker/internal/broker/stream"
	"example.com/unrestrict-worker/internal/ledger"
)

// stateKeys are a deployment's keys in UNRESTRICT_STATE. The bucket also has the call budget's keys, which all deployments on
// the account share.
type stateKeys struct{ pause, answer, lease, replica, tally, orders string }

// stateKeys distinguishes deployments on one account by their request streams. Operators may write the keys that begin with
// "pause." (deploy/nats).
func (n Names) stateKeys() stateKeys {
	d := ledger.DeploymentDigest(n.Stream)
	return stateKeys{pause: "pause." + d, answer: "pause.orders-" + d, lease: "lease." + d + ".", replica: everyReplica + d + ".", tally: "tally." + d, orders: "orders." + d}
}

const (
	leaseTTL   = 8 * time.Second // how soon another replica takes over from one that was killed
	leaseRenew = keepEvery / 2   // so that every other renewal coincides with other periodic requests
)

// Pause is an operator's order to stop consumption on every replica.
type Pause struct {
	Reason string     `json:"reason"`
	By     string     `json:"by,omitempty"` // who paused, as text; absent: written by an older version
	Since  time.Time  `json:"since"`
	Until  *time.Time `json:"until"` // nil: until resumed
}

// everyReplica is the key prefix of the presence records of all deployments on the account.
const everyReplica = "replica."

// Replicas is the state that the replicas of one deployment share in UNRESTRICT_STATE: the operator's pause, the leases and
// the presence records. It also keeps an estimate of the broker's clock.
type Replicas struct {
	state *stream.Bucket
	id    string
	keys  stateKeys
	log   *zap.Logger

	created       time.Time     // when the bucket was created; used by the goroutine that follows it only
	presenceStale chan struct{} // has a token when this replica's presence record may be out of date

	conn       *nats.Conn
	withDenial func(error) error // adds to an error what the broker denied meanwhile
	stored     chan struct{}     // has a token when a presence record of this replica was stored

	mu sync.Mutex
	touch
	known   bool // pause and peers were read at least once
	pause   *Pause
	peers   map[string]Presence // of the whole account, without this process, by key; never modified in place
	changed chan struct{}
	offset  time.Duration // the broker's clock minus ours

	unleased time.Time // since when this replica can neither take a lease nor read who has it; zero: it can
	noLease  error     // why it can't
}

// NewReplicas is the shared state of the deployment; call it after Provision. id is this process's.
func (b *Broker) NewReplicas(id string) *Replicas {
	return &Replicas{
		state: b.state, id: id, keys: b.cfg.Names.stateKeys(), log: b.log, conn: b.nc, withDenial: b.withDenial,
		changed: make(chan struct{}), presenceStale: b.presenceStale, stored: make(chan struct{}, 1),
	}
}

// OpenReplicas is NewReplicas for a command that pauses or resumes. It needs only the state bucket, and creates it if it is
// missing and create is true. If the bucket is missing and not created, the error is IsMissing.
func (b *Broker) OpenReplicas(ctx context.Context, create bool) (*Replicas, error) {
	_, err := b.open(ctx, "KV_"+StateBucket)
	if IsMissing(err) && create {
		err = b.createStream(ctx, b.topology.state)
	}
	if err != nil {
		return nil, err
	}
	return b.NewReplicas(""), nil
}

// Run follows the pause and the other replicas, and publishes this replica's presence record, which present returns, every few
// seconds until ctx ends.
func (r *Replicas) Run(ctx context.Context, present func() Presence) error {
	r.mu.Lock()
	r.lastUpdate = time.Now() // updates are expected from now on
	r.mu.Unlock()
	var running sync.WaitGroup
	running.Go(func() { r.heartbeat(ctx, present) })
	defer running.Wait()
	status := r.conn.StatusChanged(nats.DISCONNECTED, nats.RECONNECTING, nats.CLOSED)
	defer r.conn.RemoveStatusListener(status)
	for {
		err := r.follow(ctx, status)
		if errors.Is(err, stream.ErrRecreated) {
			r.restorePause(ctx)
		}
		if ctx.Err() == nil && r.watchEnded(err) && r.conn.IsConnected() {
			r.log.Warn("the operator's pause and the other replicas are not followed for the moment", zap.Error(err))
		}
		if wait(ctx, time.Second/2) != nil {
			return nil
		}
	}
}

// restorePause writes the operator's pause into a bucket that was recreated, unless it has a pause already. Until Keep has
// inspected the new bucket, writes from this process fail. If they fail for longer than this retries, other replicas may write
// the pause.
func (r *Replicas) restorePause(ctx context.Context) {
	p := r.Paused()
	if p == nil {
		return
	}
	value, err := json.Marshal(p)
	if err != nil {
		return
	}
	for range 20 {
		_, err := r.state.Save(ctx, ledger.Write{Key: r.keys.pause, Value: value})
		if err == nil || errors.Is(err, ledger.ErrConflict) || wait(ctx, time.Second/4) != nil {
			return
		}
	}
}

// follow watches the pause and all presence records, until the watch can't be relied on. The state of an earlier watch stays
// valid until the new one has delivered all present values.
func (r *Replicas) follow(ctx context.Context, status <-chan nats.Status) error {
	for range len(status) {
		<-status // changes that ended the last follow
	}
	if !r.conn.IsConnected() {
		return nats.ErrConnectionReconnecting
	}
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return r.watch(ctx) })
	g.Go(func() error { return r.superviseWatch(ctx, status) })
	return g.Wait()
}

func (r *Replicas) watch(ctx context.Context) error {
	var pause *Pause
	peers, complete := map[string]Presence{}, false
	update := func() {
		if complete {
			r.update(pause, peers)
		}
	}
	info, err := r.state.Info(ctx)
	if err != nil {
		return err
	}
	if err := stream.Same(info, &r.created); err != nil {
		return err
	}
	synced := func() { complete = true; update() }
	return r.state.Watch(ctx, []string{r.keys.pause, everyReplica + ">"}, synced, func(key string, rec ledger.Record) {
		switch {
		case key == r.keys.pause:
			if pause = nil; rec.Value != nil {
				pause = readPause(rec.Value, rec.Written)
			}
		case rec.Value == nil:
			delete(peers, key)
		case !strings.HasSuffix(key, "."+r.id):
			peers[key] = readPresence(rec.Value, rec.Written)
		}
		update()
	})
}

func (r *Replicas) update(pause *Pause, peers map[string]Presence) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if (r.pause == nil) != (pause == nil) {
		r.RefreshPresence()
	}
	r.known, r.pause, r.peers, r.lastUpdate = true, pause, maps.Clone(peers), time.Now()
	close(r.changed)
	r.changed = make(chan struct{})
}

// readPause decodes a pause. A value that it does not understand counts as a pause: a newer version may have written it.
func readPause(value []byte, written time.Time) *Pause {
	p := &Pause{}
	if err := json.Unmarshal(value, p); err != nil {
		return &Pause{Reason: "paused by an entry that is not understood; `worker resume` removes it", Since: written}
	}
	return p
}

func (p *Pause) ended() bool { return p.Until != nil && !time.Now().Before(*p.Until) }

// Paused is the operator's pause; nil: consumption is not paused.
func (r *Replicas) Paused() *Pause {
	r.mu.Lock()
	defer r.mu.Unlock()
	if p := r.pause; p != nil && !p.ended() {
		return p
	}
	return nil
}

// Unpaused blocks during the operator's pause, and until it is known whether there is one: a replica may start during a pause.
func (r *Replicas) Unpaused(ctx context.Context) error {
	for {
		r.mu.Lock()
		known, changed := r.known, r.changed
		r.mu.Unlock()
		if known && r.Paused() == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-changed:
		case <-time.After(time.Second): // a pause may end by its time
		}
	}
}

// Pause stops consumption on every replica, including those that start later.
func (r *Replicas) Pause(ctx context.Context, p Pause) error {
	value, err := json.Marshal(p)
	if err != nil {
		return err
	}
	if err := r.state.Put(ctx, r.keys.pause, value, 0); err != nil {
		return fmt.Errorf("write the pause: %w", err)
	}
	return nil
}

// Resume ends the operator's pause.
func (r *Replicas) Resume(ctx context.Context) error {
	if err := r.state.Purge(ctx, r.keys.pause); err != nil {
		return fmt.Errorf("remove the pause: %w", err)
	}
	return nil
}

// Now is this machine's estimate of the broker's clock.
func (r *Replicas) Now() time.Time {
	r.mu.Lock()
	defer r.mu.Unlock()
	return time.Now().Add(r.offset)
}

// Measure asks the broker for its time, and updates the estimate of its clock.
func (r *Replicas) Measure(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, stream.Timeout)
	defer cancel()
	before := time.Now()
	info, err := r.state.Info(ctx)
	if err != nil {
		return fmt.Errorf("ask for the broker's time: %w", err)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.offset = info.TimeStamp.Sub(before.Add(time.Since(before) / 2))
	return nil
}

// Tick waits until the time is a whole multiple of d; it returns an error if ctx ends first.
func Tick(ctx context.Context, d time.Duration) error { return wait(ctx, stream.UntilTick(d)) }

// wait waits for d; it returns an error if ctx ends first.
func wait(ctx context.Context, d time.Duration) error {
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-time.After(d):
		return nil
	}
}
