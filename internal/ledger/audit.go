package ledger

import (
	"strings"
	"time"

	"example.com/unrestrict-worker/internal/message"
)

// Kinds of an AuditRecord.
const (
	AuditAwaiting = "awaiting" // the run awaits approval
	AuditAccepted = "accepted" // the API accepted the call, or an action was adopted; it is followed
	AuditDecided  = "decided"  // the run has ended
	AuditRefused  = "refused"  // a message without a claim on an id
	AuditReplayed = "replayed" // a dead letter has opened the run
	AuditCounted  = "counted"  // how many more unverified messages were refused
	AuditOperated = "operated" // an operator has done something
	AuditOrdered  = "ordered"  // somebody has given an order, which changes nothing if it has an error
)

// Acts of an operator.
const (
	ActPause  = "pause"
	ActResume = "resume"
	ActDrop   = "deadletterDrop"
	ActReplay = "deadletterReplay"
	ActLift   = "closureLift"
	ActForgo  = "ordersForgone" // orders that were lost
)

// Verdicts of the policy.
const (
	policyAllowed = "allowed"
	policyRefused = "refused"
)

// AuditRecord is one decision and what it rests on (docs/messages.md, docs/schemas/audit.json).
type AuditRecord struct {
	Kind        string       `json:"kind"`
	RequestID   string       `json:"requestId,omitempty"`
	Run         int          `json:"run,omitempty"`
	ClaimedID   string       `json:"claimedId,omitempty"`
	Message     string       `json:"message,omitempty"`  // STREAM:SEQ of the one that opened the run
	ReplayOf    uint64       `json:"replayOf,omitempty"` // the dead letter's sequence
	MachineID   string       `json:"machineId,omitempty"`
	Comment     string       `json:"comment,omitempty"`
	RequestedBy string       `json:"requestedBy,omitempty"`
	Ticket      string       `json:"ticket,omitempty"`
	Batch       string       `json:"batch,omitempty"`
	SignedBy    string       `json:"signedBy,omitempty"` // the signer's name
	Signer      string       `json:"signer,omitempty"`   // its public nkey
	Client      string       `json:"client,omitempty"`   // whose, where nobody signs
	Lane        message.Lane `json:"lane,omitempty"`
	Policy      string       `json:"policy,omitempty"` // allowed, refused; "" if none was asked

	Approval *Approval `json:"approval,omitempty"` // what was awaited before the call, and who gave it

	Outcome      string           `json:"outcome,omitempty"`
	Error        *message.Failure `json:"error,omitempty"`
	Attempts     int              `json:"attempts,omitempty"`
	Adopted      bool             `json:"adopted,omitempty"`
	ActionID     string           `json:"actionId,omitempty"`
	Calls        []Call           `json:"calls,omitempty"`
	CallsOmitted int              `json:"callsOmitted,omitempty"` // earlier ones
	Shortened    bool             `json:"shortened,omitempty"`

	// Of AuditCounted, and the first of each is in AuditRefused.
	ClaimedSigner string    `json:"claimedSigner,omitempty"` // whose name a bad signature bears
	Count         int       `json:"count,omitempty"`
	Minute        time.Time `json:"minute,omitzero"`

	// Of AuditOperated.
	Act        string `json:"act,omitempty"`
	By         string `json:"by,omitempty"`        // the NATS user
	ByClaimed  bool   `json:"byClaimed,omitempty"` // By is what the machine says of its user and itself
	Reason     string `json:"reason,omitempty"`
	DeadLetter uint64 `json:"deadLetter,omitempty"` // its sequence

	// Of AuditOrdered, whose Act is the verb. SignedBy, Signer and Client are the order's own.
	Whose     string `json:"whose,omitempty"` // whose request is meant, as the order says
	Actions   bool   `json:"actions,omitempty"`
	Subject   string `json:"subject,omitempty"` // it was signed for
	Order     string `json:"order,omitempty"`   // the payload that was signed
	Signature string `json:"signature,omitempty"`

	PublishedAt time.Time `json:"publishedAt,omitzero"` // by the broker's clock; a replay's is its original's
	ReceivedAt  time.Time `json:"receivedAt,omitzero"`
	DecidedAt   time.Time `json:"decidedAt,omitzero"`
}

// Shorten returns the record with its texts cut to 200 characters, for where the whole record did not fit.
func (r AuditRecord) Shorten() AuditRecord {
	for _, s := range []*string{&r.RequestID, &r.ClaimedID, &r.Comment, &r.RequestedBy, &r.Ticket, &r.Batch, &r.ActionID, &r.By, &r.Reason, &r.Order} {
		short := message.Shorten(*s, 200)
		r.Shortened = r.Shortened || short != *s
		*s = short
	}
	if r.Approval != nil {
		r.Approval, r.Shortened = r.Approval.without(), true
	}
	if r.Error != nil {
		e := *r.Error
		e.Message = message.Shorten(e.Message, 200)
		r.Shortened = r.Shortened || e.Message != r.Error.Message
		r.Error = &e
	}
	return r
}

// WithoutCalls returns the record without its exchanges with the API, for where it did not fit with them.
func (r AuditRecord) WithoutCalls() AuditRecord {
	r.CallsOmitted, r.Calls, r.Shortened = r.CallsOmitted+len(r.Calls), nil, true
	return r
}

// Audit is the audit record of the run's decision, or of its acceptance while it is followed.
func (e *Entry) Audit() AuditRecord {
	r := AuditRecord{
		Kind: AuditAccepted, RequestID: e.ID, Run: e.Run, Message: e.Source, ReplayOf: e.ReplayOf, MachineID: e.MachineID,
		Comment: e.Comment, RequestedBy: e.RequestedBy, Ticket: e.Ticket, Batch: e.Batch, SignedBy: e.SignedBy, Signer: e.Signer, Client: e.Client,
		Outcome: message.Submitted, Attempts: e.Attempts, Adopted: e.Adopted, ActionID: e.ActionID, Lane: e.Lane,
		Calls: e.Calls, CallsOmitted: e.CallsOmitted, Approval: e.Approval.record(), PublishedAt: e.AskedAt, ReceivedAt: e.ReceivedAt, DecidedAt: e.AcceptedAt,
	}
	if e.Allowed {
		r.Policy = policyAllowed
	}
	if e.State == StateFinal {
		r.Kind, r.Outcome, r.Error, r.DecidedAt = AuditDecided, e.Outcome, message.ShortError(e.Error), e.DecidedAt
		if e.Error != nil && e.Error.Code == message.CodePolicy {
			r.Policy = policyRefused
		}
	}
	return r
}

// Recovered is the entry of a run whose acceptance is all that is known of it, and its key; ok is false for a record that has
// too little for it. What no record holds is lost: metadata, replyTo and trace.
func (r AuditRecord) Recovered() (key string, e Entry, ok bool) {
	stream, _, _ := strings.Cut(r.Message, ":")
	if r.Kind != AuditAccepted || r.Shortened || r.ActionID == "" || stream == "" {
		return "", Entry{}, false
	}
	req := message.Request{ID: r.RequestID, SignedBy: r.SignedBy, Client: r.Client, Derived: strings.HasPrefix(r.RequestID, stream+":")}
	return EntryKey(stream, req, r.PublishedAt), Entry{
		State: StateSubmitted, Run: r.Run, ID: r.RequestID, Derived: req.Derived, Print: fingerprint(r.MachineID, r.Comment),
		MachineID: r.MachineID, Comment: r.Comment, RequestedBy: r.RequestedBy, Ticket: r.Ticket, Batch: r.Batch,
		SignedBy: r.SignedBy, Signer: r.Signer, Client: r.Client, Owned: req.Owner() != "",
		Lane: r.Lane, Source: r.Message, ReplayOf: r.ReplayOf, AskedAt: r.PublishedAt, ReceivedAt: r.ReceivedAt,
		CalledAt: r.ReceivedAt.Add(-time.Hour), Attempts: r.Attempts, Allowed: r.Policy == policyAllowed, Approval: r.Approval,
		Follow: true, Adopted: r.Adopted, ActionID: r.ActionID, AcceptedAt: r.DecidedAt, Calls: r.Calls, CallsOmitted: r.CallsOmitted,
	}, true
}
