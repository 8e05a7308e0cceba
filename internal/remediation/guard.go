package remediation

import (
	"fmt"
	"strings"
	"time"

	"example.com/unrestrict-worker/internal/defender"
	"example.com/unrestrict-worker/internal/message"
)

// Types of the actions that a release would undo, or come too early for ([doc] machineaction.md).
const (
	typeRestrict = "RestrictCodeExecution"
	typeIsolate  = "Isolate"
)

const (
	// guardGood is how long one look of the guard serves the calls that follow it (docs/policy.md, old requests). A call begins up
	// to StartLimit after it passed the guard.
	guardGood = 15 * time.Second
	// guardAhead is how old a look may be before the grant. It is less than guardGood because the grant can take up to 5 s.
	guardAhead = 8 * time.Second
	// gatherCalls and gatherFor bound how many free calls a look waits for, and how long, when they come free one by one.
	gatherCalls = 20
	gatherFor   = time.Minute
)

// guard checks an old request, and every replay, against newer actions on its machine: if somebody restricted or isolated
// the machine after the request was published, he knew more than the request does. It runs right before each call. The error
// is refused if the run must not go on, and a *defender.Error if the look failed.
func (p *attempt) guard() error {
	if !p.guarded(0) {
		return nil
	}
	actions, err := p.newerActions()
	if err != nil {
		return err
	}
	for _, a := range actions {
		if strings.EqualFold(a.MachineID, p.e.MachineID) && restricts(a, p.publishedInAPITime()) {
			return refused{&message.Failure{Code: message.CodeRestrictedAgain, Origin: message.OriginRequest, Message: fmt.Sprintf(
				"the machine got %s (action %s) at %s, after the request was published; look at the machine, and publish a new request if it is to be released",
				a.Type, a.ID, a.CreationTime.Format(time.RFC3339))}}
		}
	}
	return nil
}

// prepareLook ensures that a look is available for a guarded request that is about to ask for its call. It comes before the
// grant, because a look may take longer than a grant is valid. When calls come free one by one it waits for several, so that
// one look serves them all.
func (p *attempt) prepareLook() error {
	if !p.guarded(guardGood) {
		return nil
	}
	_, err := p.guardLook(guardAhead, p.gather)
	return err
}

// gather waits for several free calls. An urgent request does not wait.
func (p *attempt) gather() error {
	if p.Quota == nil || p.lane() == message.LaneUrgent {
		return nil
	}
	began := time.Now()
	p.Shared.noteGathering(gatherFor)
	defer p.Shared.noteGathering(0)
	if err := p.Quota.Gather(p.wait, p.lane(), gatherCalls, gatherFor); err != nil {
		return err
	}
	p.e.Stages.Granted(time.Since(began))
	return nil
}

// newerActions returns the actions since the request was published that may restrict or isolate its machine.
func (p *attempt) newerActions() ([]defender.MachineAction, error) {
	l, err := p.guardLook(guardGood-p.Config.StartLimit, func() error { return nil })
	switch {
	case err != nil:
		return nil, err
	case !l.whole:
		actions, _, err := p.list(defender.Query{MachineID: p.e.MachineID, CreatedSince: p.publishedInAPITime()})
		return actions, err
	}
	p.e.AddSharedLook(l.call)
	return l.actions, nil
}

// guardLook returns a look at restricting and isolating actions that is no older than good and reaches back far enough for
// this request, or a look that is not whole. It calls before ahead of a new look.
func (p *attempt) guardLook(good time.Duration, before func() error) (look, error) {
	for again := true; ; again = false {
		n := need{begun: time.Now().Add(-good), since: p.publishedInAPITime()}
		l, err := p.Shared.restrictions.get(p.wait, p.key, n, func(oldest func() time.Time) (look, error) {
			if err := before(); err != nil {
				return look{}, err
			}
			p.Shared.noteGuard()
			return p.lookAtAll(oldest().Add(-time.Minute), typeRestrict, typeIsolate) // so that slightly older requests can use it too
		})
		// The answer shows the API's time. If its clock is far behind ours, the look did not reach back far enough.
		if err != nil || !again || !l.whole || !l.since.After(p.publishedInAPITime()) {
			return l, err
		}
		before = func() error { return nil }
	}
}

// guarded reports whether the guard applies to the request, now or after within.
func (p *attempt) guarded(within time.Duration) bool {
	return p.e.ReplayOf != 0 || p.Config.GuardAfter == 0 || p.BrokerNow().Sub(p.publishedAt())+within > p.Config.GuardAfter
}

// publishedAt is when the request was first published, by the broker's clock. The entry takes precedence, because the dead
// letter of a replay is deleted once the run is open. Entries of earlier versions lack the time.
func (p *attempt) publishedAt() time.Time {
	if p.e.AskedAt.IsZero() {
		return p.origin.Published
	}
	return p.e.AskedAt
}

// publishedInAPITime is publishedAt in the API's time, less the margin of apiTime: an action that was created before it
// certainly existed before the request.
func (p *attempt) publishedInAPITime() time.Time {
	return p.apiTime().Add(p.publishedAt().Sub(p.BrokerNow()))
}

// restricts reports whether the action may have restricted or isolated the machine since then. An action that ended without
// success did not. One that is open or has an unknown status may have. So may one whose time can't be read, because the API
// was asked only for newer ones.
func restricts(a defender.MachineAction, since time.Time) bool {
	if !strings.EqualFold(a.Type, typeRestrict) && !strings.EqualFold(a.Type, typeIsolate) || a.Final() && a.Status != "Succeeded" {
		return false
	}
	return a.CreationTime.IsZero() || !a.CreationTime.Before(since)
}
