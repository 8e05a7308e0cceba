package remediation

import (
	"context"
	"sync"
	"time"

	"go.uber.org/zap"
)

// Fault is why this replica has stopped pulling: something that is no request's own fault.
type Fault struct {
	Code   string // a word for unrestrict_paused{reason}
	Reason string // a sentence that names the fix
	Since  time.Time
}

// Gate is the system pause of one replica (contract §6.4). While a fault is on, one message at a time is let through
// as a probe, with growing delay; an answer that shows the fault gone opens the gate again. It knows nothing of the
// pause that an operator asks for, nor of the budget.
type Gate struct {
	Initial, Max time.Duration // delay before the first probe, and the longest
	Log          *zap.Logger   // of what closes and opens it

	mu      sync.Mutex
	fault   *Fault
	suspect bool // a first failure is being looked into: nobody else starts a call meanwhile
	delay   time.Duration
	probeAt time.Time
	probing bool
	probe   string              // the request that the probe under way may call for
	met     map[string]struct{} // requests that met the fault
	passed  int                 // how many of those were passed over since the last probe that tried
	served  time.Time           // when an answer last showed that the API takes calls
	changed chan struct{}
}

// NewGate returns an open gate.
func NewGate(initial, longest time.Duration) *Gate {
	return &Gate{Initial: initial, Max: longest, Log: zap.NewNop(), met: map[string]struct{}{}, changed: make(chan struct{})}
}

func (g *Gate) signal() {
	close(g.changed)
	g.changed = make(chan struct{})
}

// Fault closes the gate, or lengthens the delay to the next probe when it is closed already.
func (g *Gate) Fault(code, reason string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.suspect = false
	now := time.Now()
	switch {
	case g.fault == nil:
		g.fault = &Fault{Code: code, Reason: reason, Since: now}
		g.delay = g.Initial
		g.tell()
	case g.probing || now.After(g.probeAt):
		changed := g.fault.Code != code
		g.fault.Code, g.fault.Reason = code, reason
		if changed {
			g.tell()
		}
		g.delay = min(2*g.delay, g.Max)
	default: // another call that was under way when the fault was seen
		g.signal()
		return
	}
	g.probing, g.probe = false, ""
	g.probeAt = now.Add(g.delay)
	g.signal()
}

// tell logs the fault that is on; the caller holds mu, so that the lines come in the order of what they tell.
func (g *Gate) tell() {
	g.Log.Error("no requests are taken but for probes", zap.String("fault", g.fault.Code), zap.String("why", g.fault.Reason))
}

// Healthy opens the gate: an answer showed that the API takes calls of this replica.
func (g *Gate) Healthy() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.served = time.Now()
	g.open()
}

// HealthyAgain opens the gate if the fault has the given code: its cause is known to be gone.
func (g *Gate) HealthyAgain(code string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.fault != nil && g.fault.Code == code {
		g.open()
	}
}

// open ends whatever holds calls back; the caller holds mu.
func (g *Gate) open() {
	if g.fault == nil && !g.suspect {
		return
	}
	if g.fault != nil {
		g.Log.Info("the fault is gone: requests are taken again", zap.String("fault", g.fault.Code), zap.Duration("after", time.Since(g.fault.Since)))
	}
	g.fault, g.suspect, g.probing, g.probe, g.passed = nil, false, false, "", 0
	clear(g.met)
	g.signal()
}

// lastServed is when the API took a call of this replica last, anybody's; zero: never.
func (g *Gate) lastServed() time.Time {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.served
}

// Suspect holds new calls back while the caller finds out, in seconds, whether the API is reachable at all.
func (g *Gate) Suspect(on bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.suspect != on {
		g.suspect = on
		g.signal()
	}
}

// Current is the fault that is on.
func (g *Gate) Current() (Fault, bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.fault == nil {
		return Fault{}, false
	}
	return *g.fault, true
}

// HandBack is how long a message that met the fault stays away: longer than until the next probe, so that the probe
// is another request where there is one.
func (g *Gate) HandBack() time.Duration {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.away()
}

func (g *Gate) away() time.Duration {
	return max(time.Until(g.probeAt), 0) + g.delay/2 + time.Second/2
}

// Admit blocks until a message may be pulled. probe says that it is the one that tries whether the fault is gone;
// the caller then calls Probed when its handler has returned.
func (g *Gate) Admit(ctx context.Context) (probe bool, err error) {
	for {
		g.mu.Lock()
		open := g.fault == nil && !g.suspect
		due := g.fault != nil && !g.probing && !time.Now().Before(g.probeAt)
		if due {
			g.probing = true
		}
		wait, changed := time.Until(g.probeAt), g.changed
		if g.fault == nil || g.probing {
			wait = time.Hour // until something changes
		}
		g.mu.Unlock()
		if open || due {
			return due, nil
		}
		timer := time.NewTimer(max(wait, time.Millisecond))
		select {
		case <-ctx.Done():
			timer.Stop()
			return false, context.Cause(ctx)
		case <-changed:
			timer.Stop()
		case <-timer.C:
		}
	}
}

// Probed ends a probe that neither met the fault nor showed it gone (a duplicate, a malformed message): another one may follow.
func (g *Gate) Probed() {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.probing {
		g.probing, g.probe = false, ""
		g.signal()
	}
}

// permits says whether a call for a request may be begun, else how long its message is to stay away. While a fault is
// on only the probe's may. A probe that met the fault before is passed over until all those were: it may be the
// request's own, and the broker gives out messages that come again before those that wait.
func (g *Gate) permits(key string, probe bool) (wait time.Duration, ok bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	switch _, met := g.met[key]; {
	case g.fault == nil:
		return 0, true
	case !probe:
		return g.away(), false
	case g.probe == key: // it was let through before
		return 0, true
	case met && g.passed < len(g.met):
		g.passed++
		return min(time.Duration(len(g.met))*time.Second, g.Max), false
	}
	g.passed, g.probe = 0, key
	return 0, true
}

// meets notes that a request met the fault that is on.
func (g *Gate) meets(key string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.fault == nil {
		return
	}
	if len(g.met) >= mostMet {
		clear(g.met)
	}
	g.met[key] = struct{}{}
}

const mostMet = 1000

// settled waits while somebody else's first failure is being looked into.
func (g *Gate) settled(ctx context.Context) error {
	for {
		g.mu.Lock()
		suspect, changed := g.suspect, g.changed
		g.mu.Unlock()
		if !suspect {
			return nil
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-changed:
		}
	}
}
