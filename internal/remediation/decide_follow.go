package remediation

import (
	"fmt"
	"time"

	"example.com/unrestrict-worker/internal/defender"
	"example.com/unrestrict-worker/internal/ledger"
	"example.com/unrestrict-worker/internal/message"
)

// observation is what the tracker has learned of an action that it follows.
type observation struct {
	action   defender.MachineAction // zero: the API does not know it any more
	exchange defender.Exchange      // what it was learned from
	gone     *defender.Error        // asked for by its id several times, and not found
	overdue  bool                   // it was open for longer than WORKER_TRACK_TIMEOUT
}

// observed decides what a sighting means for its run. A run that is not being followed, for another tracker was first, stays
// as it is.
func (d decider) observed(e ledger.Entry, s observation, timeout time.Duration, now time.Time) (ledger.Entry, step) {
	if e.State != ledger.StateSubmitted {
		return e, step{do: doAck}
	}
	if s.action.ID != "" {
		e.KeepAction(s.action, d.MaxAction)
	}
	switch {
	case s.action.Final():
		e = ended(e, now, outcomeOf(s.action.Status), nil, false)
	case s.gone != nil:
		e = ended(e, now, message.Failed, &message.Failure{
			Code: message.CodeActionVanished, Origin: message.OriginWorker, HTTPStatus: s.gone.StatusCode,
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
