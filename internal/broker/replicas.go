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

// stateKeys are a deployment's keys in UNRESTRICT_STATE. The budget's stand beside them and are the account's.
type stateKeys struct{ pause, answer, lease, replica, tally, orders string }

// stateKeys keeps two deployments on one account apart, as their request streams do. What begins with "pause." an operator may
// write (deploy/nats).
func (n Names) stateKeys() stateKeys {
	d := ledger.DeploymentDigest(n.Stream)
	return stateKeys{pause: "pause." + d, answer: "pause.orders-" + d, lease: "lease." + d + ".", replica: everyReplica + d + ".", tally: "tally." + d, orders: "orders." + d}
}

const (
	leaseTTL   = 8 * time.Second // how soon another replica takes over from one that was killed
	leaseRenew = keepEvery / 2   // so that every other one comes with what else is done now and then
)

// Pause is an operator's order to stop consumption on every replica.
type Pause struct {
	Reason string     `json:"reason"`
	By     string     `json:"by,omitempty"` // whoever paused, in words; absent: an older version does not say
	Since  time.Time  `json:"since"`
	Until  *time.Time `json:"until"` // nil: until resumed
}

// everyReplica begins the keys of what replicas say of themselves, of all deployments on the account.
const everyReplica = "replica."

// Replicas is what the replicas of one deployment tell each other through UNRESTRICT_STATE: the operator's pause, who
// holds a lease, and who is there. It also keeps an estimate of the broker's clock.
type Replicas struct {
	state *stream.Bucket
	id    string
	keys  stateKeys
	log   *zap.Logger

	created  time.Time     // of the goroutine that follows the bucket: when it was
	stirring chan struct{} // full when what this replica says of itself may have changed

	conn  *nats.Conn
	named func(error) error // an error with what the broker denied meanwhile
	spoke chan struct{}     // full when a word of this replica was stored

	mu sync.Mutex
	touch
	known   bool // what follows was read at least once
	pause   *Pause
	peers   map[string]Presence // of the whole account but this process, by key; never changed in place
	changed chan struct{}
	offset  time.Duration // broker's clock less ours

	unleased time.Time // since when a lease can't be taken, and nobody is seen to have it; zero: that is not so
	noLease  error     // why
}

// NewReplicas is the shared state of the deployment, after Provision; id is this process's.
func (b *Broker) NewReplicas(id string) *Replicas {
	return &Replicas{
		state: b.state, id: id, keys: b.cfg.Names.stateKeys(), log: b.log, conn: b.nc, named: b.named,
		changed: make(chan struct{}), stirring: b.stirring, spoke: make(chan struct{}, 1),
	}
}

// OpenReplicas is NewReplicas for a command that pauses or resumes: of Provision it needs, and makes if create says so, the
// state bucket alone. One that is missing and is not made is IsMissing.
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

// Run follows the pause and says every few seconds that this replica is there, with what present returns, until ctx ends.
func (r *Replicas) Run(ctx context.Context, present func() Presence) error {
	r.mu.Lock()
	r.heard = time.Now() // from now on it should be
	r.mu.Unlock()
	var there sync.WaitGroup
	there.Go(func() { r.heartbeat(ctx, present) })
	defer there.Wait()
	status := r.conn.StatusChanged(nats.DISCONNECTED, nats.RECONNECTING, nats.CLOSED)
	defer r.conn.RemoveStatusListener(status)
	for {
		err := r.follow(ctx, status)
		if errors.Is(err, stream.ErrMadeAnew) {
			r.restorePause(ctx)
		}
		if ctx.Err() == nil && r.deafened(err) && r.conn.IsConnected() {
			r.log.Warn("the operator's pause and the other replicas are not followed for the moment", zap.Error(err))
		}
		if wait(ctx, time.Second/2) != nil {
			return nil
		}
	}
}

// restorePause writes the operator's pause into a bucket that was made anew, unless somebody has paused there already. Until
// Keep has looked at the new bucket it takes nothing from here. What fails for longer leaves the other replicas to do it.
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

// follow watches the pause and what all replicas say of themselves, until it can't be relied on. What was known stays so
// until the watch has told all that there is.
func (r *Replicas) follow(ctx context.Context, status <-chan nats.Status) error {
	for range len(status) {
		<-status // of the connection that ended the last follow
	}
	if !r.conn.IsConnected() {
		return nats.ErrConnectionReconnecting
	}
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return r.watch(ctx) })
	g.Go(func() error { return r.listen(ctx, status) })
	return g.Wait()
}

func (r *Replicas) watch(ctx context.Context) error {
	var pause *Pause
	peers, told := map[string]Presence{}, false
	know := func() {
		if told {
			r.know(pause, peers)
		}
	}
	info, err := r.state.Info(ctx)
	if err != nil {
		return err
	}
	if err := stream.Same(info, &r.created); err != nil {
		return err
	}
	synced := func() { told = true; know() }
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
		know()
	})
}

func (r *Replicas) know(pause *Pause, peers map[string]Presence) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if (r.pause == nil) != (pause == nil) {
		r.Stir()
	}
	r.known, r.pause, r.peers, r.heard = true, pause, maps.Clone(peers), time.Now()
	close(r.changed)
	r.changed = make(chan struct{})
}

// readPause never takes what it does not understand for no pause: a newer version may have written it.
func readPause(value []byte, written time.Time) *Pause {
	p := &Pause{}
	if err := json.Unmarshal(value, p); err != nil {
		return &Pause{Reason: "paused by an entry that is not understood; `worker resume` removes it", Since: written}
	}
	return p
}

func (p *Pause) over() bool { return p.Until != nil && !time.Now().Before(*p.Until) }

// Paused is the operator's pause, nil if none.
func (r *Replicas) Paused() *Pause {
	r.mu.Lock()
	defer r.mu.Unlock()
	if p := r.pause; p != nil && !p.over() {
		return p
	}
	return nil
}

// Unpaused blocks while the operator's pause is on, and until it is known whether it is: a replica may start amid one.
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
		case <-time.After(time.Second): // a pause with an end
		}
	}
}

// Pause stops consumption on every replica, also on those that start later.
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

// Measure asks the broker for its time.
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

// Tick waits for the next whole multiple of d; an error when ctx ended first.
func Tick(ctx context.Context, d time.Duration) error { return wait(ctx, stream.UntilTick(d)) }

// wait waits for a while; an error when ctx ended first.
func wait(ctx context.Context, d time.Duration) error {
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-time.After(d):
		return nil
	}
}
