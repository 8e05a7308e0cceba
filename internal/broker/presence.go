package broker

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"example.com/unrestrict-worker/internal/broker/stream"
	"example.com/unrestrict-worker/internal/health"
)

const (
	presenceEvery = 5 * time.Second  // between two presence records of a replica
	presenceTTL   = 15 * time.Second // how long that of a dead one still counts
)

// Presence is what a replica says of itself every few seconds.
type Presence struct {
	ID     string    `json:"-"` // whose word it is
	Ready  bool      `json:"ready"`
	Code   string    `json:"code,omitempty"`   // why not, in a word
	Reason string    `json:"reason,omitempty"` // and in a sentence
	Since  time.Time `json:"since,omitzero"`   // not ready since
	// Conditions say the same in full, and what is impaired; a version before has none.
	Conditions []health.Condition `json:"conditions,omitempty"`
	DryRun     bool               `json:"dryRun,omitempty"`
	InFlight   int                `json:"inFlight"`
	Hands      []int              `json:"hands,omitempty"` // requests in hand, and handed back with a delay that runs; a version before does not say
	Followed   int                `json:"followed"`
	Awaiting   int                `json:"awaiting,omitempty"` // runs that await approval
	Limits     map[string]int     `json:"limits,omitempty"`   // of the call budget, by window: the smallest of all replicas' holds
	Reserve    map[string]int     `json:"reserve,omitempty"`  // calls of each window that are left to look-ups
	// UrgentReserve is the percentage of each window that normal leaves to urgent; a version before has none, and no lanes.
	UrgentReserve *int   `json:"urgentReserve,omitempty"`
	Version       string `json:"version"`
	NotKept       int    `json:"notKept,omitempty"` // dead letters that nobody vouches for: deleted, or not written
	Site
}

// Site is where a replica runs, and whose machines it releases; a version before does not say.
type Site struct {
	Host    string `json:"host,omitempty"`
	API     string `json:"api,omitempty"`     // scheme, host and port
	Tenant  string `json:"tenant,omitempty"`  // of the API's token
	Account string `json:"account,omitempty"` // in NATS
}

// readPresence never takes a replica whose word it does not understand for none.
func readPresence(value []byte, written time.Time) Presence {
	var p Presence
	if json.Unmarshal(value, &p) != nil {
		return Presence{Code: health.NotUnderstood, Reason: "a replica says what is not understood; ask with its version of the worker", Since: written}
	}
	return p
}

// Live tells whether another replica of this deployment is not in dry run.
func (r *Replicas) Live() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	for key, p := range r.peers {
		if strings.HasPrefix(key, r.keys.replica) && !p.DryRun {
			return true
		}
	}
	return false
}

// Hands are how many requests each other replica has in hand, and has handed back with a delay that runs, by its key; known:
// all have said so.
func (r *Replicas) Hands() (all map[string][]int, known bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	all, known = map[string][]int{}, r.known
	for key, p := range r.peers {
		if !strings.HasPrefix(key, r.keys.replica) {
			continue
		}
		if all[key] = p.Hands; len(p.Hands) != 2 {
			return nil, false
		}
	}
	return all, known
}

// Able tells whether another replica of this deployment is ready, and says nothing against its following actions.
func (r *Replicas) Able() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	for key, p := range r.peers {
		if _, fails := health.Has(p.Conditions, health.NotFollowing); strings.HasPrefix(key, r.keys.replica) && p.Ready && !fails {
			return true
		}
	}
	return false
}

// Limits implements rates.Peers.
func (r *Replicas) Limits() (all []map[string]int, known bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	known = r.known
	for _, p := range r.peers {
		if len(p.Limits) > 0 {
			all = append(all, p.Limits)
		}
		known = known && p.Code != health.NotUnderstood
	}
	return all, known
}

// heartbeat reports every few seconds, and soon after something changed: who asks for the status right after a start, a
// resume or the last result is to hear the truth. Nobody else writes this replica's key, so that a word whose
// acknowledgement is lost is just said again.
func (r *Replicas) heartbeat(ctx context.Context, present func() Presence) {
	var said string
	var at time.Time
	for {
		now, look := present(), presenceEvery
		word := fmt.Sprint(now)
		if time.Since(at) >= presenceEvery || word != said && time.Since(at) >= presenceEvery/10 {
			r.report(ctx, now)
			said, at = word, time.Now()
		}
		switch {
		case word != said || now.InFlight > 0:
			look = presenceEvery / 20
		case now.Followed > 0 || !now.Ready: // it ends by itself
			look = presenceEvery / 10
		}
		if err := r.rest(ctx, stream.UntilTick(look)); err != nil {
			last, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
			defer cancel()
			_ = r.state.Purge(last, r.keys.replica+r.id) // behind whatever was said last; lost: that expires
			return
		}
	}
}

// rest waits for so long, or until something is stirring, and then a little for what that changes.
func (r *Replicas) rest(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-t.C:
		return nil
	case <-r.stirring:
		return wait(ctx, presenceEvery/20)
	}
}

// Stir has this replica look soon at what it says of itself.
func (r *Replicas) Stir() { signal(r.stirring) }

// signal fills a channel that has room for one.
func signal(ch chan struct{}) {
	select {
	case ch <- struct{}{}:
	default:
	}
}

// report writes what this replica says of itself, and measures the broker's clock meanwhile. What fails is said again.
func (r *Replicas) report(ctx context.Context, present Presence) {
	ctx, cancel := context.WithTimeout(ctx, apiTimeout)
	defer cancel()
	began := time.Now()
	var g errgroup.Group
	g.Go(func() error { return r.Measure(ctx) })
	g.Go(func() error {
		value, err := json.Marshal(present)
		if err != nil {
			return err
		}
		return r.state.Put(ctx, r.keys.replica+r.id, value, presenceTTL)
	})
	r.spoken(began, g.Wait())
}
