package service

import (
	"cmp"
	"context"
	"time"

	"example.com/unrestrict-worker/internal/broker"
	"example.com/unrestrict-worker/internal/budget"
	"example.com/unrestrict-worker/internal/config"
	"example.com/unrestrict-worker/internal/health"
	"example.com/unrestrict-worker/internal/message"
)

// Line is a look at all that waits to be called: enough to say of every place in it when its call is expected.
type Line struct {
	asOf        time.Time
	forecast    budget.Forecast
	unavailable string    // to everybody
	until       time.Time // the end of that, where it is known
}

// LookAtLine asks the broker what waits and which calls count, and takes what else must be known from an overview.
func LookAtLine(ctx context.Context, b *broker.Broker, o broker.Overview, s config.Settings) (Line, error) {
	l := Line{asOf: o.Now}
	windows := o.Limits()
	l.unavailable, l.until = unavailable(o, windows)
	for i, lane := range message.Lanes() {
		l.forecast.Waiting[i] = o.Lanes[lane].Pending
	}
	if l.unavailable != "" {
		return l, nil
	}
	used, err := b.Usage(ctx, windows)
	if err != nil {
		return Line{}, err
	}
	for i, u := range used {
		used[i] = u.Leaving(o.UrgentReserve(s.Rates.UrgentReserve), o.Reserve[u.Name])
	}
	l.forecast.Windows = used
	if len(o.Reserve) > 0 { // actions are followed
		l.forecast.Follow = s.Track.PollInterval
	}
	return l, nil
}

// unavailable is why nobody has a time now. What holds up one replica of several leaves the others to go on.
func unavailable(o broker.Overview, windows []budget.Window) (why string, until time.Time) {
	if o.Pause != nil {
		if o.Pause.Until != nil {
			until = *o.Pause.Until
		}
		return WaitPaused, until
	}
	limited, able := false, false
	for _, w := range windows {
		limited = limited || w.Limit > 0
	}
	for _, r := range o.Replicas {
		if c, closed := health.Has(r.Conditions, health.Throttled); closed {
			return WaitClosed, c.Until
		}
		able = able || takes(r)
	}
	switch {
	case !able:
		return WaitSystemFault, time.Time{}
	case !limited:
		return WaitNoLimit, time.Time{}
	}
	return "", time.Time{}
}

// takes reports whether a replica takes requests, now or by itself once calls are known to be free, which the forecast knows.
func takes(r broker.Presence) bool {
	if len(r.Conditions) == 0 {
		return r.Ready
	}
	stop, others := health.Stopping(r.Conditions)
	for _, c := range stop {
		if c.Code != health.RateUnknown {
			return false
		}
	}
	_, beside := health.Has(others, health.LiveReplicas)
	return !beside
}

// Place is that of a request with so many of its lane before it.
func (l Line) Place(lane message.Lane, before int) Place {
	lane = cmp.Or(lane, message.LaneNormal)
	p := Place{Lane: lane, Before: before}
	f := l.forecast
	f.Waiting.AtLeast(lane, before+1)
	if l.unavailable != "" { // the order is known all the same
		p.Unavailable, p.Until = l.unavailable, l.until
		p.Ahead, _ = call(f, l.asOf, lane, before)
		return p
	}
	p.AsOf = l.asOf
	p.Ahead, p.ExpectedAt = call(f, l.asOf, lane, before)
	_, p.LatestAt = call(f.Latest(), l.asOf, lane, before)
	if p.LatestAt.Before(p.ExpectedAt) {
		p.LatestAt = p.ExpectedAt
	}
	return p
}

// call is how many calls come before the one of a lane that has so many of its lane before it, and its time.
func call(f budget.Forecast, now time.Time, lane message.Lane, before int) (ahead int, at time.Time) {
	for of, at := range f.Calls(now) {
		if of == lane {
			if before == 0 {
				return ahead, at
			}
			before--
		}
		ahead++
	}
	return ahead, at
}

// Last is the place of a lane's last request; false: none waits.
func (l Line) Last(lane message.Lane) (Place, bool) {
	n := l.forecast.Waiting.Of(lane)
	if n == 0 {
		return Place{}, false
	}
	return l.Place(lane, n-1), true
}

// Next is the place of a request that is published on a lane now.
func (l Line) Next(lane message.Lane) Place {
	return l.Place(lane, l.forecast.Waiting.Of(lane))
}

// Of is the place of a message in the stream; false: it is not there any more.
func (l Line) Of(ctx context.Context, b *broker.Broker, lane message.Lane, sequence uint64) (Place, bool, error) {
	behind, there, err := b.Behind(ctx, lane, sequence)
	if err != nil || !there {
		return Place{}, false, err
	}
	return l.Place(lane, max(l.forecast.Waiting.Of(lane)-behind-1, 0)), true, nil
}

// Calls are when the requests of a lane are expected to be called, in their order; none where that is not known.
func (l Line) Calls(lane message.Lane) (times []time.Time) {
	if l.unavailable != "" {
		return nil
	}
	for of, at := range l.forecast.Calls(l.asOf) {
		if of == lane {
			times = append(times, at)
		}
	}
	return times
}

// AsOf is when it was looked at, by the broker's clock.
func (l Line) AsOf() time.Time { return l.asOf }
