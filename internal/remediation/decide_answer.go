package remediation

import (
	"cmp"
	"fmt"
	"time"

	"example.com/unrestrict-worker/internal/defender"
	"example.com/unrestrict-worker/internal/health"
	"example.com/unrestrict-worker/internal/ledger"
	"example.com/unrestrict-worker/internal/message"
)

// Codes of a Fault of the system, the values of unrestrict_paused{reason} besides the operator's own.
const (
	faultStore       = health.Store
	faultPublish     = health.NotPublished
	faultSlow        = health.SlowBroker
	faultUnreachable = health.Unreachable
	faultAmbiguous   = health.UnclearAnswers
)

const (
	// holdFor is how long attempts that never left this machine are repeated within one delivery. After that the message is
	// nakked.
	holdFor = 3 * time.Second
	// maxStale bounds how often a call that could not leave in time is prepared again before the message is nakked, because each
	// time costs a call of the budget.
	maxStale = 3
	// notFoundTwice is how far apart two 404 must be to count, because the API sometimes answers 404 for a valid machine.
	notFoundTwice = 5 * time.Second
)

// accepted records the action of an accepted call. No further call is made for the request. Facts: now, notOurs.
func (d decider) accepted(e ledger.Entry, a defender.MachineAction, f facts) (ledger.Entry, step) {
	e.Adopted = f.notOurs
	return d.taken(e, a, f)
}

// taken makes a the run's action. The action is followed to its end; without Track the run ends here.
func (d decider) taken(e ledger.Entry, a defender.MachineAction, f facts) (ledger.Entry, step) {
	e.ActionID, e.Created = a.ID, a.CreationTime
	e.KeepAction(a, d.MaxAction)
	e.AcceptedAt, e.Cancel = f.now.UTC(), cmp.Or(e.Cancel, f.ordered.cancel)
	e.LastError, e.Owner = nil, ""
	e.State, e.Follow = ledger.StateSubmitted, d.Track
	if !e.Follow {
		e = ended(e, f.now, message.Submitted, nil, false)
	}
	return e, step{do: doPublish, up: true, mustSave: true}
}

// answered decides what any answer but an acceptance means (defender.Classify), or a missing one. Facts: now, message,
// tries, retry, backoff, answered, ambiguous.
func (d decider) answered(e ledger.Entry, a *defender.Error, f facts) (ledger.Entry, step) {
	switch a.Class {
	case defender.Stale:
		return d.stale(e, f)
	case defender.Reauthenticate:
		if f.tries.reauth < 2 {
			return e, step{do: doAgain}
		}
	case defender.Transient:
		if f.tries.held+f.retry <= holdFor {
			return e, step{do: doAgain, after: f.retry, cause: "transient"}
		}
		if f.answered.Before(f.tries.began) {
			return putOff(unreachable(e, a))
		}
		return d.failed(e, 0, "transient", failure(a), f)
	case defender.Throttled:
		return putOff(awaitQuota(e, a.RetryAfter, "throttled", f))
	case defender.Ambiguous:
		return d.unclear(e, a, f)
	case defender.Conflict:
		return e, step{do: doAdopt, up: true, conflict: a}
	case defender.NotFound:
		return d.notFound(e, a, f)
	case defender.Rejected:
		e, s := reject(e, f, failure(a))
		s.up = a.StatusCode != 403
		return e, s
	}
	if a.FromProxy() { // a proxy answered, which may have forwarded the call
		return d.unclear(e, a, f)
	}
	return putOff(systemFault(e, a))
}

// unclear leaves a call that may have taken place to the look-ups.
func (d decider) unclear(e ledger.Entry, a *defender.Error, f facts) (ledger.Entry, step) {
	e.State, e.LookFrom, e.LastError = ledger.StateUnknown, f.now.UTC(), failure(a)
	s := wait(d.nextLook(e, f).Sub(f.now), "unclear")
	s.mustSave = true
	switch {
	case a.FromProxy():
		s.fault = &Fault{Code: defender.CodeLabel(a.Code), Reason: a.Reason}
	case f.ambiguous:
		s.fault = ambiguousFault(a)
	}
	return e, s
}

// notFound rejects at the second 404. An empty 404 counts as Defender's own only if Defender has answered anything since the
// first one; otherwise something else answers in its place.
func (d decider) notFound(e ledger.Entry, a *defender.Error, f facts) (ledger.Entry, step) {
	var s step
	switch {
	case !e.NotFound.IsZero() && a.Empty && !f.answered.After(e.NotFound):
		return d.unclear(e, a.NotDefender(), f)
	case !e.NotFound.IsZero() && f.now.Sub(e.NotFound) >= notFoundTwice:
		e, s = reject(e, f, failure(a))
	default:
		if e.NotFound.IsZero() {
			e.NotFound = f.now.UTC()
		}
		e, s = d.failed(e, notFoundTwice+100*time.Millisecond, "notFound", failure(a), f)
	}
	s.up = !a.Empty
	return e, s
}

// slowFor is how long the write of the intent may take before late calls are blamed on the broker. The grant takes two round
// trips to the broker as well, which count too.
func (d decider) slowFor() time.Duration { return d.StartLimit / 4 }

// stale repeats a call whose permit was too old. After maxStale tries it naks, with a fault if the broker is too slow.
func (d decider) stale(e ledger.Entry, f facts) (ledger.Entry, step) {
	switch {
	case f.tries.stale < maxStale:
		return e, step{do: doAgain}
	case f.tries.intent < d.slowFor():
		return putOff(e, wait(time.Second, "stale"))
	}
	return putOff(e, step{do: doWait, cause: faultSlow, fault: &Fault{Code: faultSlow, Reason: fmt.Sprintf(
		"the broker takes %s to store what must be durable before a call, so that granted calls are too old by then; see its disk, its load and the way to it",
		f.tries.intent.Round(time.Millisecond))}})
}

// failed naks the message because of the request's own fault, with a growing delay, or gives the request up. The request has
// no call under way. Facts: now, message, backoff.
func (d decider) failed(e ledger.Entry, atLeast time.Duration, cause string, why *message.Failure, f facts) (ledger.Entry, step) {
	delay := max(f.backoff, atLeast)
	e.State = ledger.StateWaiting
	e.Failures++
	e.Failed += ledger.Duration(delay)
	e.LastError = why
	if time.Duration(e.Failed) > d.GiveUpAfter {
		return giveUp(e, f)
	}
	e.NotBefore = f.now.Add(delay).UTC()
	return e, wait(delay, cause)
}

// systemFault naks the message because of a fault of the system, which does not count against the request.
func systemFault(e ledger.Entry, a *defender.Error) (ledger.Entry, step) {
	fault := &Fault{Code: defender.CodeLabel(a.Code), Reason: cmp.Or(a.Reason, a.Error())}
	if a.Op == "token" {
		fault.Code = health.Token
	}
	if id := a.Exchange.CorrelationID; id != "" {
		fault.Reason += " (correlation id " + id + ")"
	}
	e.LastError = failure(a)
	return e, step{do: doWait, cause: "systemFault", fault: fault}
}

func unreachable(e ledger.Entry, a *defender.Error) (ledger.Entry, step) {
	e.LastError = failure(a)
	return e, step{do: doWait, cause: faultUnreachable, fault: &Fault{
		Code:   faultUnreachable,
		Reason: "the Defender API cannot be reached: " + a.Error() + "; check DEFENDER_API_URL, name resolution, the proxy and the firewall",
	}}
}

func ambiguousFault(a *defender.Error) *Fault {
	return &Fault{Code: faultAmbiguous, Reason: fmt.Sprintf(
		"several calls in a row got no clear answer (last: %s); see whether the Defender API or a proxy before it is in trouble. Every one is looked up before it is made again", a.Error())}
}

// merged merges the outcome of a call (mine) with what another process has written meanwhile (theirs). An accepted call
// overrules an open entry, because the action exists. It does not overrule an entry with an action or a decision. An answer
// without an action overrules nothing: the other process may be calling by now. If there is no entry any more, everything
// known is written again.
func merged(mine, theirs ledger.Entry) (e ledger.Entry, overrules bool) {
	open := theirs.State == ledger.StateWaiting || theirs.State == ledger.StateCalled || theirs.State == ledger.StateUnknown
	if theirs.State == "" { // the ledger was lost and recreated
		mine.Revision = theirs.Revision
		return mine, true
	}
	if theirs.Run != mine.Run || !open || mine.ActionID == "" {
		return theirs, false
	}
	mine.Revision = theirs.Revision
	mine.Attempts = max(mine.Attempts, theirs.Attempts)
	return mine, true
}
