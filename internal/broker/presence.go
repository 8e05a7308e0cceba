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
	presenceTTL   = 15 * time.Second // how long the record of a dead replica still counts
)

// Presence is the presence record that a replica publishes every few seconds.
type Presence struct {
	ID     string    `json:"-"` // of the replica
	Ready  bool      `json:"ready"`
	Code   string    `json:"code,omitempty"`   // why not ready, as a health code
	Reason string    `json:"reason,omitempty"` // why not ready, in a sentence
	Since  time.Time `json:"since,omitzero"`   // not ready since
	// Conditions are all conditions, those that only impair the replica included; older versions have none.
	Conditions  []health.Condition `json:"conditions,omitempty"`
	DryRun      bool               `json:"dryRun,omitempty"`
	InFlight    int                `json:"inFlight"`
	Outstanding []int              `json:"hands,omitempty"` // requests in hand, and requests nakked whose delay still runs; older versions have none
	Followed    int                `json:"followed"`
	Awaiting    int                `json:"awaiting,omitempty"` // runs that await approval
	Limits      map[string]int     `json:"limits,omitempty"`   // of the call budget, by window: the smallest of all replicas holds
	Reserve     map[string]int     `json:"reserve,omitempty"`  // calls of each window that are reserved for look-ups
	// UrgentReserve is the percentage of each window that normal leaves to urgent; older versions have none, and no lanes.
	UrgentReserve *int   `json:"urgentReserve,omitempty"`
	Version       string `json:"version"`
	NotKept       int    `json:"notKept,omitempty"` // unverified dead letters that were deleted, or not written
	Site
}

// Site is where a replica runs, and whose machines it releases; older versions have none.
type Site struct {
	Host    string `json:"host,omitempty"`
	API     string `json:"api,omitempty"`     // scheme, host and port
	Tenant  string `json:"tenant,omitempty"`  // of the API's token
	Account string `json:"account,omitempty"` // in NATS
}

// readPresence decodes a presence record. One that it does not understand still counts as a replica, which is not ready.
func readPresence(value []byte, written time.Time) Presence {
	var p Presence
	if json.Unmarshal(value, &p) != nil {
		return Presence{Code: health.NotUnderstood, Reason: "a replica says what is not understood; ask with its version of the worker", Since: written}
	}
	return p
}

// Live reports whether another replica of this deployment is not in dry run.
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

// Outstanding are how many requests each other replica has in hand, and how many it has nakked whose delay still runs, by the
// replica's key; known: the records of all replicas have these numbers.
func (r *Replicas) Outstanding() (all map[string][]int, known bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	all, known = map[string][]int{}, r.known
	for key, p := range r.peers {
		if !strings.HasPrefix(key, r.keys.replica) {
			continue
		}
		if all[key] = p.Outstanding; len(p.Outstanding) != 2 {
			return nil, false
		}
	}
	return all, known
}

// OtherReady reports whether another replica of this deployment is ready, without a condition that keeps it from following
// actions.
func (r *Replicas) OtherReady() bool {
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

// heartbeat publishes this replica's presence record every few seconds, and soon after a change, so that a status right after a
// start, a resume or the last result is correct. No other process writes this replica's key, so a record whose acknowledgement
// is lost is simply published again.
func (r *Replicas) heartbeat(ctx context.Context, present func() Presence) {
	var published string
	var publishedAt time.Time
	for {
		now, look := present(), presenceEvery
		current := fmt.Sprint(now)
		if time.Since(publishedAt) >= presenceEvery || current != published && time.Since(publishedAt) >= presenceEvery/10 {
			r.report(ctx, now)
			published, publishedAt = current, time.Now()
		}
		switch {
		case current != published || now.InFlight > 0:
			look = presenceEvery / 20
		case now.Followed > 0 || !now.Ready: // this changes without a signal
			look = presenceEvery / 10
		}
		if err := r.rest(ctx, stream.UntilTick(look)); err != nil {
			last, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
			defer cancel()
			_ = r.state.Purge(last, r.keys.replica+r.id) // after the last record; if this fails, that record expires
			return
		}
	}
}

// rest waits for d, or until the record may be out of date; then a little longer, for the change to complete.
func (r *Replicas) rest(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-t.C:
		return nil
	case <-r.presenceStale:
		return wait(ctx, presenceEvery/20)
	}
}

// RefreshPresence makes this replica check soon whether its presence record is out of date.
func (r *Replicas) RefreshPresence() { signal(r.presenceStale) }

// signal puts a token into a channel with a capacity of one, unless it has one.
func signal(ch chan struct{}) {
	select {
	case ch <- struct{}{}:
	default:
	}
}

// report publishes this replica's presence record, and measures the broker's clock meanwhile. After an error, the next
// heartbeat publishes again.
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
	r.reported(began, g.Wait())
}
