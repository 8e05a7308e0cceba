package service

import (
	"cmp"
	"context"
	"fmt"
	"time"

	"example.com/unrestrict-worker/internal/admin"
	"example.com/unrestrict-worker/internal/broker"
	"example.com/unrestrict-worker/internal/budget"
	"example.com/unrestrict-worker/internal/config"
)

// Blockers are the reasons why all requests wait.
func Blockers(ctx context.Context, conn *broker.Broker, rates config.Rates) (all []string, err error) {
	o, err := conn.Overview(ctx, config.Windows(rates))
	if err != nil {
		return nil, err
	}
	if o.Pause != nil {
		all = append(all, "the end of the pause: "+o.Pause.Reason+" (`worker resume` ends it)")
	}
	if len(o.Replicas) == 0 {
		all = append(all, "a worker: "+NoWorker)
	}
	for _, r := range o.Replicas {
		if !r.Ready && o.Pause == nil {
			all = append(all, "the end of this fault ("+cmp.Or(r.Code, "notReady")+"): "+r.Reason)
		}
	}
	visitor, err := conn.VisitRates(ctx, config.Windows(rates))
	if err != nil {
		return nil, err
	}
	closed, err := visitor.ClosedFor(ctx)
	if err != nil {
		return nil, err
	}
	if closed > 0 {
		all = append(all, "the API, which throttles for another "+admin.Roughly(closed))
	}
	if !o.NextCall.IsZero() {
		all = append(all, fmt.Sprintf("a free call: the quota of the %s is used up, and the next one is free at %s", o.Short, admin.Clock(o.NextCall)))
	}
	return all, nil
}

// NoWorker is why a deployment is not healthy that nothing stops.
const NoWorker = "no worker is running: start `worker run`"

// ExpectedEnd is when the last of the requests that are queued will be called, as far as the quota goes; machines take
// their time after that. ok: there is such a time.
func ExpectedEnd(now time.Time, o broker.Overview, used []budget.Used) (end time.Time, ok bool) {
	queued := o.Pending + o.InFlight
	if queued == 0 || o.Pause != nil {
		return time.Time{}, false
	}
	return budget.Forecast(now, used, queued), true
}
