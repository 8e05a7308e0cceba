package service

import (
	"cmp"
	"context"
	"time"

	"example.com/unrestrict-worker/internal/broker"
	"example.com/unrestrict-worker/internal/budget"
	"example.com/unrestrict-worker/internal/config"
	"example.com/unrestrict-worker/internal/health"
	"example.com/unrestrict-worker/internal/ledger"
	"example.com/unrestrict-worker/internal/message"
)

// Place is where a request waits and when its call is expected: the object `queue` of contract §8, the same wherever a waiting
// request is shown. Either both times are there, or why they are not.
type Place struct {
	Lane        message.Lane `json:"lane"`
	Ahead       int          `json:"ahead"` // calls made before this one, as of now
	Before      int          `json:"-"`     // of its lane
	ExpectedAt  time.Time    `json:"expectedAt,omitzero"`
	LatestAt    time.Time    `json:"latestAt,omitzero"`
	AsOf        time.Time    `json:"asOf,omitzero"`
	Unavailable string       `json:"unavailable,omitempty"`
	Until       time.Time    `json:"until,omitzero"`
	NotBefore   time.Time    `json:"notBefore,omitzero"`
}

// Why a Place has no times.
const (
	WaitPaused           = "paused"
	WaitClosed           = "closed" // after a 429; until says for how long
	WaitSystemFault      = "systemFault"
	WaitNoLimit          = "noLimit" // it is called at once
	WaitAwaitingApproval = "awaitingApproval"
	WaitHeld             = "held"  // its batch is paused
	WaitOwn              = "own"   // a fault or a busy machine of its own; notBefore says until when at least
	WaitTaken            = "taken" // it waits no longer
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

// Empty is when the last of all that wait is expected to be called; zero: nothing waits, or it is not known.
func (l Line) Empty() (at time.Time) {
	for _, lane := range message.Lanes() {
		if p, waits := l.Last(lane); waits && p.ExpectedAt.After(at) {
			at = p.ExpectedAt
		}
	}
	return at
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

// Own is the place of a request with that entry: what holds up this one alone comes before what holds up all.
func (p Place) Own(e *ledger.Entry, now time.Time) Place {
	why, notBefore := itself(e, now)
	if why == "" {
		return p
	}
	without := Place{Lane: p.Lane, Ahead: p.Ahead, Unavailable: why, NotBefore: notBefore}
	if why == WaitTaken {
		without.Ahead = 0
	}
	return without
}

// itself is why a request has no time whatever holds up the others. An entry says so: nil is a request that nobody has taken.
func itself(e *ledger.Entry, now time.Time) (why string, notBefore time.Time) {
	switch {
	case e == nil:
		return "", time.Time{}
	case e.State != ledger.StateWaiting:
		return WaitTaken, time.Time{}
	case e.NotBefore.After(now):
		return WaitOwn, e.NotBefore
	case e.LastError != nil && e.LastError.Origin == message.OriginWorker: // a busy machine, or what is to be stored never fits
		return WaitOwn, now
	}
	return "", time.Time{}
}

// When says it in words that follow "the request".
func (p Place) When(now time.Time) string {
	switch p.Unavailable {
	case "":
	case WaitNoLimit:
		return "is called as soon as a worker has a slot: there is no limit of calls"
	case WaitClosed:
		return "waits, for the API throttles" + upTo(p.Until)
	case WaitPaused:
		return "waits, for the worker is paused" + upTo(p.Until)
	case WaitAwaitingApproval:
		return "waits for approval"
	case WaitHeld:
		return "waits, for its batch is paused"
	case WaitOwn:
		return "waits for a fault or a busy machine of its own, and is not tried again before " + clock(p.NotBefore, now)
	case WaitTaken:
		return "waits no longer: it is taken"
	default:
		return "waits for a fault of the system to end; `worker status` names it"
	}
	text := "is expected to be called at " + clock(p.ExpectedAt, now)
	if !p.ExpectedAt.After(p.AsOf) {
		text = "is called now"
	}
	if latest := clock(p.LatestAt, now); p.LatestAt.Sub(p.ExpectedAt) >= time.Second {
		text += " (" + latest + " at the latest)"
	}
	return text
}

func upTo(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return " until " + clock(t, time.Now())
}

// clock is a time of day, with the date if that is another one, to the second while it is near.
func clock(t, now time.Time) string {
	t, now = t.Local(), now.Local()
	switch {
	case t.Sub(now).Abs() < time.Hour:
		return t.Format(time.TimeOnly)
	case t.YearDay() == now.YearDay() && t.Year() == now.Year():
		return t.Format("15:04")
	}
	return t.Format("Jan 2 15:04")
}
