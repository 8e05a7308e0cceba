package ledger

import (
	"time"

	"example.com/unrestrict-worker/internal/message"
)

// Approval is what a run awaits before its call (docs/messages.md, orders). How many approvals are needed, and whose,
// follows the current policy; the fields hold what the latest request for approval named.
type Approval struct {
	Required  int       `json:"required"`
	By        []string  `json:"by"` // who may give it
	Since     time.Time `json:"since"`
	ExpiresAt time.Time `json:"expiresAt"` // an approval stored later does not count
	Digest    string    `json:"digest"`    // of the message to approve
	Asked     bool      `json:"asked,omitempty"`

	Given  []Verdict `json:"given,omitempty"`  // set once there were enough; no name twice
	Denied *Verdict  `json:"denied,omitempty"` // the deny that ended the run
}

// Verdict is an approve or a deny order that counts, with what others need to verify it.
type Verdict struct {
	By        string    `json:"by"`     // the signer's name
	Signer    string    `json:"signer"` // its public nkey
	At        time.Time `json:"at"`     // when it was stored, by the broker's clock
	Message   string    `json:"message"`
	Reason    string    `json:"reason,omitempty"`
	Subject   string    `json:"subject,omitempty"`   // which the signature covers
	Order     string    `json:"order,omitempty"`     // the payload that was signed
	Signature string    `json:"signature,omitempty"` // the header Request-Signature
}

// Awaits reports whether the run awaits approval, as far as the entry shows: enough approvals may have been stored since.
func (e *Entry) Awaits() bool {
	return e.State == StateWaiting && e.Approval != nil && e.Approval.Asked && len(e.Approval.Given) == 0
}

// ApprovedBy returns the names of those who approved.
func (a *Approval) ApprovedBy() (names []string) {
	if a == nil {
		return nil
	}
	for _, v := range a.Given {
		names = append(names, v.By)
	}
	return names
}

// Result returns the awaitingApproval result.
func (a *Approval) Result(e *Entry) message.Result {
	r := e.Result()
	r.Outcome, r.FinishedAt = message.AwaitingApproval, time.Time{}
	r.Approval = &message.Approval{Required: a.Required, By: a.By, ExpiresAt: a.ExpiresAt, Digest: a.Digest}
	return r
}

// record returns the form that goes into the audit trail.
func (a *Approval) record() *Approval {
	if a == nil {
		return nil
	}
	r := *a
	r.Asked = false
	return &r
}

// withoutSigned drops the signed payloads and signatures, which have audit records of their own.
func (a *Approval) withoutSigned() *Approval {
	r := *a
	r.Given, r.Denied = nil, nil
	for _, v := range a.Given {
		r.Given = append(r.Given, v.withoutSigned())
	}
	if a.Denied != nil {
		v := a.Denied.withoutSigned()
		r.Denied = &v
	}
	return &r
}

func (v Verdict) withoutSigned() Verdict {
	v.Reason, v.Subject, v.Order, v.Signature = message.Shorten(v.Reason, 200), "", "", ""
	return v
}
