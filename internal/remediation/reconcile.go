package remediation

import (
	"errors"
	"slices"
	"strings"
	"time"

	"go.uber.org/zap"

	"example.com/unrestrict-worker/internal/defender"
)

// looks are when the API is asked whether a call took place, in multiples of the reconcile delay (contract §2).
var looks = [...]time.Duration{1, 3, 6}

// reconcile finds out what became of a call before another may be made: it looks for an action of the machine, the
// type and the comment, created since the run's first call, that is not another request's.
func (p *passage) reconcile() (Outcome, error) {
	if _, err := p.readMachine(); err != nil {
		return Outcome{}, err
	}
	if p.e.State == StateCalled {
		if p.m.Holder != p.key && p.BrokerNow().Sub(p.e.Written) < p.orphaned()-time.Minute {
			// Nobody can have taken the machine from this run, nor has its record expired: it was never taken for it.
			p.e.State, p.e.Attempts = StateWaiting, p.e.Attempts-1
			p.e.neverCalled()
			return p.call()
		}
		p.e.State, p.e.LookFrom = StateUnknown, p.lastPossibleEnd()
	}
	if rest := time.Until(p.nextLook()); rest > 50*time.Millisecond {
		return p.handBack(rest, "unclear")
	}
	if wait, ok := p.calm(); !ok {
		return p.handBack(wait, "systemFault")
	}
	actions, err := p.lookForCall()
	if err != nil {
		return p.lookFailed(err)
	}
	p.Notes.mayList(true, "")
	for _, a := range actions {
		if p.ours(a) {
			p.Log.Info("a call whose answer was lost did take place", p.about(p.e.ID, zap.String("action_id", a.ID))...)
			p.Gate.Healthy()
			p.streak.end()
			return p.adoptAs(a)
		}
	}
	if p.e.Looks++; p.e.Looks < len(looks) {
		if err := p.save(0); err != nil {
			return Outcome{}, err
		}
		return Later(time.Until(p.nextLook()), "unclear"), nil
	}
	return p.callAgain()
}

// lookForCall lists what may be the run's call. Where the API's clock was not known at the call, the first answer tells
// it, and what was asked for is corrected: too little, of a clock far behind ours, or, by the process that called, too much.
func (p *passage) lookForCall() ([]defender.MachineAction, error) {
	p.dateCall()
	for again := true; ; again = false {
		since := p.e.CalledAt
		actions, err := p.look(defender.Query{MachineID: p.e.MachineID, Type: defender.TypeUnrestrict, CreatedSince: since})
		if err != nil {
			return nil, err
		}
		if p.dateCall(); !p.e.CalledAt.Before(since) || !again {
			return actions, nil
		}
	}
}

// dateCall puts CalledAt right once the API's clock is known. A process that knew it then has it right.
func (p *passage) dateCall() {
	if !p.clockKnown() {
		return
	}
	blind := p.e.CalledAt.Equal(p.e.LastCall.Add(-wideMargin))
	switch at := p.callByAPI(); {
	case p.e.Owner == p.Config.Owner && (blind || at.Before(p.e.CalledAt)):
		p.e.CalledAt = at
	case p.e.Owner != p.Config.Owner && blind:
		// LastCall is by a clock that nobody here knows. What both margins have in common is not taken twice.
		if at = at.Add(2*clockMargin - wideMargin); at.Before(p.e.CalledAt) {
			p.e.CalledAt = at
		}
	}
}

// callAgain follows three looks that did not show the call.
func (p *passage) callAgain() (Outcome, error) {
	p.e.State = StateWaiting
	p.e.Failures++
	// The looks were answered, so the API is there. Whether it takes calls at all shows in others' since this request was
	// first taken, and in there being no fault now.
	if _, on := p.Gate.Current(); !on && p.Gate.servedWithin(time.Since(p.e.ReceivedAt)) {
		// Only the time that the looks take: for a permission or for quota it waited at no cost.
		p.e.Failed += Duration(p.nextLook().Sub(p.e.LookFrom))
	}
	if time.Duration(p.e.Failed) > p.Config.GiveUpAfter {
		return p.giveUp()
	}
	return p.call()
}

func (p *passage) ours(a defender.MachineAction) bool {
	return strings.EqualFold(a.Type, defender.TypeUnrestrict) && strings.EqualFold(a.MachineID, p.e.MachineID) &&
		strings.TrimSpace(a.RequestorComment) == strings.TrimSpace(p.e.Comment) &&
		(a.CreationTime.IsZero() || !a.CreationTime.Before(p.e.CalledAt)) && !p.m.others(a.ID, p.key)
}

// lastPossibleEnd is when a call whose process died can have ended at the latest; one of this process ended before now.
func (p *passage) lastPossibleEnd() time.Time {
	if p.e.Owner == p.Config.Owner {
		return time.Now().UTC()
	}
	return p.e.LastCall.Add(p.startLimit() + p.Config.Timeout)
}

// startLimit is how long after the intent the call can have begun.
func (p *passage) startLimit() time.Duration {
	return max(p.Config.StartLimit, p.e.StartBy.Sub(p.e.LastCall)) // of none it is far below zero
}

func (p *passage) nextLook() time.Time {
	n := min(p.e.Looks, len(looks)-1)
	at := p.e.LookFrom.Add(looks[n] * p.Config.ReconcileDelay)
	if past := p.e.LastCall.Add(p.Config.Timeout); n == len(looks)-1 && at.Before(past) {
		return past
	}
	return at
}

// adopt takes over the unrestrict action that holds the machine, or waits for whatever else does. An earlier call of this
// run, which the looks did not show, may have made it, and it may have ended since.
func (p *passage) adopt(conflict *defender.Error) (Outcome, error) {
	actions, err := p.look(defender.Query{
		MachineID: p.e.MachineID, Type: defender.TypeUnrestrict, Newest: true, Top: 50,
	})
	if err != nil {
		p.e.State = StateWaiting
		return p.lookFailed(err)
	}
	p.Notes.mayList(true, "")
	own := func(a defender.MachineAction) bool { return p.e.Attempts > 1 && p.ours(a) }
	open := func(a defender.MachineAction) bool {
		return strings.EqualFold(a.Type, defender.TypeUnrestrict) && strings.EqualFold(a.MachineID, p.e.MachineID) && !a.Final()
	}
	for _, fits := range []func(defender.MachineAction) bool{own, open} {
		if i := slices.IndexFunc(actions, fits); i >= 0 {
			p.e.Adopted = !p.ours(actions[i])
			return p.adoptAs(actions[i])
		}
	}
	return p.fail(p.Config.ReconcileDelay, "conflict", failure(conflict))
}

// lookFailed counts for nothing towards the looks. A refusal for lack of permission parks the request until the
// permission is there.
func (p *passage) lookFailed(err error) (Outcome, error) {
	var a *defender.Error
	if !errors.As(err, &a) {
		return p.notReady(err)
	}
	switch {
	case a.Class == defender.System && a.StatusCode == 403:
		p.Notes.mayList(false, a.Reason)
		p.Metrics.retry("mayNotList")
		return p.handBack(p.Config.Backoff.Delay(p.d.Attempt), "mayNotList")
	case a.Class == defender.System:
		return p.faulted(a)
	case a.Class == defender.Throttled:
		return p.awaitQuota(a.RetryAfter, "throttled")
	case a.Class == defender.Reauthenticate:
		return p.handBack(0, "reauthenticate")
	}
	return p.lookAgain(a)
}

// lookAgain follows a look-up that got no answer to go by. It brings the request nearer to being given up only if others
// were served since it was last put off: an API that is away costs nobody anything.
func (p *passage) lookAgain(a *defender.Error) (Outcome, error) {
	switch {
	case p.wait.Err() != nil:
		return p.handBack(0, "shutdown")
	case a.Class == defender.Transient && time.Since(p.Defender.Answered()) > holdFor:
		return p.outOfReach(a)
	case a.Class == defender.Ambiguous && p.streak.unclear(p.e.MachineID):
		p.fault(faultAmbiguous, unclearReason(a))
	}
	delay := p.Config.Backoff.Delay(p.e.Failures)
	p.e.Failures++
	if p.Gate.servedWithin(p.BrokerNow().Sub(p.e.Written)) {
		p.e.Failed += Duration(delay)
	}
	if time.Duration(p.e.Failed) > p.Config.GiveUpAfter {
		return p.giveUp()
	}
	if err := p.save(0); err != nil {
		return Outcome{}, err
	}
	return Later(delay, "lookUpFailed"), nil
}
