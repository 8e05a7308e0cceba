package service

import (
	"slices"
	"strings"

	"example.com/unrestrict-worker/internal/admin"
	"example.com/unrestrict-worker/internal/broker"
	"example.com/unrestrict-worker/internal/defender"
)

// systemOf returns which system an overview describes.
func systemOf(b *broker.Broker, o broker.Overview) admin.System {
	n := b.Names()
	s := admin.System{
		API: distinct(o.Replicas, func(r broker.Presence) string { return r.API }), Tenant: distinct(o.Replicas, func(r broker.Presence) string { return r.Tenant }),
		Account: distinct(o.Replicas, func(r broker.Presence) string { return r.Account }), Broker: b.URL(),
		Lab:     slices.ContainsFunc(o.Replicas, func(r broker.Presence) bool { return r.API != "" && !defender.IsMicrosoft(r.API) }),
		Streams: admin.Streams{Requests: n.Stream, Results: n.ResultsStream, DeadLetters: n.DeadletterStream, Orders: n.ControlStream},
	}
	switch dry := o.DryRuns(); {
	case len(o.Replicas) == 0:
	case dry == 0:
		s.Mode = admin.ModeLive
	case dry == len(o.Replicas):
		s.Mode = admin.ModeDryRun
	default:
		s.Mode = admin.ModeMixed
	}
	return s
}

// replicasOf returns the replicas that have a presence record, by host.
func replicasOf(o broker.Overview) []admin.Replica {
	all := []admin.Replica{}
	for _, p := range o.Replicas {
		r := admin.Replica{ID: p.ID, Host: p.Host, Version: p.Version, Mode: modeOf(p.DryRun), API: p.API, Ready: p.Ready, Conditions: []string{}}
		for _, c := range p.Conditions {
			r.Conditions = append(r.Conditions, c.Code)
		}
		if len(r.Conditions) == 0 && p.Code != "" { // an older version, without the list
			r.Conditions = append(r.Conditions, p.Code)
		}
		all = append(all, r)
	}
	slices.SortStableFunc(all, func(a, b admin.Replica) int { return strings.Compare(a.Host, b.Host) })
	return all
}

func modeOf(dryRun bool) string {
	if dryRun {
		return admin.ModeDryRun
	}
	return admin.ModeLive
}

// distinct returns the different values of the replicas, sorted and comma-separated.
func distinct(replicas []broker.Presence, value func(broker.Presence) string) string {
	var values []string
	for _, r := range replicas {
		if v := value(r); v != "" && !slices.Contains(values, v) {
			values = append(values, v)
		}
	}
	slices.Sort(values)
	return strings.Join(values, ", ")
}
