package remediation

import (
	"cmp"
	"fmt"
	"hash/fnv"
	"time"

	"example.com/unrestrict-worker/internal/defender"
	"example.com/unrestrict-worker/internal/ledger"
	"example.com/unrestrict-worker/internal/message"
)

// reject ends the run as rejected.
func reject(e ledger.Entry, f facts, why *message.Failure) (ledger.Entry, step) {
	return deadLettered(e, f, message.Rejected, why)
}

// giveUp ends a run that could not be carried out in time, while others could.
func giveUp(e ledger.Entry, f facts) (ledger.Entry, step) {
	why := &message.Failure{Code: message.CodeGaveUp, Origin: message.OriginWorker, Message: "not carried out within WORKER_GIVE_UP_AFTER"}
	if e.State == ledger.StateUnknown || e.State == ledger.StateCalled {
		why.Code = message.CodeFateUnknown
		why.Message = "it could not be found out whether the call took place; see the machine's actions in the portal before it is asked for again"
	}
	if last := e.LastError; last != nil {
		why.Message += "; last: " + last.Code + ": " + last.Message
		why.HTTPStatus = last.HTTPStatus
	}
	return deadLettered(e, f, message.Abandoned, why)
}

// deadLettered ends the run with a dead letter. Only this delivery can publish it, because only it has the payload.
func deadLettered(e ledger.Entry, f facts, outcome string, why *message.Failure) (ledger.Entry, step) {
	e.Source, e.Cancel = f.message, cmp.Or(e.Cancel, f.ordered.cancel)
	return ended(e, f.now, outcome, why, true), step{do: doPublish}
}

// ended is the entry of a decided run.
func ended(e ledger.Entry, now time.Time, outcome string, why *message.Failure, dead bool) ledger.Entry {
	e.State, e.Outcome, e.Error, e.Dead = ledger.StateFinal, outcome, why, dead
	e.DecidedAt, e.Owner = now.UTC(), ""
	return e
}

// endCancelled ends a run that was cancelled by an order before any call of it can have taken place.
func endCancelled(e ledger.Entry, f facts) (ledger.Entry, step) {
	c := f.ordered.cancel
	why := &message.Failure{Code: message.CodeCancelled, Origin: message.OriginRequest, Message: "taken back before it was called"}
	if c.Batch != "" {
		why.Code, why.Message = message.CodeBatchCancelled, "its batch was cancelled before it was called"
	}
	if c.By != "" {
		why.Message += ", by " + c.By
	}
	if c.Reason != "" {
		why.Message += ": " + c.Reason
	}
	why.Message += "; to release the machine after all takes a new id"
	e.Cancel, e.LastError = c, nil
	return ended(e, f.now, message.Cancelled, why, false), step{do: doPublish}
}

// A run that waits for people, as a row of a paused batch or for its approval, is redelivered about once a minute, and continues
// within a minute. Thousands that arrived together would be redelivered together each time, and the last of them late. So each
// has its turn once in every turnEvery, computed from its id and the broker's clock, so that replicas and earlier delays don't
// matter.
const (
	turnEvery = 55 * time.Second
	turnLeast = 2 * time.Second // a turn nearer than this is skipped: a redelivery just before a turn counts as that turn
)

// untilTurn is the nak delay of a run that waits for people. Facts: brokerNow.
func untilTurn(e *ledger.Entry, f facts) time.Duration {
	h := fnv.New64a()
	_, _ = h.Write([]byte(e.ID))
	turn := time.Duration(h.Sum64() % uint64(turnEvery))
	after := (turn - time.Duration(f.brokerNow.UnixNano()%int64(turnEvery)) + turnEvery) % turnEvery
	if after < turnLeast {
		after += turnEvery
	}
	return after
}

const causeHeld = "held"

// putOffRow puts off a row of a paused batch, at no cost in calls. The entry records why, for `worker why`.
func putOffRow(e ledger.Entry, f facts) (ledger.Entry, step) {
	what := "its batch " + f.ordered.held.Batch + " is paused"
	if by := f.ordered.held.By; by != "" {
		what += " by " + by
	}
	if reason := f.ordered.held.Reason; reason != "" {
		what += ": " + reason
	}
	e.LastError = &message.Failure{Code: causeHeld, Origin: message.OriginWorker, Message: what}
	return putOff(e, wait(untilTurn(&e, f), causeHeld))
}

// endDryRun ends a dry run, after everything but the POST was done.
func endDryRun(e ledger.Entry, f facts) (ledger.Entry, step) {
	return ended(e, f.now, message.DryRun, nil, false), step{do: doPublish}
}

func failure(a *defender.Error) *message.Failure {
	f := &message.Failure{Code: a.Code, Message: a.Message, HTTPStatus: a.StatusCode, Origin: message.OriginDefender}
	if f.Message == "" {
		f.Message = a.Error()
	}
	return f
}

// observation is what the tracker has found out about an action that it follows.
type observation struct {
	action   defender.MachineAction // zero: the API no longer has it
	exchange defender.Exchange      // the exchange that showed it
	vanished *defender.Error        // the last answer, if several look-ups by id did not find the action
	overdue  bool                   // open for longer than WORKER_TRACK_TIMEOUT
	cancel   *ledger.Cancel         // the order to cancel its run; nil: none
}

// observed decides what an observation means for its run. An entry that is no longer followed, because another tracker was
// first, stays as it is.
func (d decider) observed(e ledger.Entry, s observation, timeout time.Duration, now time.Time) (ledger.Entry, step) {
	if e.State != ledger.StateSubmitted {
		return e, step{do: doAck}
	}
	if s.action.ID != "" {
		e.KeepAction(s.action, d.MaxAction)
	}
	e.Cancel = cmp.Or(e.Cancel, s.cancel)
	switch {
	case s.action.Final():
		e = ended(e, now, outcomeOf(s.action.Status), nil, false)
	case s.vanished != nil:
		e = ended(e, now, message.Failed, &message.Failure{
			Code: message.CodeActionVanished, Origin: message.OriginWorker, HTTPStatus: s.vanished.StatusCode,
			Message: "the API accepted the call but no longer knows the action; see the machine in the portal",
		}, false)
	case s.overdue:
		e = ended(e, now, message.TimedOut, &message.Failure{
			Code: message.CodeTrackTimeout, Origin: message.OriginWorker,
			Message: fmt.Sprintf("the action was still %s after %s (WORKER_TRACK_TIMEOUT); it may yet be carried out when the machine comes online", s.action.Status, timeout),
		}, false)
	default:
		return e, step{do: doFollow}
	}
	return e, step{do: doPublish}
}

func outcomeOf(status string) string {
	switch status {
	case "Succeeded":
		return message.Succeeded
	case "TimeOut":
		return message.TimedOut
	case "Cancelled", "Canceled":
		return message.Cancelled
	default:
		return message.Failed
	}
}
