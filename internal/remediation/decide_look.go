package remediation

import (
	"strings"
	"time"

	"example.com/unrestrict-worker/internal/defender"
	"example.com/unrestrict-worker/internal/ledger"
)

// lookAfter are when the API is asked whether a call took place, in multiples of the reconcile delay (docs/configuration.md).
var lookAfter = [...]time.Duration{1, 3, 6}

// lookAt is when the run's next look is due. The last one is not before the call has timed out, which may have left as late as
// the permit allowed.
func (d decider) lookAt(e ledger.Entry) time.Time {
	n := min(e.Looks, len(lookAfter)-1)
	at := e.LookFrom.Add(lookAfter[n] * d.ReconcileDelay)
	if past := e.LastCall.Add(d.startLimit(e) + d.Timeout); n == len(lookAfter)-1 && at.Before(past) {
		return past
	}
	return at
}

// lookDue is when a look must have begun at the earliest to count as the run's next: it is due, and none counts twice. An early
// look is due at once, for what was seen before the message was redelivered may be older than the call. Facts: now.
func (d decider) lookDue(e ledger.Entry, f facts) time.Time {
	if e.State == ledger.StateCalled {
		return f.now.Add(-lookShared)
	}
	due := d.lookAt(e)
	if last := e.LastLook(); e.Looks > 0 && last.Operation == ledger.OpList && !due.After(last.Time) {
		return last.Time.Add(1)
	}
	return due
}

// lookShared is how much older than an early look's need a look may be: it serves all messages that a dead process had in hand.
const lookShared = time.Second

// nextLook is when the next look is made. The looks of one process are made at the same instants, so that one list serves all
// that are due by then; at fewer while requests wait for the calls that looks cost. Facts: now, contended.
func (d decider) nextLook(e ledger.Entry, f facts) time.Time {
	every := d.ReconcileDelay / 2
	if f.contended {
		every = lookAfter[len(lookAfter)-1] * d.ReconcileDelay
	}
	due := d.lookDue(e, f)
	at := due.Truncate(every)
	if at.Before(due) {
		at = at.Add(every)
	}
	return at
}

// beforeLook puts a look off while the breaker is open. Facts: paused.
func (d decider) beforeLook(e ledger.Entry, f facts) (ledger.Entry, step) {
	if f.paused > 0 {
		return e, wait(f.paused, "systemFault")
	}
	return e, step{do: doLook}
}

// lookNotGranted follows a look that was not made because the budget had no call left for it.
func (d decider) lookNotGranted(e ledger.Entry, quota time.Duration, f facts) (ledger.Entry, step) {
	if e.State == ledger.StateCalled { // an early look
		return e, d.awaitOwner(e, f)
	}
	return awaitQuota(e, quota, "quota", f)
}

// looked follows a look for the run's call; found is its action, nil where the list does not show it. Three looks that do
// not show it allow another call. An early look, at a call that may still be under way, counts only if it shows the call.
// Facts: now, brokerNow, contended, orphaned, served, tripped.
func (d decider) looked(e ledger.Entry, found *defender.MachineAction, f facts) (ledger.Entry, step) {
	if found != nil {
		e.Attempts = max(e.Attempts, 1) // of a run that a lost ledger has forgotten none is known
		return d.taken(e, *found, f)
	}
	if e.State == ledger.StateCalled {
		return e, d.awaitOwner(e, f)
	}
	if e.Looks++; e.Looks < len(lookAfter) {
		return e, wait(d.nextLook(e, f).Sub(f.now), "unclear")
	}
	e.State = ledger.StateWaiting
	e.Failures++
	// The looks were answered, so the API is there. Whether it takes calls at all shows in others' since this request was
	// first taken, and in there being no fault now.
	if !f.tripped && f.servedWithin(f.now.Sub(e.ReceivedAt)) {
		// Only the time that the looks take counts; waiting for a permission or for quota does not.
		e.Failed += ledger.Duration(d.lookAt(e).Sub(e.LookFrom))
	}
	if time.Duration(e.Failed) > d.GiveUpAfter {
		return giveUp(e, f)
	}
	return e, step{do: doCall}
}

// adopted follows a conflict: the machine's own unrestrict action is taken over, whatever else holds the machine is waited
// for. An earlier call of this run, which the looks did not show, may have made it. Facts: now, message, backoff.
func (d decider) adopted(e ledger.Entry, holding *defender.MachineAction, conflict *defender.Error, f facts) (ledger.Entry, step) {
	if holding == nil {
		return d.failed(e, d.ReconcileDelay, "conflict", failure(conflict), f)
	}
	e.Adopted = f.notOurs
	return d.taken(e, *holding, f)
}

// lookFailed follows a look that failed, which does not count as a look. If a permission is missing, or the API refuses every
// list, the request waits for the end of that at no cost. Facts: now, brokerNow, orphaned, stopping, backoff, deliveryBackoff,
// answered, ambiguous, served, listed, message.
func (d decider) lookFailed(e ledger.Entry, a *defender.Error, f facts) (ledger.Entry, step) {
	switch {
	case e.State == ledger.StateCalled: // an early look
		return e, d.awaitOwner(e, f)
	case a.Class == defender.System && a.StatusCode == 403:
		return e, wait(f.deliveryBackoff, "mayNotList")
	case a.Class == defender.Rejected && !f.within(f.listed, f.brokerNow.Sub(e.Written)): // nobody's list is answered
		return e, wait(f.deliveryBackoff, "listRefused")
	case a.Class == defender.System:
		return systemFault(e, a)
	case a.Class == defender.Throttled:
		return awaitQuota(e, a.RetryAfter, "throttled", f)
	case a.Class == defender.Reauthenticate:
		return e, wait(0, "reauthenticate")
	case f.stopping:
		return e, wait(0, "shutdown")
	case a.Class == defender.Transient && f.now.Sub(f.answered) > holdFor:
		return unreachable(e, a)
	}
	// The failure counts against the request only if the API served others since the request was last put off. An API that
	// is away counts against nobody.
	e.Failures++
	if f.servedWithin(f.brokerNow.Sub(e.Written)) {
		e.Failed += ledger.Duration(f.backoff)
	}
	var fault *Fault
	if a.Class == defender.Ambiguous && f.ambiguous {
		fault = ambiguousFault(a)
	}
	if time.Duration(e.Failed) > d.GiveUpAfter {
		e, s := giveUp(e, f)
		s.fault = fault
		return e, s
	}
	s := wait(f.backoff, "lookUpFailed")
	s.fault = fault
	return e, s
}

// servedWithin reports whether the API took a call of this replica, for any request, in the last d.
func (f facts) servedWithin(d time.Duration) bool { return f.within(f.served, d) }

func (f facts) within(at time.Time, d time.Duration) bool { return !at.IsZero() && f.now.Sub(at) < d }

// ours says whether an action can be of a call of this run: the machine, the type, the comment, created since its first
// call, and not known to be another request's.
func ours(e *ledger.Entry, a defender.MachineAction, others bool) bool {
	return unrestricts(e, a) && strings.TrimSpace(a.RequestorComment) == strings.TrimSpace(e.Comment) &&
		(a.CreationTime.IsZero() || !a.CreationTime.Before(e.CalledAt)) && !others
}

func unrestricts(e *ledger.Entry, a defender.MachineAction) bool {
	return strings.EqualFold(a.Type, defender.TypeUnrestrict) && strings.EqualFold(a.MachineID, e.MachineID)
}

// leaseRemaining is how much longer another process may be in the middle of its call. After that the process is dead, or its
// answer lost. If this process owns the call, no handler works on it any more: it ended without being recorded.
func (d decider) leaseRemaining(e ledger.Entry, f facts) time.Duration {
	if e.Owner == d.Owner {
		return 0
	}
	return e.Written.Add(d.startLimit(e) + d.Timeout + d.ReconcileDelay).Sub(f.brokerNow)
}

// awaitOwner leaves a call to the process that made it, for as long as that may be in the middle of it. If its message was
// redelivered, which shows that it is dead or cut off from the broker, the next early look follows when the intent is twice
// as old, so that a call without effect costs few of them.
func (d decider) awaitOwner(e ledger.Entry, f facts) step {
	rest := d.leaseRemaining(e, f)
	if f.orphaned {
		rest = min(rest, max(f.brokerNow.Sub(e.Written), time.Second))
	}
	return wait(rest, "inFlight")
}

// lastPossibleEnd is when a call whose process died can have ended at the latest; one of this process ended before now.
func (d decider) lastPossibleEnd(e ledger.Entry, f facts) time.Time {
	if e.Owner == d.Owner {
		return f.now.UTC()
	}
	return e.LastCall.Add(d.startLimit(e) + d.Timeout)
}

// startLimit is how long after its intent the call can have begun.
func (d decider) startLimit(e ledger.Entry) time.Duration {
	return max(d.StartLimit, e.StartBy.Sub(e.LastCall)) // of none it is far below zero
}

// holderTimeout is how long after its last write a holder that is calling loses the machine: its message must have been
// purged, because no live request is silent for so long. It is no longer than the machine's record exists.
func (d decider) holderTimeout() time.Duration {
	alive := longestStart + d.Timeout + 11*d.ReconcileDelay // the looks take ten
	return min(max(d.GiveUpAfter, alive), ledger.Retention)
}

// goneAfter is how long after its last write a holder loses the machine if its message is seen to be gone: by then nobody has it
// in hand, and the margins of the API's clock are behind its call.
func (d decider) goneAfter() time.Duration {
	return max(5*time.Minute, longestStart+d.Timeout+11*d.ReconcileDelay)
}

// leftBehind is a called entry that nobody takes up. Facts: now.
func (d decider) leftBehind(e ledger.Entry, f facts) ledger.Entry {
	e.State, e.LookFrom = ledger.StateUnknown, d.lastPossibleEnd(e, f)
	return e
}

// longestStart is how long after its intent a call of any version can begin.
const longestStart = 10 * time.Second
