package service

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"time"

	"example.com/unrestrict-worker/internal/admin"
	"example.com/unrestrict-worker/internal/broker"
	"example.com/unrestrict-worker/internal/broker/rates"
	"example.com/unrestrict-worker/internal/config"
	"example.com/unrestrict-worker/internal/health"
)

func (s *Service) sources() admin.Sources {
	return admin.Sources{Alive: s.alive, Conditions: s.Conditions, Status: s.status, Recent: s.recent, Find: s.find}
}

func (s *Service) current() (b *broker.Broker, p *parts, waiting string) {
	s.Mu.Lock()
	defer s.Mu.Unlock()
	return s.Broker, s.Parts, s.waiting
}

// alive is about this process alone: a broker or an API that is away is no reason to restart it.
func (s *Service) alive() error {
	if _, p, _ := s.current(); p != nil {
		return p.Consumer.Alive()
	}
	return nil
}

// presence is what this replica reports to the others.
func (s *Service) presence() broker.Presence {
	conditions := s.Conditions()
	_, p, _ := s.current()
	out := broker.Presence{
		Ready: true, Conditions: conditions, InFlight: p.Consumer.InFlight(), Followed: p.Tracker.Following(), Version: ThisBuild().Version,
		Limits: rates.Limits(config.Windows(s.Settings.Rates)), DryRun: s.Settings.DryRun, Reserve: p.Budget.Reserves(),
		NotKept: p.notKept(),
	}
	if stop, _ := health.Stopping(conditions); len(stop) > 0 { // in the words of the version before
		out.Ready, out.Code, out.Reason, out.Since = false, stop[0].Code, stop[0].Message, stop[0].Since
	}
	return out
}

var errNoBroker = errors.New("the broker is not there yet")

// status is what the broker knows of all replicas, and this replica's word on itself.
func (s *Service) status(ctx context.Context) (admin.Status, error) {
	b, p, _ := s.current()
	if b == nil || p == nil {
		return admin.Status{}, errNoBroker
	}
	o, err := b.Overview(ctx, config.Windows(s.Settings.Rates))
	if err != nil {
		return admin.Status{}, err
	}
	for _, said := range o.Replicas {
		if said.ID == s.Owner {
			o.Followed += p.Tracker.Following() - said.Followed
			o.InFlight += p.Consumer.InFlight() - said.InFlight
			o.NotKept += p.notKept() - said.NotKept
		}
	}
	status, err := statusOf(ctx, o, p.Tally)
	if err != nil {
		return admin.Status{}, err
	}
	// This replica's own state, fresher than its last presence.
	if stop, _ := health.Stopping(s.Conditions()); len(stop) > 0 {
		status.Healthy = false
		if fault, on := p.breaker.Current(); on && status.Paused == nil {
			status.Paused = &admin.Pause{Kind: admin.KindFault, Code: fault.Code, Reason: fault.Reason, Since: fault.Since}
		}
	} else {
		status.Healthy = true
		if op := p.replicas.Paused(); op == nil {
			status.Paused = nil
		}
	}
	return status, nil
}

// DeploymentStatus is `worker status`, of all replicas.
func DeploymentStatus(ctx context.Context, b *broker.Broker, tally *broker.Tally, rates config.Rates) (admin.Status, error) {
	o, err := b.Overview(ctx, config.Windows(rates))
	if err != nil {
		return admin.Status{}, err
	}
	return statusOf(ctx, o, tally)
}

func statusOf(ctx context.Context, o broker.Overview, tally *broker.Tally) (admin.Status, error) {
	results, _, current, err := tally.Counts(ctx)
	if err != nil {
		return admin.Status{}, err
	}
	status := admin.Status{
		Healthy:  len(o.Replicas) > 0,
		Queue:    admin.Queue{Pending: o.Pending, InFlight: o.InFlight},
		Followed: o.Followed, DeadLetters: o.DeadLetters, NotKept: o.NotKept, Results: results, Counting: !current, Version: ThisBuild().Version,
	}
	if !o.Oldest.IsZero() {
		status.Queue.OldestSeconds = max(time.Since(o.Oldest).Seconds(), 0)
	}
	for _, w := range o.Budget {
		if w.Limit > 0 {
			status.Budget = append(status.Budget, admin.Window(w))
		}
	}
	for _, r := range o.Replicas {
		if !r.Ready {
			status.Healthy = false
			if status.Paused == nil && r.Code != health.Paused { // else it was resumed just now
				status.Paused = &admin.Pause{Kind: admin.KindFault, Code: cmp.Or(r.Code, "notReady"), Reason: r.Reason, Since: r.Since}
			}
		}
	}
	if o.Pause != nil {
		status.Healthy = false
		status.Paused = &admin.Pause{Kind: admin.KindOperator, Code: health.Paused, Reason: o.Pause.Reason, Since: o.Pause.Since, Until: o.Pause.Until}
	}
	if waitsForQuota(o) {
		status.WaitingForQuota = &admin.QuotaWait{NextCallAt: o.NextCall}
	}
	if n := o.DryRuns(); n > 0 {
		status.DryRun = &admin.DryRun{Replicas: n, Live: len(o.Replicas) - n}
	}
	return status, nil
}

// waitsForQuota reports whether requests wait for a free call, and for nothing else.
func waitsForQuota(o broker.Overview) bool {
	return o.Pause == nil && o.Pending > 0 && !o.NextCall.IsZero()
}

// recent is what the page shows besides.
func (s *Service) recent(ctx context.Context) (admin.Recent, error) {
	b, p, _ := s.current()
	if b == nil || p == nil {
		return admin.Recent{}, errNoBroker
	}
	var r admin.Recent
	_, minutes, _, err := p.Tally.Counts(ctx)
	if err != nil {
		return r, err
	}
	for minute, counts := range minutes {
		if time.Since(minute) <= time.Hour {
			r.PerMinute = append(r.PerMinute, admin.Point{Minute: minute, Counts: counts})
		}
	}
	r.ActionsByAge = byAge(p.Tracker.Ages())
	r.Counting = !p.digest.ReadOn(ctx)
	if err := p.digest.CountQueue(ctx, b); err != nil {
		return r, err
	}
	p.digest.Show(&r)
	limits := config.Windows(s.Settings.Rates)
	o, err := b.Overview(ctx, limits)
	if err != nil {
		return r, err
	}
	used, err := b.Usage(ctx, limits, o.Reserve)
	if err != nil {
		return r, err
	}
	if at, ok := ExpectedEnd(time.Now(), o, used); ok {
		r.EmptyAt = at
	}
	if r.Results, err = recentResults(ctx, b); err != nil {
		return r, err
	}
	r.DeadLetters, err = recentDeadLetters(ctx, b)
	return r, err
}

// find is the page's search.
func (s *Service) find(ctx context.Context, what string) ([]admin.ResultRow, error) {
	b, _, _ := s.current()
	if b == nil {
		return nil, errNoBroker
	}
	all, err := RequestsOf(ctx, b, what)
	var rows []admin.ResultRow
	for _, k := range slices.Backward(all) {
		rows = append(rows, k.Row())
	}
	return rows, err
}

func byAge(ages []time.Duration) []admin.Bucket {
	buckets := []admin.Bucket{{Label: "under 5 min"}, {Label: "under 1 h"}, {Label: "under 6 h"}, {Label: "under 1 day"}, {Label: "older"}}
	limits := []time.Duration{5 * time.Minute, time.Hour, 6 * time.Hour, 24 * time.Hour}
	for _, age := range ages {
		i := 0
		for i < len(limits) && age >= limits[i] {
			i++
		}
		buckets[i].Count++
	}
	return buckets
}
