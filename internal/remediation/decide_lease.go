package remediation

import (
	"time"

	"example.com/unrestrict-worker/internal/ledger"
)

// leaseRemaining is how much longer another process may be in the middle of its call. After that the process is dead, or its
// answer lost. If this process owns the call, no handler works on it any more: it ended without being recorded.
func (d decider) leaseRemaining(e ledger.Entry, f facts) time.Duration {
	if e.Owner == d.Owner {
		return 0
	}
	return e.Written.Add(d.startLimit(e) + d.Timeout + d.ReconcileDelay).Sub(f.brokerNow)
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

// longestStart is how long after its intent a call of any version can begin.
const longestStart = 10 * time.Second
