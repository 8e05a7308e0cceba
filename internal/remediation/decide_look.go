package remediation

import (
	"strings"
	"time"

	"example.com/unrestrict-worker/internal/defender"
	"example.com/unrestrict-worker/internal/ledger"
)

// lookAfter are the times after a call at which the API is asked whether it took place, in multiples of the reconcile delay
// (docs/configuration.md).
var lookAfter = [...]time.Duration{1, 3, 6}

// lookAt is when the run's next look is due. The last look is not made before the call, which may have left as late as the
// permit allowed, has timed out.
func (d decider) lookAt(e ledger.Entry) time.Time {
	n := min(e.Looks, len(lookAfter)-1)
	at := e.LookFrom.Add(lookAfter[n] * d.ReconcileDelay)
	if past := e.LastCall.Add(d.startLimit(e) + d.Timeout); n == len(lookAfter)-1 && at.Before(past) {
		return past
	}
	return at
}

// lookDue is when a look must have begun at the earliest to count as the run's next: when it is due, and after the last one,
// because no look counts twice. An early look is due at once, because a look from before the redelivery may be older than
// the call. Facts: now.
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

// lookShared is how old a look may be to serve as an early look: so one look serves all messages that a dead process had in
// hand.
const lookShared = time.Second

// nextLook is when the next look is made. The runs of one process look at the same instants, so that one list serves all
// looks that are due by then. While requests wait for the calls that looks cost, the instants are fewer. Facts: now,
// contended.
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

// lookNotGranted decides what follows if the budget had no call left for a look.
func (d decider) lookNotGranted(e ledger.Entry, quota time.Duration, f facts) (ledger.Entry, step) {
	if e.State == ledger.StateCalled { // an early look
		return e, d.awaitOwner(e, f)
	}
	return awaitQuota(e, quota, "quota", f)
}

// looked decides what follows a look for the run's call; found is its action, nil if the list does not contain it. Three
// looks that do not find it allow another call. An early look, at a call that may still be under way, counts only if it
// finds the call. Facts: now, brokerNow, contended, orphaned, served, tripped.
func (d decider) looked(e ledger.Entry, found *defender.MachineAction, f facts) (ledger.Entry, step) {
	if found != nil {
		e.Attempts = max(e.Attempts, 1) // a run from before the ledger was lost has none recorded
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
	// The looks were answered, so the API is reachable. It takes calls if it took one of any request since this one was first
	// delivered, and if there is no fault now.
	if !f.tripped && f.servedWithin(f.now.Sub(e.ReceivedAt)) {
		// Only the time that the looks take counts; waiting for a permission or for quota does not.
		e.Failed += ledger.Duration(d.lookAt(e).Sub(e.LookFrom))
	}
	if time.Duration(e.Failed) > d.GiveUpAfter {
		return giveUp(e, f)
	}
	return e, step{do: doCall}
}

// adopted decides what follows a conflict: the machine's own unrestrict action is adopted; any other action that blocks the
// machine is waited for. An earlier call of this run, which the looks did not find, may have created it. Facts: now,
// message, backoff.
func (d decider) adopted(e ledger.Entry, holding *defender.MachineAction, conflict *defender.Error, f facts) (ledger.Entry, step) {
	if holding == nil {
		return d.failed(e, d.ReconcileDelay, "conflict", failure(conflict), f)
	}
	e.Adopted = f.notOurs
	return d.taken(e, *holding, f)
}

// lookFailed decides what follows a look that failed, which does not count as a look. If a permission is missing, or the API
// refuses every list, the request waits for the end of that at no cost. Facts: now, brokerNow, orphaned, stopping, backoff,
// deliveryBackoff, answered, ambiguous, served, listed, message.
func (d decider) lookFailed(e ledger.Entry, a *defender.Error, f facts) (ledger.Entry, step) {
	switch {
	case e.State == ledger.StateCalled: // an early look
		return e, d.awaitOwner(e, f)
	case a.Class == defender.System && a.StatusCode == 403:
		return e, wait(f.deliveryBackoff, "mayNotList")
	case a.Class == defender.Rejected && !f.within(f.listed, f.brokerNow.Sub(e.Written)): // no list at all is answered
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
	// The failure counts against the request only if the API served others since the request was last put off, not if the API is
	// unreachable.
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

// servedWithin reports whether the API took a call of this replica, for any request, within the last d.
func (f facts) servedWithin(d time.Duration) bool { return f.within(f.served, d) }

func (f facts) within(at time.Time, d time.Duration) bool { return !at.IsZero() && f.now.Sub(at) < d }

// ours reports whether an action can be from a call of this run: same machine, type and comment, created since the run's
// first call, and not known to be another request's.
func ours(e *ledger.Entry, a defender.MachineAction, others bool) bool {
	return unrestricts(e, a) && strings.TrimSpace(a.RequestorComment) == strings.TrimSpace(e.Comment) &&
		(a.CreationTime.IsZero() || !a.CreationTime.Before(e.CalledAt)) && !others
}

func unrestricts(e *ledger.Entry, a defender.MachineAction) bool {
	return strings.EqualFold(a.Type, defender.TypeUnrestrict) && strings.EqualFold(a.MachineID, e.MachineID)
}

// leaseRemaining is how much longer another process may still be making its call. After that the process is dead, or the
// answer was lost. If this process owns the call, none of its handlers works on it any more: the call ended without being
// recorded.
func (d decider) leaseRemaining(e ledger.Entry, f facts) time.Duration {
	if e.Owner == d.Owner {
		return 0
	}
	return e.Written.Add(d.startLimit(e) + d.Timeout + d.ReconcileDelay).Sub(f.brokerNow)
}

// awaitOwner naks a message while the process that made its call may still be waiting for the answer. If the message was
// redelivered, that process is dead or cut off from the broker; then the next early look follows when the intent is twice as
// old, so that a call without effect costs few looks.
func (d decider) awaitOwner(e ledger.Entry, f facts) step {
	rest := d.leaseRemaining(e, f)
	if f.orphaned {
		rest = min(rest, max(f.brokerNow.Sub(e.Written), time.Second))
	}
	return wait(rest, "inFlight")
}

// lastPossibleEnd is when a call of a dead process has ended at the latest. A call of this process ended before now.
func (d decider) lastPossibleEnd(e ledger.Entry, f facts) time.Time {
	if e.Owner == d.Owner {
		return f.now.UTC()
	}
	return e.LastCall.Add(d.startLimit(e) + d.Timeout)
}

// startLimit is how long after its intent the call can have begun.
func (d decider) startLimit(e ledger.Entry) time.Duration {
	return max(d.StartLimit, e.StartBy.Sub(e.LastCall)) // without StartBy the difference is far below zero
}

// holderTimeout is how long after its last write a calling holder loses the machine. Its message must have been purged,
// because no live request goes so long without a write. The timeout is no longer than the machine's record exists.
func (d decider) holderTimeout() time.Duration {
	alive := longestStart + d.Timeout + 11*d.ReconcileDelay // the looks take ten
	return min(max(d.GiveUpAfter, alive), ledger.Retention)
}

// purgedAfter is how long after its last write a holder loses the machine if its message is found to be missing from the
// stream. By then no process handles it any more, and its call is older than the margins of the API's clock.
func (d decider) purgedAfter() time.Duration {
	return max(5*time.Minute, longestStart+d.Timeout+11*d.ReconcileDelay)
}

// orphanedCall is the entry of a call that no process will take up. Facts: now.
func (d decider) orphanedCall(e ledger.Entry, f facts) ledger.Entry {
	e.State, e.LookFrom = ledger.StateUnknown, d.lastPossibleEnd(e, f)
	return e
}

// longestStart is how long after its intent a call of any version can begin.
const longestStart = 10 * time.Second
