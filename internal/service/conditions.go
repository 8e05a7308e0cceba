package service

import (
	"strings"
	"time"

	"example.com/unrestrict-worker/internal/broker"
	"example.com/unrestrict-worker/internal/health"
)

// Conditions returns what keeps requests from being called, or actions from being followed, on this replica, and since when.
// What stops the replica comes first. Every place that shows a worker's state reads it from here: a new cause takes a row in
// health's table and a line in one of the functions below.
func (s *Service) Conditions() []health.Condition {
	seen := s.seen()
	s.Mu.Lock()
	defer s.Mu.Unlock()
	s.conditions = health.Date(s.conditions, seen, time.Now())
	return s.conditions
}

// seen returns the conditions that the parts report now, and those that the watches find and no part explains.
func (s *Service) seen() []health.Condition {
	known, p := s.known()
	if p == nil {
		return known
	}
	looked, overdue := p.Tracker.Overdue()
	found := append(p.out.conditions(known), p.watch.conditions(known, p.Tracker.Following(), looked, overdue)...)
	return append(known, found...)
}

// known returns the conditions that the parts report.
func (s *Service) known() (all []health.Condition, p *parts) {
	b, p, waiting := s.current()
	if b == nil || p == nil {
		return []health.Condition{health.New(health.Broker, waiting)}, nil
	}
	all = append(all, ofBroker(b)...)
	all = append(all, p.ofWork(b)...)
	return append(all, s.ofFiles()...), p
}

// ofBroker returns the conditions of the connection, the server and its streams.
func ofBroker(b *broker.Broker) (all []health.Condition) {
	if err := b.Connected(); err != nil {
		all = append(all, health.New(health.Broker, err.Error()))
	}
	if f := b.StoreFault(); f.Reason != "" {
		c := health.New(health.Store, "the embedded broker stores nothing: "+f.Reason)
		c.Since = f.Since
		all = append(all, c)
	}
	if nearly := b.StoreNearlyFull(); nearly != "" {
		all = append(all, health.New(health.DiskNearlyFull, nearly))
	}
	all = append(all, b.Conditions()...)
	if small := b.SmallPayload(); small != "" {
		all = append(all, health.New(health.MaxPayload, "the broker: "+small))
	}
	if differences := b.Differences(); len(differences) > 0 {
		all = append(all, health.New(health.Settings, strings.Join(differences, "; ")))
	}
	return all
}

// ofWork returns the conditions of taking requests, calling and following.
func (p *parts) ofWork(b *broker.Broker) (all []health.Condition) {
	if pause := p.replicas.Paused(); pause != nil {
		all = append(all, pausedBy(pause))
	}
	if c, out := p.outOfTouch(); out && b.StreamsVisible() {
		all = append(all, c)
	}
	fault, on := p.breaker.Current()
	if !on {
		all = append(all, p.shared.Unclear()...)
	}
	if on && !explained(fault.Code, b) {
		c := health.New(fault.Code, fault.Reason)
		c.Since, c.Stops = fault.Since, true
		all = append(all, c)
	} else if !p.tokenSeen.Load() {
		all = append(all, health.New(health.Token, "no token for the API yet"))
	}
	if lost := p.orders.Lost(); lost != "" {
		all = append(all, health.New(health.OrdersLost, lost+": it is not known what was cancelled or held back, and no calls are made; give again the orders that still hold, then run `worker resume --orders`"))
	} else if !p.orders.Current(0) {
		all = append(all, health.New(health.ControlUnreadable, "the stream of orders could not be read to its end in the last 5 s: it is not known what was cancelled or held back, and no calls are made"))
	}
	all = append(all, p.throttled()...)
	if until, window := p.rates.UnknownUntil(); !until.IsZero() {
		c := health.New(health.RateUnknown, "it is not known how many calls count in the "+window+"'s window, because its stream or a part of it was lost, or calls were made without a limit; no calls are made until they have aged out")
		c.Until = until.UTC()
		all = append(all, c)
	} else if in := p.quotaOpensIn(); in > 0 {
		all = append(all, waitingForQuota(time.Now().Add(in).Round(time.Second)))
	}
	if p.BesideLive() {
		all = append(all, health.New(health.LiveReplicas, "this replica is in dry run (WORKER_DRY_RUN) beside live ones, and takes no requests: they would end without their calls"))
	}
	all = append(all, p.shared.Conditions()...)
	if c, is := p.replicas.LeaseFault(); is && b.StreamsVisible() {
		all = append(all, c)
	}
	return all
}

// explained reports whether the broker's conditions already name the cause of a fault of the breaker.
func explained(fault string, b *broker.Broker) bool {
	switch fault {
	case health.Store:
		return b.StoreFault().Reason != ""
	case health.NotPublished:
		_, full := health.Has(b.Conditions(), health.StreamFull)
		return full
	}
	return false
}

// throttled returns the closure after a 429. One that ends within a minute does not stop the replica: calls go on soon.
func (p *parts) throttled() []health.Condition {
	since, until := p.Budget.Throttled()
	rest := time.Until(until)
	if why := p.rates.ClosureErr(); why != nil {
		return []health.Condition{health.New(health.NotUnderstood, "it is not known whether the API throttles, and until when: "+why.Error()+"; no call is made until it is known")}
	}
	if until.IsZero() {
		return nil
	}
	text := "the API throttles (429): no call is made before its Retry-After has passed"
	if rest > 2*time.Hour {
		text += ", which is further ahead than its limits explain"
		if asked := time.Unix(int64(until.Sub(since).Seconds()), 0); asked.Sub(since).Abs() < 48*time.Hour {
			text += ": it may have been a time in seconds since 1970 (" + asked.UTC().Format(time.RFC3339) + ") instead of seconds to wait"
		}
		text += "; if it is a mistake, `worker resume --closure` lifts it"
	}
	c := health.New(health.Throttled, text)
	c.Since, c.Until, c.Stops = since.UTC(), until.Round(time.Second).UTC(), rest > time.Minute
	return []health.Condition{c}
}

// ofFiles returns the conditions of files that are read again when they change. While a file can't be read, its last good
// content stays in force.
func (s *Service) ofFiles() (all []health.Condition) {
	if err := s.Settings.Accept.Signers.Err(); err != nil {
		all = append(all, health.New(health.Signers, err.Error()))
	}
	if err := s.Settings.Accept.Policy.Err(); err != nil {
		all = append(all, health.New(health.Policy, err.Error()))
	}
	return all
}
