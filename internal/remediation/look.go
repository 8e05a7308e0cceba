package remediation

import (
	"errors"
	"slices"
	"time"

	"go.uber.org/zap"

	"example.com/unrestrict-worker/internal/defender"
	"example.com/unrestrict-worker/internal/ledger"
)

// look finds out whether a call took place before another may be made. It looks for an action with the machine, type and
// comment of the run, created since its first call, that does not belong to another request.
func (p *attempt) look() (ledger.Entry, step, error) {
	d, f := decider(p.Config), p.facts()
	f.paused = p.paused()
	if e, s := d.beforeLook(p.e, f); s.do != doLook {
		return e, s, nil
	}
	actions, err := p.lookForCall(d.lookDue(p.e, f))
	if err != nil {
		return p.lookFailed(err)
	}
	found := first(actions, func(a defender.MachineAction) bool { return ours(&p.e, a, p.m.BelongsToOther(a.ID, p.key)) })
	if found != nil {
		found = p.withRaw(found)
		p.ambiguous.reset()
		p.Log.Info("a call whose answer was lost did take place", p.about(p.e.ID, zap.String("action_id", found.ID))...)
	}
	e, s := d.looked(p.e, found, p.facts())
	return e, s, nil
}

// withRaw returns the action with the API's own bytes, which a long list does not keep. If they can't be read, the result
// goes without them.
func (p *attempt) withRaw(a *defender.MachineAction) *defender.MachineAction {
	if len(a.Raw) > 0 || a.Cut {
		return a
	}
	whole, err := p.Defender.Action(p.wait, defender.UseLookup, a.ID)
	if p.e.AddLook(whole.Exchange, err); err != nil {
		return a
	}
	return &whole
}

// lookForCall returns the actions of a look that counts for this run: one that began when it was due or later
// (decider.lookDue). If the API's clock was not known at the call, the first answer shows it, and the look is repeated with
// the corrected time if it did not reach back far enough.
func (p *attempt) lookForCall(due time.Time) ([]defender.MachineAction, error) {
	if err := sleep(p.wait, time.Until(due)); err != nil { // the delivery may be early by slack
		return nil, err
	}
	p.dateCall()
	for again := true; ; again = false {
		since := p.e.CalledAt
		l, err := p.Shared.calls.get(p.wait, p.key, need{due, since}, func(oldest func() time.Time) (look, error) {
			return p.lookAtAll(p.Shared.calls.reach(oldest().Add(-lookBack)), defender.TypeUnrestrict)
		})
		if err == nil && !l.whole {
			l.actions, _, err = p.list(defender.Query{MachineID: p.e.MachineID, Type: defender.TypeUnrestrict, CreatedSince: since})
		} else if err == nil {
			p.e.AddSharedLook(l.call)
		}
		if err != nil {
			return nil, err
		}
		if p.dateCall(); !p.e.CalledAt.Before(since) || !again {
			return l.actions, nil
		}
	}
}

// lookBack is how much further back than needed a look reaches, so that it serves requests that come a moment later.
const lookBack = 2 * time.Minute

// dateCall corrects CalledAt once the API's clock is known, unless it was known at the call.
func (p *attempt) dateCall() {
	if !p.clockKnown() {
		return
	}
	blind := p.e.CalledAt.Equal(p.e.LastCall.Add(-wideMargin))
	switch at := p.callByAPI(); {
	case p.e.Owner == p.Config.Owner && (blind || at.Before(p.e.CalledAt)):
		p.e.CalledAt = at
	case p.e.Owner != p.Config.Owner && blind:
		// LastCall is by another process's clock. The part that both margins share is not subtracted twice.
		if at = at.Add(2*clockMargin - wideMargin); at.Before(p.e.CalledAt) {
			p.e.CalledAt = at
		}
	}
}

// adopt takes over the unrestrict action that blocks the machine. An earlier call of this run, which the looks did not find,
// may have created it, and the action may have ended since.
func (p *attempt) adopt(conflict *defender.Error) (ledger.Entry, step, error) {
	actions, _, err := p.list(defender.Query{MachineID: p.e.MachineID, Type: defender.TypeUnrestrict, Newest: true, Top: 50})
	if err != nil {
		p.e.State = ledger.StateWaiting // the API has refused the call
		return p.lookFailed(err)
	}
	own := func(a defender.MachineAction) bool { return ours(&p.e, a, p.m.BelongsToOther(a.ID, p.key)) }
	holding := first(actions, func(a defender.MachineAction) bool { return p.e.Attempts > 1 && own(a) })
	if holding == nil {
		holding = first(actions, func(a defender.MachineAction) bool { return unrestricts(&p.e, a) && !a.Final() })
	}
	f := p.facts()
	f.notOurs = holding != nil && !own(*holding)
	e, s := decider(p.Config).adopted(p.e, holding, conflict, f)
	return e, s, nil
}

func first(actions []defender.MachineAction, fits func(defender.MachineAction) bool) *defender.MachineAction {
	if i := slices.IndexFunc(actions, fits); i >= 0 {
		return &actions[i]
	}
	return nil
}

// lookFailed decides what follows a look that failed. If the budget granted no call for it, the run waits for quota.
func (p *attempt) lookFailed(err error) (ledger.Entry, step, error) {
	d, f := decider(p.Config), p.facts()
	if wait, is := quotaWait(err); is {
		e, s := d.lookNotGranted(p.e, wait, f)
		return e, s, nil
	}
	a, is := errors.AsType[*defender.Error](err)
	if !is {
		return p.e, step{}, err
	}
	f.listed = p.Shared.lastListed()
	p.Shared.listed(a)
	_, others := errors.AsType[sharedLookError](err) // which was counted already
	f.ambiguous = a.Class == defender.Ambiguous && !others && p.ambiguous.add(p.e.MachineID)
	e, s := d.lookFailed(p.e, a, f)
	return e, s, nil
}
