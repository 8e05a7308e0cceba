package ledger

import (
	"time"

	"example.com/unrestrict-worker/internal/message"
)

// Approval is what a run awaits before its call (docs/messages.md, orders). The policy of the moment says how many of whom; what stands
// here is as it was asked last.
type Approval struct {
	Required  int       `json:"required"`
	By        []string  `json:"by"` // who may give it
	Since     time.Time `json:"since"`
	ExpiresAt time.Time `json:"expiresAt"` // given later it does not count
	Digest    string    `json:"digest"`    // of the message that is approved
	Asked     bool      `json:"asked,omitempty"`

	Given  []Verdict `json:"given,omitempty"`  // enough of them, since there were; each by another name
	Denied *Verdict  `json:"denied,omitempty"` // it ended the run
}

// Verdict is an approve or a deny that counts, with what others need to verify it.
type Verdict struct {
	By        string    `json:"by"`     // the signer's name
	Signer    string    `json:"signer"` // its public nkey
	At        time.Time `json:"at"`     // when it was stored, by the broker's clock
	Message   string    `json:"message"`
	Reason    string    `json:"reason,omitempty"`
	Subject   string    `json:"subject,omitempty"`   // it was signed for
	Order     string    `json:"order,omitempty"`     // the payload that was signed
	Signature string    `json:"signature,omitempty"` // the header Request-Signature
}

// Awaits reports whether the run awaits approval. As far as the entry knows: enough may have come since.
func (e *Entry) Awaits() bool {
	return e.State == StateWaiting && e.Approval != nil && e.Approval.Asked && len(e.Approval.Given) == 0
}

// ApprovedBy are the names of those who approved.
func (a *Approval) ApprovedBy() (names []string) {
	if a == nil {
		return nil
	}
	for _, v := range a.Given {
		names = append(names, v.By)
	}
	return names
}

// Result is the result that says what the run awaits.
func (a *Approval) Result(e *Entry) message.Result {
	r := e.Result()
	r.Outcome, r.FinishedAt = message.AwaitingApproval, time.Time{}
	r.Approval = &message.Approval{Required: a.Required, By: a.By, ExpiresAt: a.ExpiresAt, Digest: a.Digest}
	return r
}

// record is what the audit trail has of it.
func (a *Approval) record() *Approval {
	if a == nil {
		return nil
	}
	r := *a
	r.Asked = false
	return &r
}

// without is the approval without what was signed, which has a record of its own.
func (a *Approval) without() *Approval {
	r := *a
	r.Given, r.Denied = nil, nil
	for _, v := range a.Given {
		r.Given = append(r.Given, v.without())
	}
	if a.Denied != nil {
		v := a.Denied.without()
		r.Denied = &v
	}
	return &r
}

func (v Verdict) without() Verdict {
	v.Reason, v.Subject, v.Order, v.Signature = message.Shorten(v.Reason, 200), "", "", ""
	return v
}
