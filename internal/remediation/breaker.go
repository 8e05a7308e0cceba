package remediation

import (
	"context"
	"sync"
	"time"

	"go.uber.org/zap"
)

// Fault is why this replica has stopped pulling: a fault that no single request causes.
type Fault struct {
	Code   string // a word for unrestrict_paused{reason}
	Reason string // a sentence that names the fix
	Since  time.Time
}

// Breaker is the circuit breaker of one replica (README, promise 4: the system pause). A fault trips it. While it is open,
// it admits one message at a time as a probe, with a growing delay. An answer that shows that the fault is gone resets it.
// It knows neither the operator's pause nor the budget.
type Breaker struct {
	Initial, Max time.Duration // delay before the first probe, and the longest
	Log          *zap.Logger   // logs trips and resets

	mu      sync.Mutex
	fault   *Fault
	onHold  bool // one handler tests whether the API is reachable; no other starts a call meanwhile
	delay   time.Duration
	probeAt time.Time
	probing bool
	probe   string              // entry key of the request that the current probe may call for
	met     map[string]struct{} // entry keys of requests that met the fault
	passed  int                 // how many of those were passed over since the last probe that called
	seen    time.Time           // when a request last met the fault
	served  time.Time           // when an answer last showed that the API takes calls
	changed chan struct{}
}

// NewBreaker returns a closed breaker.
func NewBreaker(initial, longest time.Duration) *Breaker {
	return &Breaker{Initial: initial, Max: longest, Log: zap.NewNop(), met: map[string]struct{}{}, changed: make(chan struct{})}
}

func (b *Breaker) signal() {
	close(b.changed)
	b.changed = make(chan struct{})
}

// Trip opens the breaker. If it is open already, it lengthens the delay to the next probe.
func (b *Breaker) Trip(code, reason string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.onHold = false
	now := time.Now()
	b.seen = now
	switch {
	case b.fault == nil:
		b.fault = &Fault{Code: code, Reason: reason, Since: now}
		b.delay = b.Initial
		b.logFault()
	case b.probing || now.After(b.probeAt):
		changed := b.fault.Code != code
		b.fault.Code, b.fault.Reason = code, reason
		if changed {
			b.logFault()
		}
		b.delay = min(2*b.delay, b.Max)
	default: // another call that was under way when the breaker tripped
		b.signal()
		return
	}
	b.probing, b.probe = false, ""
	b.probeAt = now.Add(b.delay)
	b.signal()
}

// logFault logs the current fault. The caller holds mu, so that the lines appear in the order of the events.
func (b *Breaker) logFault() {
	b.Log.Error("no requests are taken but for probes", zap.String("fault", b.fault.Code), zap.String("why", b.fault.Reason))
}

// Reset closes the breaker, after an answer that shows that the API takes this replica's calls.
func (b *Breaker) Reset() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.served = time.Now()
	if b.fault != nil && b.fault.Code == faultPublish { // the API's answer does not show that the streams work
		b.onHold = false
		b.signal()
		return
	}
	b.reset()
}

// ResetFrom closes the breaker if its fault has the given code, whose cause is known to be gone.
func (b *Breaker) ResetFrom(code string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.fault != nil && b.fault.Code == code {
		b.reset()
	}
}

// reset closes the breaker. The caller holds mu.
func (b *Breaker) reset() {
	if b.fault == nil && !b.onHold {
		return
	}
	if b.fault != nil {
		b.Log.Info("the fault is gone: requests are taken again", zap.String("fault", b.fault.Code), zap.Duration("after", time.Since(b.fault.Since)))
	}
	b.fault, b.onHold, b.probing, b.probe, b.passed = nil, false, false, "", 0
	clear(b.met)
	b.signal()
}

// lastServed is when the API last took a call of this replica, for any request; zero: never.
func (b *Breaker) lastServed() time.Time {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.served
}

// lastMet is when a request last met the current fault.
func (b *Breaker) lastMet() time.Time {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.seen
}

// HoldOthers delays other handlers' calls while the caller tests, within seconds, whether the API is reachable.
func (b *Breaker) HoldOthers(on bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.onHold != on {
		b.onHold = on
		b.signal()
	}
}

// Current is the current fault.
func (b *Breaker) Current() (Fault, bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.fault == nil {
		return Fault{}, false
	}
	return *b.fault, true
}

// NakDelay is the redelivery delay of a message that met the fault. It ends after the next probe, so that the probe is
// another request if there is one.
func (b *Breaker) NakDelay() time.Duration {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.nakDelay()
}

func (b *Breaker) nakDelay() time.Duration {
	return max(time.Until(b.probeAt), 0) + b.delay/2 + time.Second/2
}

// Admit blocks until a message may be pulled. If probe is true, that message is the probe: the caller must call Probed when
// its handler has returned.
func (b *Breaker) Admit(ctx context.Context) (probe bool, err error) {
	for {
		b.mu.Lock()
		through := b.fault == nil && !b.onHold
		due := b.fault != nil && !b.probing && !time.Now().Before(b.probeAt)
		if due {
			b.probing = true
		}
		wait, changed := time.Until(b.probeAt), b.changed
		if b.fault == nil || b.probing {
			wait = time.Hour // until something changes
		}
		b.mu.Unlock()
		if through || due {
			return due, nil
		}
		if err := await(ctx, changed, max(wait, time.Millisecond)); err != nil {
			return false, err
		}
	}
}

// await waits for a change, at most for d.
func await(ctx context.Context, changed <-chan struct{}, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-changed:
	case <-timer.C:
	}
	return nil
}

func sleep(ctx context.Context, d time.Duration) error { return await(ctx, nil, d) }

// Probed ends a probe. If the probe neither met the fault nor showed it gone (a duplicate, a malformed message), another may
// follow at once.
func (b *Breaker) Probed() {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.probing {
		b.probing, b.probe = false, ""
		b.signal()
	}
}

// permits reports whether a call for a request may begin, and otherwise the delay of its nak. While the breaker is open,
// only the probe may call. A probe whose request met the fault before is passed over until all such requests were: the fault
// may be the request's own, and the broker delivers redelivered messages before new ones.
func (b *Breaker) permits(key string, probe bool) (wait time.Duration, ok bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	switch _, met := b.met[key]; {
	case b.fault == nil:
		return 0, true
	case !probe:
		return b.nakDelay(), false
	case b.probe == key: // it was permitted before
		return 0, true
	case met && b.passed < len(b.met):
		b.passed++
		return min(time.Duration(len(b.met))*time.Second, b.Max), false
	}
	b.passed, b.probe = 0, key
	return 0, true
}

// recordMet records that a request met the present fault.
func (b *Breaker) recordMet(key string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.fault == nil {
		return
	}
	if len(b.met) >= maxMet {
		clear(b.met)
	}
	b.met[key] = struct{}{}
}

const maxMet = 1000

// awaitFirst waits while another handler tests whether the API is reachable (HoldOthers).
func (b *Breaker) awaitFirst(ctx context.Context) error {
	for {
		b.mu.Lock()
		held, changed := b.onHold, b.changed
		b.mu.Unlock()
		if !held {
			return nil
		}
		if err := await(ctx, changed, time.Hour); err != nil {
			return err
		}
	}
}
