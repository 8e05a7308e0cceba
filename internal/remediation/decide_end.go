package remediation

import (
	"time"

	"example.com/unrestrict-worker/internal/defender"
	"example.com/unrestrict-worker/internal/ledger"
	"example.com/unrestrict-worker/internal/message"
)

// reject ends the run for good.
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
	e.Source = f.message
	return ended(e, f.now, outcome, why, true), step{do: doPublish}
}

// ended is the entry of a run that is decided.
func ended(e ledger.Entry, now time.Time, outcome string, why *message.Failure, dead bool) ledger.Entry {
	e.State, e.Outcome, e.Error, e.Dead = ledger.StateFinal, outcome, why, dead
	e.DecidedAt, e.Owner = now.UTC(), ""
	return e
}

// endDryRun ends a dry run, in which everything but the POST was done.
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
