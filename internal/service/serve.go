package service

import (
	"context"
	"time"

	"golang.org/x/sync/errgroup"

	"example.com/unrestrict-worker/internal/broker"
	"example.com/unrestrict-worker/internal/health"
)

// serve runs all parts but the consumer.
func (s *Service) serve(ctx context.Context, p *parts) *parallel {
	return runAll(ctx, map[string]func(context.Context) error{
		"streams":        s.Broker.Keep,
		"call budget":    p.rates.Run,
		"budget metrics": p.Budget.Run,
		"shared state":   func(ctx context.Context) error { return p.replicas.Run(ctx, p.present) },
		"following":      func(ctx context.Context) error { return p.replicas.Hold(ctx, "tracker", p.lead) },
		"orders":         p.control.Run,
		"refusals":       p.refusals,
		"token":          p.keepToken,
		"rule files":     s.WatchRules,
		"tally":          p.Tally.Run,
		"page":           func(ctx context.Context) error { return p.digest.Run(ctx, s.Broker) },
		"watch":          func(ctx context.Context) error { return s.watchQueue(ctx, p) },
	})
}

// lead runs on the replica that holds the lease: it follows accepted actions, records orders, and ends what is withdrawn.
func (p *parts) lead(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return p.Tracker.Run(ctx) })
	g.Go(func() error { return p.control.Record(ctx, p.record) })
	g.Go(func() error { return p.withdraw(ctx, p.control, p.Tracker.Unpulled) })
	return g.Wait()
}

func (p *parts) close() {
	p.client.Close()
	p.tokens.Close()
}

// How often keepToken checks.
const (
	tokenInterval = 10 * time.Second // while there is a token
	tokenRetry    = 2 * time.Second
)

// keepToken trips the breaker while there is no token, before a request fails for it, and resets it when there is one.
func (p *parts) keepToken(ctx context.Context) error {
	for {
		every := tokenInterval
		if err := p.tokens.Check(ctx); err == nil {
			if !p.tokenSeen.Swap(true) {
				p.replicas.RefreshPresence()
			}
			p.breaker.ResetFrom(health.Token)
		} else if ctx.Err() == nil {
			p.breaker.Trip(health.Token, err.Error())
			p.replicas.RefreshPresence()
			every = tokenRetry
		}
		if broker.Tick(ctx, every) != nil {
			return nil
		}
	}
}

// presence returns this replica's presence record, which is published each second and soon after a change. It also reserves
// some calls for look-ups. If actions are followed, every replica reserves them, always: otherwise the others would spend the
// hour's calls before there is an action to look up, and the tracker could look at none until calls come free.
func (p *parts) presence(s *Service) broker.Presence {
	p.Budget.SetReserve(s.Settings.Track.Enabled || p.Tracker.Following() > 0 || p.shared.Guarding())
	return s.presence()
}

// Pause sleeps for d. It returns false if ctx ended first.
func Pause(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-t.C:
		return true
	}
}
