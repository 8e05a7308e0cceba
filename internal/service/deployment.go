package service

import (
	"cmp"
	"context"
	"slices"
	"time"

	"example.com/unrestrict-worker/internal/admin"
	"example.com/unrestrict-worker/internal/broker"
	"example.com/unrestrict-worker/internal/config"
	"example.com/unrestrict-worker/internal/health"
	"example.com/unrestrict-worker/internal/message"
)

// Conditions returns what holds the deployment up: what its replicas report, and what the broker shows if none of them does.
func Conditions(o broker.Overview) []health.Condition {
	var reported [][]health.Condition
	for _, r := range o.Replicas {
		all := slices.Clone(r.Conditions)
		if len(all) == 0 && !r.Ready { // an older version, without the list
			c := health.New(r.Code, r.Reason)
			c.Since, c.Stops = r.Since, true
			all = append(all, c)
		}
		// The operator's pause is read from the store: a replica reports it seconds later.
		reported = append(reported, slices.DeleteFunc(all, func(c health.Condition) bool { return c.Code == health.Paused }))
	}
	var stored []health.Condition
	if o.Pause != nil {
		stored = append(stored, pausedBy(o.Pause))
	}
	if o.PresenceFault != nil {
		stored = append(stored, *o.PresenceFault)
	} else if len(o.Replicas) == 0 {
		stored = append(stored, health.New(health.NoWorker, NoWorker))
	}
	all := append(stored, health.Merge(reported...)...)
	if _, has := health.Has(all, health.WaitingForQuota); !has && o.Pause == nil && o.Pending > 0 && !o.NextCall.IsZero() {
		all = append(all, waitingForQuota(o.NextCall))
	}
	for i, c := range all {
		if c.Code == health.Paused {
			all[i].Replicas = len(o.Replicas)
		}
	}
	return all
}

func pausedBy(p *broker.Pause) health.Condition {
	c := health.New(health.Paused, cmp.Or(p.By, "an operator")+" has paused the worker: "+p.Reason)
	c.Since = p.Since
	if p.Until != nil {
		c.Until = *p.Until
	}
	return c
}

func waitingForQuota(next time.Time) health.Condition {
	c := health.New(health.WaitingForQuota, "all calls that the API allows are used up; requests wait for the next free call")
	c.Until = next.UTC()
	return c
}

// NoWorker is shown when no worker runs.
const NoWorker = "no worker is running: start `worker run`"

// HoldingUp returns the conditions that hold a request up now: one whose action was accepted, or one that is not called yet.
func HoldingUp(ctx context.Context, conn *broker.Broker, rates config.Rates, accepted bool) ([]health.Condition, error) {
	o, err := conn.Overview(ctx, config.Windows(rates))
	if err != nil {
		return nil, err
	}
	return health.HoldingUp(Conditions(o), accepted), nil
}

// DeploymentStatus is `worker status`, of all replicas.
func DeploymentStatus(ctx context.Context, b *broker.Broker, tally *broker.Tally, s config.Settings) (admin.Status, error) {
	o, err := b.Overview(ctx, config.Windows(s.Rates))
	if err != nil {
		return admin.Status{}, err
	}
	return statusOf(ctx, b, o, tally, s)
}

// statusOf makes the object of docs/commands.md. It is healthy while nothing stops any replica and one runs at least.
func statusOf(ctx context.Context, b *broker.Broker, o broker.Overview, tally *broker.Tally, s config.Settings) (admin.Status, error) {
	line, err := LookAtLine(ctx, b, o, s)
	if err != nil {
		return admin.Status{}, err
	}
	results, _, current, err := tally.Counts(ctx)
	if err != nil {
		return admin.Status{}, err
	}
	conditions := Conditions(o)
	stop, _ := health.Stopping(conditions)
	status := admin.Status{
		Healthy: health.Healthy(conditions), Conditions: conditions, Paused: paused(o.Pause, stop),
		Queue:            admin.Queue{Pending: o.Pending, InFlight: o.InFlight},
		AwaitingApproval: o.Awaiting, Followed: o.Followed, DeadLetters: o.DeadLetters, NotKept: o.NotKept, Results: results, Counting: !current, Version: ThisBuild().Version,
		System: systemOf(b, o), Replicas: replicasOf(o),
	}
	if !o.Oldest.IsZero() {
		status.Queue.OldestSeconds = max(time.Since(o.Oldest).Seconds(), 0)
	}
	status.Queue.Lanes = map[string]admin.Lane{}
	for _, l := range message.Lanes() {
		waits := admin.Lane{Pending: o.Lanes[l].Pending}
		if oldest := o.Lanes[l].Oldest; !oldest.IsZero() {
			waits.OldestSeconds = max(time.Since(oldest).Seconds(), 0)
		}
		if last, any := line.Last(l); any {
			waits.ExpectedAt, waits.LatestAt, waits.Unavailable = last.ExpectedAt, last.LatestAt, last.Unavailable
		}
		status.Queue.Lanes[string(l)] = waits
	}
	for _, w := range o.Budget {
		if w.Limit > 0 {
			status.Budget = append(status.Budget, admin.Window(w))
		}
	}
	if quota, waits := health.Has(conditions, health.WaitingForQuota); waits {
		status.WaitingForQuota = &admin.QuotaWait{NextCallAt: quota.Until}
	}
	if n := o.DryRuns(); n > 0 {
		status.DryRun = &admin.DryRun{Replicas: n, Live: len(o.Replicas) - n}
	}
	return status, nil
}

// paused returns what stops the deployment, in the form of docs/commands.md: the operator's pause, or else the first fault; nil if
// nothing does, or if no worker runs.
func paused(operator *broker.Pause, stop []health.Condition) *admin.Pause {
	if operator != nil {
		return &admin.Pause{Kind: admin.KindOperator, Code: health.Paused, Reason: operator.Reason, Since: operator.Since, Until: operator.Until}
	}
	if len(stop) == 0 || stop[0].Code == health.NoWorker {
		return nil
	}
	c := stop[0]
	p := &admin.Pause{Kind: admin.KindFault, Code: c.Code, Reason: c.Message, Since: c.Since}
	if !c.Until.IsZero() {
		p.Until = &c.Until
	}
	return p
}
