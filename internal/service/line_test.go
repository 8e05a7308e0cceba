package service

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"example.com/unrestrict-worker/internal/admin"
	"example.com/unrestrict-worker/internal/broker"
	"example.com/unrestrict-worker/internal/budget"
	"example.com/unrestrict-worker/internal/health"
	"example.com/unrestrict-worker/internal/ledger"
	"example.com/unrestrict-worker/internal/message"
)

func TestWhyNobodyHasATime(t *testing.T) {
	until := time.Now().Add(time.Hour)
	fine := broker.Presence{Ready: true, Limits: map[string]int{"minute": 100}}
	with := func(code string) broker.Presence {
		r := fine
		c := health.New(code, "")
		c.Until = until
		r.Conditions = []health.Condition{c}
		return r
	}
	for name, c := range map[string]struct {
		o     broker.Overview
		want  string
		until time.Time
	}{
		"nothing":                            {broker.Overview{Replicas: []broker.Presence{fine}}, "", time.Time{}},
		"no worker":                          {broker.Overview{}, WaitSystemFault, time.Time{}},
		"paused":                             {broker.Overview{Replicas: []broker.Presence{fine}, Pause: &broker.Pause{Until: &until}}, WaitPaused, until},
		"paused, and a fault":                {broker.Overview{Replicas: []broker.Presence{with(health.Store)}, Pause: &broker.Pause{}}, WaitPaused, time.Time{}},
		"closed":                             {broker.Overview{Replicas: []broker.Presence{fine, with(health.Throttled)}}, WaitClosed, until},
		"a fault":                            {broker.Overview{Replicas: []broker.Presence{with(health.Token)}}, WaitSystemFault, time.Time{}},
		"a fault of one of two":              {broker.Overview{Replicas: []broker.Presence{with(health.Token), fine}}, "", time.Time{}},
		"one that is of before lists":        {broker.Overview{Replicas: []broker.Presence{{Code: health.Token}}}, WaitSystemFault, time.Time{}},
		"impaired":                           {broker.Overview{Replicas: []broker.Presence{with(health.NotFollowing)}}, "", time.Time{}},
		"grants not known until later":       {broker.Overview{Replicas: []broker.Presence{with(health.RateUnknown)}}, "", time.Time{}},
		"dry run beside one that is stopped": {broker.Overview{Replicas: []broker.Presence{with(health.LiveReplicas), with(health.Store)}}, WaitSystemFault, time.Time{}},
		"no limit":                           {broker.Overview{Replicas: []broker.Presence{{Ready: true}}}, WaitNoLimit, time.Time{}},
	} {
		why, until := unavailable(c.o, c.o.Limits())
		if why != c.want || !until.Equal(c.until) {
			t.Errorf("%s: %q until %v, want %q until %v", name, why, until, c.want, c.until)
		}
	}
}

func TestPlaces(t *testing.T) {
	now := time.Date(2026, 11, 24, 12, 0, 0, 0, time.UTC)
	minute := budget.Used{Window: budget.Limits(20, 0)[0]}
	for range 20 {
		minute.Grants = append(minute.Grants, now.Add(-20*time.Second))
	}
	l := Line{asOf: now, forecast: budget.Forecast{Windows: []budget.Used{minute.Leaving(5, 0)}, Waiting: budget.ByLane{3, 12, 6}}}
	in := func(d time.Duration) time.Time { return now.Add(d) }
	for name, c := range map[string]struct{ got, want Place }{
		"urgent":            {l.Place(message.LaneUrgent, 1), Place{Lane: message.LaneUrgent, Before: 1, Ahead: 1, ExpectedAt: in(42 * time.Second), LatestAt: in(42 * time.Second), AsOf: now}},
		"normal":            {l.Place(message.LaneNormal, 3), Place{Lane: message.LaneNormal, Before: 3, Ahead: 3 + 3 + 1, ExpectedAt: in(42 * time.Second), LatestAt: in(42 * time.Second), AsOf: now}},
		"the last of bulk":  {l.Place(message.LaneBulk, 5), Place{Lane: message.LaneBulk, Before: 5, Ahead: 20, ExpectedAt: in(104 * time.Second), LatestAt: in(104 * time.Second), AsOf: now}},
		"published by then": {l.Next(message.LaneNormal), Place{Lane: message.LaneNormal, Before: 12, Ahead: 3 + 12 + 4, ExpectedAt: in(104 * time.Second), LatestAt: in(104 * time.Second), AsOf: now}},
	} {
		if diff := cmp.Diff(c.want, c.got); diff != "" {
			t.Errorf("%s (-want +got): %s", name, diff)
		}
	}
	last, waits := l.Last(message.LaneBulk)
	if all := l.Calls(message.LaneBulk); !waits || last != l.Place(message.LaneBulk, 5) || len(all) != 6 || !all[5].Equal(last.ExpectedAt) {
		t.Errorf("the last of bulk: %+v, %v", last, all)
	}
	l.unavailable = WaitPaused
	if got, want := l.Place(message.LaneNormal, 3), (Place{Lane: message.LaneNormal, Before: 3, Ahead: 7, Unavailable: WaitPaused}); got != want || l.Calls(message.LaneNormal) != nil {
		t.Errorf("paused: %+v", got)
	}
}

// What holds up a request alone comes before what holds up all.
func TestPlaceOfItsOwn(t *testing.T) {
	now := time.Now()
	p := Place{Lane: message.LaneBulk, Before: 3, Ahead: 4, ExpectedAt: now, LatestAt: now, AsOf: now}
	own := func(why string, ahead int, notBefore time.Time) Place {
		return Place{Lane: message.LaneBulk, Ahead: ahead, Unavailable: why, NotBefore: notBefore}
	}
	for name, c := range map[string]struct {
		e    *ledger.Entry
		want Place
	}{
		"nobody has taken it":  {nil, p},
		"waits for its turn":   {&ledger.Entry{State: ledger.StateWaiting, NotBefore: now}, p},
		"awaits approval":      {&ledger.Entry{State: ledger.StateWaiting, Approval: &ledger.Approval{Asked: true}}, own(WaitAwaitingApproval, 4, time.Time{})},
		"its batch is paused":  {&ledger.Entry{State: ledger.StateWaiting, LastError: &message.Failure{Code: "held", Origin: message.OriginWorker}}, own(WaitHeld, 4, time.Time{})},
		"waits for its fault":  {&ledger.Entry{State: ledger.StateWaiting, NotBefore: now.Add(time.Minute)}, own(WaitOwn, 4, now.Add(time.Minute))},
		"the machine is busy":  {&ledger.Entry{State: ledger.StateWaiting, LastError: &message.Failure{Origin: message.OriginWorker}}, own(WaitOwn, 4, now)},
		"it is over its fault": {&ledger.Entry{State: ledger.StateWaiting, LastError: &message.Failure{Origin: message.OriginDefender}}, p},
		"called":               {&ledger.Entry{State: ledger.StateCalled}, own(WaitTaken, 0, time.Time{})},
		"accepted":             {&ledger.Entry{State: ledger.StateSubmitted}, own(WaitTaken, 0, time.Time{})},
	} {
		if diff := cmp.Diff(c.want, p.Own(c.e, now)); diff != "" {
			t.Errorf("%s (-want +got): %s", name, diff)
		}
	}
}

func TestPlaceInWords(t *testing.T) {
	now := time.Date(2026, 11, 24, 12, 0, 0, 0, time.Local)
	for want, p := range map[string]Place{
		"is expected to be called at " + admin.Clock(now.Add(100*time.Minute)) + " (" + admin.Clock(now.Add(115*time.Minute)) + " at the latest)": {ExpectedAt: now.Add(100 * time.Minute), LatestAt: now.Add(115 * time.Minute), AsOf: now},
		"is expected to be called at " + admin.Clock(now.Add(42*time.Second)):                                                                     {ExpectedAt: now.Add(42 * time.Second), LatestAt: now.Add(42 * time.Second), AsOf: now},
		"is called now": {ExpectedAt: now, LatestAt: now, AsOf: now},
		"waits for a fault of the system to end; `worker status` names it":                                                   {Unavailable: WaitSystemFault},
		"waits for a fault or a busy machine of its own, and is not tried again before " + admin.Clock(now.Add(time.Minute)): {Unavailable: WaitOwn, NotBefore: now.Add(time.Minute)},
		"is called as soon as a worker has a slot: there is no limit of calls":                                               {Unavailable: WaitNoLimit},
	} {
		if got := p.When(); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}
