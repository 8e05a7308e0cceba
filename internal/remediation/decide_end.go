package remediation

import (
	"time"

	"example.com/unrestrict-worker/internal/defender"
)

// reject ends the run for good.
func reject(e Entry, f facts, why *Failure) (Entry, step) {
	return deadLettered(e, f, Rejected, why)
}

// giveUp ends a run that could not be carried out in time, while others could.
func giveUp(e Entry, f facts) (Entry, step) {
	why := &Failure{Code: CodeGaveUp, Origin: OriginWorker, Message: "not carried out within WORKER_GIVE_UP_AFTER"}
	if e.State == StateUnknown || e.State == StateCalled {
		why.Code = CodeFateUnknown
		why.Message = "it could not be found out whether the call took place; see the machine's actions in the portal before it is asked for again"
	}
	if last := e.LastErr; last != nil {
		why.Message += "; last: " + last.Code + ": " + last.Message
		why.HTTPStatus = last.HTTPStatus
	}
	return deadLettered(e, f, Abandoned, why)
}

// deadLettered decides, and leaves the dead letter to this message, whose payload nobody else has.
func deadLettered(e Entry, f facts, outcome string, why *Failure) (Entry, step) {
	e.Source = f.message
	return ended(e, f.now, outcome, why, true), step{do: doPublish}
}

// ended is the entry of a run that is decided.
func ended(e Entry, now time.Time, outcome string, why *Failure, dead bool) Entry {
	e.State, e.Outcome, e.Error, e.Dead = StateFinal, outcome, why, dead
	e.DecidedAt, e.Owner = now.UTC(), ""
	return e
}

// rehearsed ends a dry run, for which everything but the POST was done.
func rehearsed(e Entry, f facts) (Entry, step) {
	return ended(e, f.now, DryRun, nil, false), step{do: doPublish}
}

func failure(a *defender.Error) *Failure {
	f := &Failure{Code: a.Code, Message: a.Message, HTTPStatus: a.StatusCode, Origin: OriginDefender}
	if f.Message == "" {
		f.Message = a.Error()
	}
	return f
}
