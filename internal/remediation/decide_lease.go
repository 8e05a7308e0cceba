package remediation

import (
	"time"

	"example.com/unrestrict-worker/internal/ledger"
)

// leaseRemaining is how much longer another process may be in the middle of its call; past that it is dead, or its answer
// lost. A call of this process that no handler is at any more ended without being recorded.
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

// holderTimeout is when a machine's holder that has not been heard of since its call holds the machine no longer: its
// message was purged. Nobody who is alive is silent for so long. By then, at the latest, the machine's record expires.
func (d decider) holderTimeout() time.Duration {
	alive := longestStart + d.Timeout + 11*d.ReconcileDelay // the looks take ten
	return min(max(d.GiveUpAfter, alive), ledger.Retention)
}

// longestStart is how long after its intent a call of any version can begin.
const longestStart = 10 * time.Second
