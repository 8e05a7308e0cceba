package remediation

import (
	"cmp"
	"maps"
	"slices"
	"sync"
	"time"

	"example.com/unrestrict-worker/internal/defender"
	"example.com/unrestrict-worker/internal/health"
)

// SharedState is shared by the Submitter, the Tracker and the operator of one process. The zero value is ready.
type SharedState struct {
	calls        sharedLook // looks at actions that calls have created
	restrictions sharedLook // looks at actions that restrict or isolate

	mu            sync.Mutex
	unpublishable map[string]unpublishableRequest // by key
	unclear       map[string]unclearRequest       // by key
	served        time.Time                       // when the API last took a call, for any request
	causes        map[string]health.Condition     // by code
	lapses        map[string]time.Time            // when a cause expires, by code
	waiting       map[string]time.Time            // by key of a request that waits for quota: when it is redelivered at the latest
	guarded       time.Time                       // when the guard last looked
	lastList      time.Time                       // when the API listed actions last
	gather        time.Time                       // until then requests count as waiting for calls to accumulate
}

func (n *SharedState) noteGuard() {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.guarded = time.Now()
}

// noteGathering records that requests wait for calls to accumulate, at most for d; 0: no longer. The accumulated calls are
// used within seconds.
func (n *SharedState) noteGathering(d time.Duration) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.gather = time.Now().Add(d + 5*time.Second)
}

// Guarding reports whether the guard has checked requests in the last minutes, so that calls need look-ups besides.
func (n *SharedState) Guarding() bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return !n.guarded.IsZero() && time.Since(n.guarded) < 2*time.Minute
}

// setCause records a cause that holds up requests or actions.
func (n *SharedState) setCause(code, message string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	c := health.New(code, message)
	if c.Since = time.Now().UTC(); n.causes == nil {
		n.causes = map[string]health.Condition{}
	}
	if old, held := n.causes[code]; held {
		c.Since = old.Since
	}
	n.causes[code] = c
	delete(n.lapses, code)
}

// setCauseAfter is setCause after d, unless it is stopped before.
func (n *SharedState) setCauseAfter(d time.Duration, code, message string) (stop func()) {
	var mu sync.Mutex
	stopped := false
	timer := time.AfterFunc(d, func() {
		mu.Lock()
		defer mu.Unlock()
		if !stopped {
			n.setCause(code, message)
		}
	})
	return func() {
		mu.Lock()
		defer mu.Unlock()
		stopped = true
		timer.Stop()
	}
}

// clearCause records that causes are gone.
func (n *SharedState) clearCause(codes ...string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, code := range codes {
		delete(n.causes, code)
		delete(n.lapses, code)
	}
}

// expireCause makes a cause end after d, unless it is set again.
func (n *SharedState) expireCause(code string, d time.Duration) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.lapses == nil {
		n.lapses = map[string]time.Time{}
	}
	n.lapses[code] = time.Now().Add(d)
}

// listed records whether the API lists actions. A list that it refuses is assumed to be refused for any query.
func (n *SharedState) listed(a *defender.Error) {
	switch {
	case a == nil:
		n.clearCause(health.MayNotList, health.ListRefused)
		n.mu.Lock()
		defer n.mu.Unlock()
		n.lastList = time.Now()
	case a.Class == defender.System && a.StatusCode == 403:
		n.setCause(health.MayNotList, a.Reason)
	case a.Class == defender.Rejected:
		n.setCause(health.ListRefused, "the API refuses the list of actions: "+a.Error())
	}
}

// mayNotList reports whether lists are known to be denied or refused.
func (n *SharedState) mayNotList() bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	_, denied := n.causes[health.MayNotList]
	_, refused := n.causes[health.ListRefused]
	return denied || refused
}

// lastListed is when the API last listed actions for this replica; zero: never.
func (n *SharedState) lastListed() time.Time {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.lastList
}

// Conditions are the causes that Submitter and Tracker have found, besides the fault that tripped the breaker.
func (n *SharedState) Conditions() []health.Condition {
	n.mu.Lock()
	defer n.mu.Unlock()
	for code, at := range n.lapses {
		if !time.Now().Before(at) {
			delete(n.causes, code)
			delete(n.lapses, code)
		}
	}
	all := slices.SortedFunc(maps.Values(n.causes), func(a, b health.Condition) int { return cmp.Compare(a.Code, b.Code) })
	if c, is := n.unpublishableNow(); is {
		all = append(all, c)
	}
	return all
}

// noteQuotaWait records that a request was nakked to wait for quota for d; 0: it no longer waits.
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
	n.waiting[key] = time.Now().Add(d + 30*time.Second) // after that another replica has it
}

// QuotaAwaited reports whether a request that was delivered to this process waits for quota.
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
