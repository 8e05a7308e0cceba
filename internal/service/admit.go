package service

import (
	"context"
	"slices"
	"time"

	"example.com/unrestrict-worker/internal/health"
	"example.com/unrestrict-worker/internal/message"
)

// The gates that a message waits at before it is pulled.

// quotaContended reports whether requests wait for quota, or did a moment ago.
func (p *parts) quotaContended() bool {
	return p.shared.QuotaAwaited() || slices.ContainsFunc(message.Lanes(), p.starved)
}

// starved reports whether requests of a lane wait in the stream because the budget has no call for it.
func (p *parts) starved(l message.Lane) bool {
	last, ok := p.lastStarved.Load(l)
	return ok && time.Since(last.(time.Time)) < 5*time.Second
}

// quotaOpensIn returns how long until a request that waits for a call can get one; 0: now, or none waits.
func (p *parts) quotaOpensIn() (in time.Duration) {
	for _, l := range slices.Backward(message.Lanes()) {
		d, closed := p.Budget.OpensIn(l)
		if closed {
			return 0
		}
		if d > 0 && (in == 0 || d < in) && (p.starved(l) || p.shared.QuotaAwaited()) {
			in = d
		}
	}
	return in
}

// BesideLive reports whether this replica is in dry run and others are not: a request that it took would end without its call.
func (p *parts) BesideLive() bool { return p.dryRun && p.replicas.Live() }

// outOfTouch returns the condition of a replica that would not notice a pause, or another replica's closure.
func (p *parts) outOfTouch() (c health.Condition, is bool) {
	if c, is = p.replicas.OutOfTouch(); is {
		return c, true
	}
	since, why := p.rates.OutOfTouch()
	if why == nil || time.Since(since) < outOfTouchAfter {
		return c, false
	}
	c = health.New(health.OutOfTouch, "it is not known whether another replica has got a 429: "+why.Error())
	c.Since = since.UTC()
	return c, true
}

// holdsBack reports whether this replica must not begin with a message that was pulled earlier.
func (p *parts) holdsBack() bool {
	_, out := p.outOfTouch()
	return out || p.replicas.Paused() != nil || p.BesideLive()
}

// outOfTouchAfter is longer than a change of the bucket's leader takes. In the meantime the budget itself grants nothing.
const outOfTouchAfter = 10 * time.Second

// inTouch blocks while this replica is out of touch.
func (p *parts) inTouch(ctx context.Context) error {
	for {
		if _, out := p.outOfTouch(); !out {
			return nil
		}
		if !Pause(ctx, time.Second) {
			return context.Cause(ctx)
		}
	}
}

// alone blocks while BesideLive.
func (p *parts) alone(ctx context.Context) error {
	for p.BesideLive() {
		if !Pause(ctx, time.Second) {
			return context.Cause(ctx)
		}
	}
	return nil
}

// budgetOpen blocks while the budget is known to have no call for a lane. In the meantime it records that the lane's requests wait
// in the stream.
func (s *Service) budgetOpen(ctx context.Context, p *parts, l message.Lane) error {
	for {
		d, _ := p.Budget.OpensIn(l)
		if d <= 0 {
			return nil
		}
		if n, err := s.Broker.PendingIn(ctx, l); err == nil && n > 0 {
			p.lastStarved.Store(l, time.Now())
			p.Budget.NoteWaiting(l)
		}
		if !Pause(ctx, min(d, time.Second)) {
			return context.Cause(ctx)
		}
	}
}

// ofAny makes a gate for all lanes.
func ofAny(admit func(context.Context) error) func(context.Context, message.Lane) error {
	return func(ctx context.Context, _ message.Lane) error { return admit(ctx) }
}
