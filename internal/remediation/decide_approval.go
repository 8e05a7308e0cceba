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

// approvalSoon is the first nak delay of a run that awaits approval. Later delays equal the time that it has waited so far,
// until they exceed turnEvery; then the run comes in its turn (untilTurn). A bot approves in seconds, people take hours. The
// wait costs no call, and the run continues within a minute of the last approval.
const approvalSoon = 15 * time.Second

// awaitApproval decides whether the run has the approvals that it needs; if so, the step is doCall. Earlier approvals are
// judged anew each time, by the present policy: one whose signer is no longer named or trusted does not count. Facts:
// approval, ordersStale, now, message.
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
	mine := *asked // stored only if the digest matches: another message of the request has its own
	mine.Digest, mine.Required, mine.By, mine.Given = a.digest, a.need.Required, a.need.By, a.given
	switch {
	case a.denied != nil:
		mine.Denied = a.denied
		e.Approval = &mine
		return reject(e, f, denial(a.denied))
	case a.given != nil:
		e.Approval = &mine
		return e, step{do: doCall}
	case a.expired(asked, f.now) && f.ordersStale: // an approval may have been given in time
		return putOff(e, wait(time.Second, health.ControlUnreadable))
	case a.expired(asked, f.now):
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

// approvalEssence is the part of an Approval that later decisions depend on.
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
