package service

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"strings"
	"time"

	"example.com/unrestrict-worker/internal/admin"
	"example.com/unrestrict-worker/internal/broker"
	"example.com/unrestrict-worker/internal/broker/rates"
	"example.com/unrestrict-worker/internal/config"
	"example.com/unrestrict-worker/internal/health"
)

func (s *Service) sources() admin.Sources {
	return admin.Sources{Alive: s.alive, Conditions: s.Conditions, Status: s.status, Recent: s.recent, Find: s.find, Stories: s.stories}
}

func (s *Service) current() (b *broker.Broker, p *parts, waiting string) {
	s.Mu.Lock()
	defer s.Mu.Unlock()
	return s.Broker, s.Parts, s.waiting
}

// alive checks this process alone: a broker or an API that is down is no reason to restart it.
func (s *Service) alive() error {
	if _, p, _ := s.current(); p != nil {
		return p.Consumer.Alive()
	}
	return nil
}

// presence returns what this replica reports to the others.
func (s *Service) presence() broker.Presence {
	conditions := s.Conditions()
	_, p, _ := s.current()
	out := broker.Presence{
		Ready: true, Conditions: conditions, InFlight: p.Consumer.InFlight(), Followed: p.Tracker.Following(), Awaiting: p.Tracker.Awaiting(), Version: ThisBuild().Version,
		Limits: rates.Limits(config.Windows(s.Settings.Rates)), DryRun: s.Settings.DryRun, Reserve: p.Budget.Reserves(), UrgentReserve: &s.Settings.Rates.UrgentReserve,
		NotKept: p.notKept(), Outstanding: p.outstanding(), Site: s.site(p),
	}
	if stop, _ := health.Stopping(conditions); len(stop) > 0 { // in the form that the previous version reads
		out.Ready, out.Code, out.Reason, out.Since = false, stop[0].Code, stop[0].Message, stop[0].Since
	}
	return out
}

// site returns which system this replica works for. The tenant is its name in WORKER_TENANT, followed by the tenant that the token
// names, or else the one that tokens are requested for.
func (s *Service) site(p *parts) broker.Site {
	tenant, _ := s.lookup("AZURE_TENANT_ID")
	tenant = strings.TrimSpace(s.Settings.Tenant + " " + cmp.Or(p.Tenant(), tenant))
	s.Mu.Lock()
	defer s.Mu.Unlock()
	return broker.Site{Host: s.host, API: p.apiURL, Tenant: tenant, Account: s.account}
}

var errNoBroker = errors.New("there is no connection to the broker yet")

// status returns what the presence records of all replicas show. This replica's own record is replaced by its present state, which
// is newer.
func (s *Service) status(ctx context.Context) (admin.Status, error) {
	b, p, _ := s.current()
	if b == nil || p == nil {
		return admin.Status{}, errNoBroker
	}
	o, err := b.Overview(ctx, config.Windows(s.Settings.Rates))
	if err != nil {
		return admin.Status{}, err
	}
	now := s.presence()
	now.ID = s.Owner
	own := slices.IndexFunc(o.Replicas, func(r broker.Presence) bool { return r.ID == s.Owner })
	if own < 0 {
		o.Replicas, own = append(o.Replicas, broker.Presence{}), len(o.Replicas)
	}
	o.Followed += now.Followed - o.Replicas[own].Followed
	o.Awaiting += now.Awaiting - o.Replicas[own].Awaiting
	o.InFlight += now.InFlight - o.Replicas[own].InFlight
	o.NotKept += now.NotKept - o.Replicas[own].NotKept
	o.Replicas[own], o.PresenceFault = now, nil
	return statusOf(ctx, b, o, p.Tally, s.Settings)
}

// recent returns what the page shows besides the status.
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
	if r.Awaiting, err = p.awaiting.show(ctx, b); err != nil {
		return r, err
	}
	r.DeadLetters, err = recentDeadLetters(ctx, b)
	return r, err
}

// stories returns what the page of one request shows.
func (s *Service) stories(ctx context.Context, id string) ([]admin.Story, error) {
	b, _, _ := s.current()
	switch {
	case b == nil:
		return nil, errNoBroker
	case s.Explain == nil:
		return nil, errors.New("this program can't tell; ask `worker why`")
	}
	return s.Explain(ctx, b, s.Settings, id)
}

// find serves the page's search.
func (s *Service) find(ctx context.Context, what string) ([]admin.ResultRow, error) {
	b, _, _ := s.current()
	if b == nil {
		return nil, errNoBroker
	}
	all, err := RequestsOf(ctx, b, what)
	var rows []admin.ResultRow
	if err != nil {
		return nil, err
	}
	line, err := s.lines.Look(ctx, b, s.Settings)
	for n, k := range slices.Backward(all) {
		row := k.Row()
		if err == nil && k.sequence > 0 && row.Message == "" && len(all)-n <= shown { // each takes a request to the broker
			if p, waits, err := line.Of(ctx, b, k.lane, k.sequence); err == nil && waits {
				row.Message = "it " + p.Own(k.entry, line.AsOf()).When()
			}
		}
		rows = append(rows, row)
	}
	return rows, nil
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
