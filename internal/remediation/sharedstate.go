package remediation

import (
	"sync"
	"time"
)

// SharedState is what the Submitter, the Tracker and the operator of one process share. The zero value is ready.
type SharedState struct {
	calls        sharedLook // at the actions that calls have made
	restrictions sharedLook // at those that restrict or isolate

	mu      sync.Mutex
	denied  string               // why actions may not be listed; "" while they may be
	waiting map[string]time.Time // requests that wait for quota, and when they are redelivered at the latest
	guarded time.Time            // when the guard was asked last
	gather  time.Time            // until then requests wait for calls to accumulate, or did a moment ago
}

func (n *SharedState) noteGuard() {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.guarded = time.Now()
}

// noteGathering records that requests wait for calls to accumulate, for d at most; 0: no longer. The accumulated calls are
// used within seconds.
func (n *SharedState) noteGathering(d time.Duration) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.gather = time.Now().Add(d + 5*time.Second)
}

// Guarding reports whether requests are held against their machine's newer actions these minutes, so that each call needs
// a look-up beside it.
func (n *SharedState) Guarding() bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return !n.guarded.IsZero() && time.Since(n.guarded) < 2*time.Minute
}

func (n *SharedState) setListing(denied string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.denied = denied
}

// noteQuotaWait records that a request was nakked to wait for quota; 0: it no longer waits.
func (n *SharedState) noteQuotaWait(key string, d time.Duration) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if d <= 0 {
		delete(n.waiting, key)
		return
	}
	if n.waiting == nil {
		n.waiting = map[string]time.Time{}
	}
	n.waiting[key] = time.Now().Add(d + 30*time.Second) // later another replica has it
}

// ListingDenied names the permission that look-ups miss, "" if none.
func (n *SharedState) ListingDenied() string {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.denied
}

// QuotaAwaited reports whether a request that this process has taken waits for quota.
func (n *SharedState) QuotaAwaited() bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	if time.Now().Before(n.gather) {
		return true
	}
	for key, until := range n.waiting {
		if time.Now().Before(until) {
			return true
		}
		delete(n.waiting, key)
	}
	return false
}

// inFlight are the requests that this process is handling. The ledger excludes other processes, this map other handlers.
type inFlight struct {
	mu  sync.Mutex
	now map[string]struct{}
}

func (f *inFlight) enter(key string) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	if _, busy := f.now[key]; busy {
		return false
	}
	if f.now == nil {
		f.now = map[string]struct{}{}
	}
	f.now[key] = struct{}{}
	return true
}

func (f *inFlight) leave(key string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.now, key)
}
