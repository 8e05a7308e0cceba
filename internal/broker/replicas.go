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

	"github.com/nats-io/nats.go/jetstream"
	"go.uber.org/zap"

	"example.com/unrestrict-worker/internal/ledger"
)

// stateKeys are a deployment's keys in UNRESTRICT_STATE. The budget's stand beside them and are the account's.
type stateKeys struct{ pause, lease, replica, tally string }

// stateKeys keeps two deployments on one account apart, as their request streams do.
func (n Names) stateKeys() stateKeys {
	d := ledger.DeploymentDigest(n.Stream)
	return stateKeys{pause: "pause." + d, lease: "lease." + d + ".", replica: everyReplica + d + ".", tally: "tally." + d}
}

const (
	leaseTTL   = 8 * time.Second // how soon another replica takes over from one that was killed
	leaseRenew = 2 * time.Second
)

// Pause is an operator's order to stop consumption on every replica.
type Pause struct {
	Reason string     `json:"reason"`
	Since  time.Time  `json:"since"`
	Until  *time.Time `json:"until"` // nil: until resumed
}

// everyReplica begins the keys of what replicas say of themselves, of all deployments on the account.
const everyReplica = "replica."

// Replicas is what the replicas of one deployment tell each other through UNRESTRICT_STATE: the operator's pause, who
// holds a lease, and who is there. It also keeps an estimate of the broker's clock.
type Replicas struct {
	store *bucketStore
	kv    jetstream.KeyValue
	state jetstream.Stream
	id    string
	keys  stateKeys
	log   *zap.Logger

	mu      sync.Mutex
	known   bool // what follows was read at least once
	pause   *Pause
	peers   map[string]Presence // of the whole account but this process, by key; never changed in place
	changed chan struct{}
	offset  time.Duration // broker's clock less ours
}

// NewReplicas opens the shared state after Provision; id is this process's.
func (b *Broker) NewReplicas(ctx context.Context, id string) (*Replicas, error) {
	stream, err := b.js.Stream(ctx, "KV_"+StateBucket)
	if err != nil {
		return nil, fmt.Errorf("bucket %s: %w", StateBucket, err)
	}
	return &Replicas{store: newBucketStore(b.js, StateBucket), kv: b.State(), state: stream, id: id, keys: b.cfg.Names.stateKeys(), log: b.log, changed: make(chan struct{})}, nil
}

// Run follows the pause and says every few seconds that this replica is there, with what present returns, until ctx ends.
func (r *Replicas) Run(ctx context.Context, present func() Presence) error {
	var there sync.WaitGroup
	there.Go(func() { r.beThere(ctx, present) })
	defer there.Wait()
	for {
		if err := r.follow(ctx); err != nil && ctx.Err() == nil {
			r.log.Warn("the operator's pause and the other replicas are not followed for the moment", zap.Error(err))
		}
		if wait(ctx, time.Second) != nil {
			return nil
		}
	}
}

// follow watches the pause and what all replicas say of themselves. What was known stays so until the watch has told all
// that there is.
func (r *Replicas) follow(ctx context.Context) error {
	w, err := r.kv.WatchFiltered(ctx, []string{r.keys.pause, everyReplica + ">"})
	if err != nil {
		return fmt.Errorf("watch the bucket %s: %w", StateBucket, err)
	}
	defer func() { _ = w.Stop() }()
	var pause *Pause
	peers := map[string]Presence{}
	for told := false; ; {
		select {
		case <-ctx.Done():
			return nil
		case e, ok := <-w.Updates():
			switch {
			case !ok:
				return errors.New("the watch ended")
			case e == nil:
				told = true
			case e.Key() == r.keys.pause:
				if pause = nil; e.Operation() == jetstream.KeyValuePut {
					pause = readPause(e.Value(), e.Created())
				}
			case e.Operation() != jetstream.KeyValuePut:
				delete(peers, e.Key())
			case !strings.HasSuffix(e.Key(), "."+r.id):
				peers[e.Key()] = readPresence(e.Value(), e.Created())
			}
			if told {
				r.know(pause, peers)
			}
		}
	}
}

func (r *Replicas) know(pause *Pause, peers map[string]Presence) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.known, r.pause, r.peers = true, pause, maps.Clone(peers)
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
		tick := time.NewTimer(time.Second) // a pause with an end
		select {
		case <-ctx.Done():
			tick.Stop()
			return context.Cause(ctx)
		case <-changed:
		case <-tick.C:
		}
		tick.Stop()
	}
}

// Pause stops consumption on every replica, also on those that start later.
func (r *Replicas) Pause(ctx context.Context, p Pause) error {
	value, err := json.Marshal(p)
	if err != nil {
		return err
	}
	if _, err := r.kv.Put(ctx, r.keys.pause, value); err != nil {
		return fmt.Errorf("write the pause: %w", err)
	}
	return nil
}

// Resume ends the operator's pause.
func (r *Replicas) Resume(ctx context.Context) error {
	if err := r.kv.Purge(ctx, r.keys.pause); err != nil {
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
	ctx, cancel := context.WithTimeout(ctx, apiTimeout)
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

func wait(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-t.C:
		return nil
	}
}
