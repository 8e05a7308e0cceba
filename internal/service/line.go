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

// Line is a snapshot of all that waits to be called. It has what is needed to forecast the call of every place in it.
type Line struct {
	asOf        time.Time
	forecast    budget.Forecast
	unavailable string    // why no request has an expected time; "": they have
	until       time.Time // when that ends, if known
}

// LookAtLine reads from the broker which calls count, and takes what waits, and what else must be known, from an overview.
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

// unavailable returns why no request has an expected time now. A fault of one replica does not count while another takes
// requests.
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

// takes reports whether a replica takes requests now, or will by itself once it is known which calls are free (rateUnknown),
// which the forecast allows for.
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

// Place returns the place of a request with so many of its lane before it.
func (l Line) Place(lane message.Lane, before int) Place {
	lane = cmp.Or(lane, message.LaneNormal)
	p := Place{Lane: lane, Before: before}
	f := l.forecast
	f.Waiting.AtLeast(lane, before+1)
	if l.unavailable != "" { // the order is still known
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

// call returns how many calls come before that of a request with so many of its lane before it, and when it comes.
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

// Last returns the place of a lane's last request; false if none waits.
func (l Line) Last(lane message.Lane) (Place, bool) {
	n := l.forecast.Waiting.Of(lane)
	if n == 0 {
		return Place{}, false
	}
	return l.Place(lane, n-1), true
}

// Next returns the place that a request would get that is published on a lane now.
func (l Line) Next(lane message.Lane) Place {
	return l.Place(lane, l.forecast.Waiting.Of(lane))
}

// Of returns the place of a message in the stream; false if it is gone.
func (l Line) Of(ctx context.Context, b *broker.Broker, lane message.Lane, sequence uint64) (Place, bool, error) {
	behind, there, err := b.Behind(ctx, lane, sequence)
	if err != nil || !there {
		return Place{}, false, err
	}
	return l.Place(lane, max(l.forecast.Waiting.Of(lane)-behind-1, 0)), true, nil
}

// Calls returns when the requests of a lane are expected to be called, in order; none if that is not known.
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

// AsOf returns the time of the snapshot, by the broker's clock.
func (l Line) AsOf() time.Time { return l.asOf }
