package main

import (
	"cmp"
	"context"
	"fmt"
	"time"

	"example.com/unrestrict-worker/internal/broker"
	"example.com/unrestrict-worker/internal/config"
	"example.com/unrestrict-worker/internal/remediation"
)

// waitsFor says what must happen before the request goes on; nil: it has ended.
func waitsFor(ctx context.Context, conn *broker.Broker, s *story, rates config.Rates) ([]string, error) {
	own, taking := s.own(time.Now())
	if !taking {
		return own, nil
	}
	shared, err := holdUps(ctx, conn, rates)
	if len(shared) > 0 && len(own) == 1 && own[0] == nextAttempt {
		own = nil // it is that attempt that waits for the rest
	}
	return append(own, shared...), err
}

const nextAttempt = "its next attempt"

// own is what the request itself waits for. taking: it also needs somebody who takes requests.
func (s *story) own(now time.Time) (waits []string, taking bool) {
	e := s.entry
	if e == nil || e.State == remediation.StateFinal && e.Published {
		if len(s.queued) == 0 {
			return nil, false
		}
		q := s.queued[len(s.queued)-1]
		return []string{fmt.Sprintf("being taken: it is number %d of %d in the queue", q.place, s.queue)}, true
	}
	switch e.State {
	case remediation.StateSubmitted:
		if !e.Follow {
			return nil, false
		}
		return []string{fmt.Sprintf("the end of action %s, which is looked up regularly", e.ActionID)}, true
	case remediation.StateFinal:
		return []string{"its result to be published; it is decided: " + e.Outcome}, true
	case remediation.StateCalled:
		return []string{fmt.Sprintf("the answer to the call of %s, or the look-up of what became of it", clock(e.LastCall))}, true
	case remediation.StateUnknown:
		waits = append(waits, fmt.Sprintf("a look-up of whether the call of %s took place (%d of 3 have not shown it)", clock(e.LastCall), e.Looks))
	default:
		waits = append(waits, nextAttempt)
	}
	if e.Due.After(now) {
		waits = append(waits, "its time: not tried again before "+clock(e.Due))
	}
	if e.LastErr != nil {
		waits = append(waits, "an end of this fault: "+e.LastErr.Code+": "+e.LastErr.Message)
	}
	return waits, true
}

// holdUps are what keeps all requests waiting.
func holdUps(ctx context.Context, conn *broker.Broker, rates config.Rates) (all []string, err error) {
	o, err := conn.Overview(ctx, windows(rates))
	if err != nil {
		return nil, err
	}
	if o.Pause != nil {
		all = append(all, "the end of the pause: "+o.Pause.Reason+" (`worker resume` ends it)")
	}
	if len(o.Replicas) == 0 {
		all = append(all, "a worker: "+noWorker)
	}
	for _, r := range o.Replicas {
		if !r.Ready && o.Pause == nil {
			all = append(all, "the end of this fault ("+cmp.Or(r.Code, "notReady")+"): "+r.Reason)
		}
	}
	visitor, err := conn.VisitRates(ctx, windows(rates))
	if err != nil {
		return nil, err
	}
	closed, err := visitor.ClosedFor(ctx)
	if err != nil {
		return nil, err
	}
	if closed > 0 {
		all = append(all, "the API, which throttles for another "+roughly(closed))
	}
	if !o.NextCall.IsZero() {
		all = append(all, fmt.Sprintf("a free call: the quota of the %s is used up, and the next one is free at %s", o.Short, clock(o.NextCall)))
	}
	return all, nil
}

// clock is a time for people, with its zone: what one pastes another may read elsewhere.
func clock(t time.Time) string { return t.Local().Format("2006-01-02 15:04:05Z07:00") }
