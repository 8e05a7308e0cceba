package remediation

import (
	"fmt"
	"strings"
	"time"

	"example.com/unrestrict-worker/internal/health"
	"example.com/unrestrict-worker/internal/ledger"
	"example.com/unrestrict-worker/internal/message"
)

// doAsk publishes that the run awaits approval, once a run, and naks the message.
const doAsk do = 40

const causeApproval = "awaitingApproval"

// approvalSoon is how long a run that awaits approval stays away at first, and then for as long as it has waited already, until it
// has its turns: a bot answers in seconds, people in hours. It costs no call, and goes on within a minute of the last approval.
const approvalSoon = 15 * time.Second

// awaitApproval decides whether a run may go on, as far as people are asked; the step is doCall then. What was asked before is
// judged anew each time, by the policy as it is now: who is named no more, or is trusted no more, has not approved. Facts:
// approval, unheard, now, message.
func awaitApproval(e ledger.Entry, f facts) (ledger.Entry, step) {
	a := f.approval
	if a.need == nil {
		e.Approval = nil
		return e, step{do: doCall}
	}
	asked := e.Approval
	if asked == nil {
		asked = &ledger.Approval{Since: f.now.UTC(), ExpiresAt: a.end(nil, f.now).UTC(), Digest: a.digest}
	}
	mine := *asked // another message of the request has its own digest, and changes nothing while it waits
	mine.Digest, mine.Required, mine.By, mine.Given = a.digest, a.need.Required, a.need.By, a.given
	switch {
	case a.denied != nil:
		mine.Denied = a.denied
		e.Approval = &mine
		return reject(e, f, denial(a.denied))
	case a.given != nil:
		e.Approval = &mine
		return e, step{do: doCall}
	case a.over(asked, f.now) && f.unheard: // it may have been given in time
		return putOff(e, wait(time.Second, health.ControlUnreadable))
	case a.over(asked, f.now):
		e.Approval = &mine
		return reject(e, f, &message.Failure{Code: message.CodeApprovalExpired, Origin: message.OriginRequest, Message: fmt.Sprintf(
			"not approved by %s: it takes %d of %s; replay it, and ask them again", asked.ExpiresAt.UTC().Format(time.RFC3339), a.need.Required, strings.Join(a.need.By, ", "))})
	}
	after := max(f.now.Sub(asked.Since), approvalSoon)
	if after > turnEvery {
		after = untilTurn(&e, f)
	}
	after = min(after, asked.ExpiresAt.Sub(f.now))
	if asked.Digest == a.digest {
		e.Approval = &mine
	}
	e, s := putOff(e, wait(after, causeApproval))
	if !asked.Asked {
		s.do = doAsk
	}
	return e, s
}

func denial(v *ledger.Verdict) *message.Failure {
	why := &message.Failure{Code: message.CodeDenied, Origin: message.OriginRequest, Message: "denied by " + v.By}
	if v.Reason != "" {
		why.Message += ": " + v.Reason
	}
	return why
}

// approvalEssence is what later decisions depend on.
type approvalEssence struct {
	asked    bool
	required int
	given    int
	until    time.Time
	digest   string
}

func approvalEssenceOf(a *ledger.Approval) (s approvalEssence) {
	if a != nil {
		s = approvalEssence{a.Asked, a.Required, len(a.Given), a.ExpiresAt, a.Digest}
	}
	return s
}
