package remediation

import (
	"time"

	"example.com/unrestrict-worker/internal/ledger"
	"example.com/unrestrict-worker/internal/message"
)

// More steps, decided when a message opens or continues a run.
const (
	doGoOn   do = iota + 20 // continue with the entry as it is
	doRefuse                // the message has no claim on the id; step.invalid is the reason
	doReopen                // write the run that the replay opens, record it, drop the dead letter, and continue
	doDrop                  // the replay is out of date: drop its dead letter, acknowledge
)

// arrival is what a message requests.
type arrival struct {
	fresh         ledger.Entry // run 1 of the request as in this message
	message       string
	claimed       string // the id in the message
	replay        replay
	refusedBefore bool // the same signed bytes were refused for expiring too late
	tooOld        bool
	lostBefore    time.Time // the ledger may have lost requests that were published before this; zero: none
	dryRun        bool
}

// opened decides what a message means for the entry of its id. It begins a run if there is none to continue.
func opened(e ledger.Entry, a arrival, now time.Time) (ledger.Entry, step) {
	known := e.State != ""
	switch {
	case known && e.Fingerprint != a.fresh.Fingerprint:
		return e, refuse(a, message.CodeIDConflict, "id: another request with this id, for another machine or with another comment, came first; give each request its own id")
	case !known && a.refusedBefore:
		return e, refuse(a, message.CodeExpiresTooLate, refusedAlready)
	case a.replay.seq != 0:
		return replayed(e, a, now)
	case !known:
		fresh := a.fresh
		fresh.Revision = e.Revision
		if a.tooOld {
			return reject(fresh, facts{now: now, message: a.message}, &message.Failure{
				Code: message.CodeTooOld, Origin: message.OriginRequest,
				Message: "the request was older than WORKER_MAX_REQUEST_AGE when it was first taken; publish it again if it still holds",
			})
		}
		if a.forgotten() {
			lookForForgotten(&fresh, now)
		}
		return fresh, step{do: doGoOn}
	case e.State == ledger.StateFinal && e.Outcome == message.DryRun && !a.dryRun && e.Source != a.message:
		// The request was published again. A redelivery of the dry run's own message needs nothing: its result exists.
		if !e.Published {
			return e, wait(2*time.Second, "unpublished")
		}
		return nextRun(e, a.fresh), step{do: doGoOn}
	}
	return e, step{do: doGoOn}
}

// replayed opens the next run of a request that ended rejected or abandoned.
func replayed(e ledger.Entry, a arrival, now time.Time) (ledger.Entry, step) {
	ended := e.State == ledger.StateFinal && (e.Outcome == message.Rejected || e.Outcome == message.Abandoned)
	switch {
	case e.State != "" && e.ReplayOf == a.replay.seq: // this replay's own run continues
		if a.replay.found {
			return e, step{do: doReopen} // a crash came between opening the run and dropping its dead letter
		}
		return e, step{do: doGoOn}
	case !a.replay.found:
		return e, refuse(a, message.CodeMalformed, "Unrestrict-Replay: there is no such dead letter; it was replayed or dropped")
	case e.State == ledger.StateFinal && !e.Published && e.Run == a.replay.run:
		return e, wait(2*time.Second, "unpublished") // the dead letter is visible before its run has published everything
	case e.State == "" || ended && e.Run == a.replay.run:
		old := e
		old.Run = a.replay.run
		e = nextRun(old, a.fresh)
		e.ReplayOf = a.replay.seq
		if old.Error != nil && old.Error.Code == message.CodeFateUnknown {
			lookFirst(&e, old)
		} else if old.State == "" && a.forgotten() {
			lookForForgotten(&e, now)
		}
		return e, step{do: doReopen}
	}
	return e, step{do: doDrop} // the request has had a newer run since: the dead letter is out of date
}

// nextRun is the run after one that ended.
func nextRun(old, fresh ledger.Entry) ledger.Entry {
	fresh.Run, fresh.Revision = old.Run+1, old.Revision
	if old.State != "" {
		fresh.Owned = old.Owned
	}
	return fresh
}

func refuse(a arrival, code, why string) step {
	return step{do: doRefuse, invalid: &message.Invalid{Code: code, ClaimedID: a.claimed, Message: why}}
}

// lookFirst makes a run begin with one more look for the call that the previous run could not find.
func lookFirst(e *ledger.Entry, old ledger.Entry) {
	e.State, e.Looks = ledger.StateUnknown, len(lookAfter)-1
	e.CalledAt, e.LastCall, e.LookFrom = old.CalledAt, old.LastCall, old.LookFrom
}

// forgotten reports whether the request may have been called for under a ledger that was lost.
func (a arrival) forgotten() bool { return a.fresh.AskedAt.Before(a.lostBefore) }

// lookForForgotten makes a run begin with the three looks that follow a call without a clear answer: a call from before the
// ledger was lost can have begun at any time from the request's publication up to a moment ago.
func lookForForgotten(e *ledger.Entry, now time.Time) {
	e.State = ledger.StateUnknown
	e.CalledAt, e.LastCall, e.LookFrom = e.AskedAt.Add(-wideMargin), now.UTC(), now.UTC()
}
