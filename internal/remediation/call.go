package remediation

import (
	"cmp"
	"errors"
	"strings"
	"time"

	"example.com/unrestrict-worker/internal/defender"
	"example.com/unrestrict-worker/internal/ledger"
	"example.com/unrestrict-worker/internal/message"
)

// call makes the run's POST unless something forbids it, and decides what its answer means.
func (p *attempt) call(t *tries, s step) (ledger.Entry, step, error) {
	if s.do == doAgain {
		if s.cause != "" {
			p.Metrics.retry(s.cause)
		}
		if sleep(p.wait, s.after) != nil {
			return p.shutdown()
		}
	}
	if t.unsent == 0 { // otherwise the others wait for this very call
		if p.Breaker.awaitFirst(p.wait) != nil {
			return p.shutdown()
		}
	}
	e, s, err := p.mayCall()
	if err == nil && s.do == doCall && !p.Config.DryRun && p.guarded(guardGood) {
		if err := p.prepareLook(); err != nil {
			return p.notCalled(err)
		}
		e, s, err = p.mayCall() // the look may have taken a minute
	}
	if err != nil {
		return p.notCalled(err)
	}
	if s.do != doCall {
		return e, s, nil
	}
	if p.Config.DryRun {
		if err := p.guard(); err != nil {
			return p.notCalled(err)
		}
		e, s := endDryRun(p.e, p.facts())
		return e, s, nil
	}
	action, err := p.post(t)
	answer, isAnswer := errors.AsType[*defender.Error](err)
	if err != nil && (!isAnswer || answer.Op == ledger.OpList) {
		return p.notCalled(err)
	}
	d, f := decider(p.Config), p.answerFacts(t, answer)
	if err == nil {
		f.notOurs = p.notOurs(action)
		e, s := d.accepted(p.e, action, f)
		return e, s, nil
	}
	e, s = d.answered(p.e, answer, f)
	if s.do == doAgain && answer.Class == defender.Transient {
		t.unsent++
		t.held += s.after
	}
	return e, s, nil
}

func (p *attempt) shutdown() (ledger.Entry, step, error) {
	e, s := putOff(p.e, wait(0, "shutdown"))
	return e, s, nil
}

// answerFacts counts the answer and gathers the facts that decide what it means.
func (p *attempt) answerFacts(t *tries, a *defender.Error) facts {
	long := p.ambiguous.count(p.e.MachineID, a)
	if a != nil && a.Class == defender.Throttled {
		p.Breaker.ResetFrom(faultUnreachable)
	}
	if a != nil && a.Class == defender.Stale {
		t.stale++
	}
	if a != nil && a.Class == defender.Reauthenticate {
		t.reauth++
	}
	f := p.facts()
	f.tries, f.ambiguous, f.retry = *t, long, p.Config.Backoff.Delay(p.e.Failures+t.unsent)
	return f
}

// mayCall checks the facts that must hold right before a call.
func (p *attempt) mayCall() (ledger.Entry, step, error) {
	f, err := p.beforeCall()
	if err != nil {
		return p.e, step{}, err
	}
	e, s := decider(p.Config).beforeCall(p.e, f)
	p.e = e
	return e, s, nil
}

// beforeCall gathers the facts that must hold right before a call, those that cost nothing first. It stops at the first one
// that forbids the call, because asking the breaker may use up its probe.
func (p *attempt) beforeCall() (f facts, err error) {
	f = p.facts()
	if f.ordered.held != nil || f.approval.stops() { // the batch may have been resumed, or the run approved, a moment ago
		p.Orders.refresh(p.wait)
		f.ordered, f.approval = p.Orders.about(targetOf(&p.e)), p.approval(&p.e)
	}
	if f.refusal, f.allowed = p.refusal(); f.refusal != nil || f.halts() {
		return f, nil
	}
	if f.paused = p.paused(); f.paused > 0 {
		return f, nil
	}
	if err := p.Audit.Fits(p.e.Audit()); err != nil { // checked before the call, because an accepted one must be recorded
		f.unrecordable = err.Error()
		p.Shared.noteUnpublishable(p.key, p.e.ID, f.unrecordable)
		return f, nil
	}
	// At the first delivery the machine is nearly always free, and the write that takes it shows whether it is. On a redelivery
	// the record is read first, so that waiting for a busy machine costs no call of the budget.
	if p.d.Attempt > 1 && !p.Config.DryRun {
		if f.busy, err = p.machineHeld(); err != nil || f.busy {
			return f, err
		}
	}
	_, err = p.signerHours()
	if over, is := errors.AsType[refused](err); is {
		f.refusal, err = over.why, nil
	}
	return f, err
}

// refusal returns why the request must not be called for, as far as that is known without I/O.
func (p *attempt) refusal() (why *message.Failure, allowed bool) {
	if p.unauthorized != nil {
		return &message.Failure{Code: p.unauthorized.Code, Origin: message.OriginRequest, Message: p.unauthorized.Message}, false
	}
	if why := p.forbidden(); why != "" {
		return &message.Failure{Code: message.CodePolicy, Origin: message.OriginRequest, Message: why}, false
	}
	if t := p.req.ExpiresAt; !t.IsZero() && !time.Now().Before(t) {
		return &message.Failure{
			Code: message.CodeExpired, Origin: message.OriginRequest,
			Message: "expiresAt: the request expired at " + t.UTC().Format(time.RFC3339) + " before it could be carried out; publish it again if it still holds",
		}, true
	}
	return nil, p.Policy != nil
}

// paused is how long the breaker delays this message; 0: not at all.
func (p *attempt) paused() time.Duration {
	if wait, ok := p.Breaker.permits(p.key, p.d.Probe); !ok {
		return max(wait, time.Nanosecond)
	}
	return 0
}

// post makes the POST, and is the only function that does: permit, guard, orders, intent, POST, in this order and with
// nothing in between. The guard runs after the permit. Usually its look was made before (prepareLook); if the permit had to
// be waited for, it is made here. The POST leaves within Config.StartLimit of the intent or not at all, which the budget and
// defender enforce.
//
// A crash before the intent leaves a permit, which ages out. A crash after it leaves an entry that is "called", and the next
// delivery must look for the call.
func (p *attempt) post(t *tries) (action defender.MachineAction, err error) {
	permit, err := p.permit()
	if err != nil {
		return action, err
	}
	if p.facts().halts() { // facts may have changed while the permit was waited for, up to a minute
		return action, errOrdered
	}
	began := time.Now()
	if err := p.writeIntent(); err != nil {
		return action, err
	}
	t.intent = time.Since(began)
	sent := time.Now()
	action, err = p.Defender.Unrestrict(p.work, permit, p.e.MachineID, p.e.Comment)
	p.e.Stages.API += ledger.Duration(time.Since(sent))
	if answer, is := errors.AsType[*defender.Error](err); is && !answer.Sent {
		p.e.Attempts--
	}
	p.e.CompleteExchange(action.Exchange, err)
	return action, err
}

// lane is the lane of the delivered message.
func (p *attempt) lane() message.Lane { return cmp.Or(p.d.Lane, message.LaneNormal) }

// permit waits for the permit, then runs the guard.
func (p *attempt) permit() (permit defender.Permit, err error) {
	if permit, err = p.Defender.Ready(p.wait, string(p.lane())); err != nil {
		return permit, err
	}
	p.e.Stages.Granted(permit.Waited())
	return permit, p.guard()
}

// notCalled decides what follows a call that was not begun, because of err.
func (p *attempt) notCalled(err error) (ledger.Entry, step, error) {
	if errors.Is(err, errMachineBusy) {
		e, s := machineBusy(p.e, p.facts())
		return e, s, nil
	}
	if unread, is := errors.AsType[*ledger.UnreadError](err); is && errors.Is(err, ledger.ErrGarbled) {
		e, s := machineUnread(p.e, unread.Error())
		return e, s, nil
	}
	if over, is := errors.AsType[refused](err); is {
		e, s := reject(p.e, p.facts(), over.why)
		return e, s, nil
	}
	if errors.Is(err, errOrdered) {
		e, s := decider(p.Config).beforeCall(p.e, p.facts())
		if s.do == doCall { // resumed, or back in sync, since
			s = step{do: doAgain}
		}
		return e, s, nil
	}
	if wait, is := quotaWait(err); is {
		e, s := putOff(awaitQuota(p.e, wait, "quota", p.facts()))
		return e, s, nil
	}
	if _, is := errors.AsType[*defender.Error](err); is { // the guard's look
		p.e.State = ledger.StateWaiting
		return p.lookFailed(err)
	}
	return p.e, step{}, err
}

// errOrdered is returned for a call that must not be made now because of an order.
var errOrdered = errors.New("it was ordered otherwise")

// refused is the error of a call that must not be made.
type refused struct{ why *message.Failure }

func (r refused) Error() string { return r.why.Message }

// notOurs reports whether an action in the answer to our call was not created by it: it is older, has another comment, or is
// known to belong to another request.
func (p *attempt) notOurs(a defender.MachineAction) bool {
	if p.m.BelongsToOther(a.ID, p.key) || strings.TrimSpace(a.RequestorComment) != strings.TrimSpace(p.e.Comment) {
		return true
	}
	if !p.clockKnown() || a.CreationTime.IsZero() {
		return false
	}
	called := p.callByAPI()
	if p.e.CalledAt.Before(called) {
		called = p.e.CalledAt // an earlier call of this run may have created it
	}
	return a.CreationTime.Before(called)
}
