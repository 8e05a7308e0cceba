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
	AuditRefused  = "refused"  // a refused message, which has no claim on an id
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
	ActForgo  = "ordersForgone" // lost orders were given up
)

// Verdicts of the policy.
const (
	policyAllowed = "allowed"
	policyRefused = "refused"
)

// AuditRecord is one decision and its evidence (docs/messages.md, docs/schemas/audit.json).
type AuditRecord struct {
	Kind        string       `json:"kind"`
	RequestID   string       `json:"requestId,omitempty"`
	Run         int          `json:"run,omitempty"`
	ClaimedID   string       `json:"claimedId,omitempty"`
	Message     string       `json:"message,omitempty"`  // STREAM:SEQ of the message that opened the run
	ReplayOf    uint64       `json:"replayOf,omitempty"` // the dead letter's sequence
	MachineID   string       `json:"machineId,omitempty"`
	Comment     string       `json:"comment,omitempty"`
	RequestedBy string       `json:"requestedBy,omitempty"`
	Ticket      string       `json:"ticket,omitempty"`
	Batch       string       `json:"batch,omitempty"`
	SignedBy    string       `json:"signedBy,omitempty"` // the signer's name
	Signer      string       `json:"signer,omitempty"`   // its public nkey
	Client      string       `json:"client,omitempty"`   // the client of worker intake
	Lane        message.Lane `json:"lane,omitempty"`
	Policy      string       `json:"policy,omitempty"` // allowed, refused; "" if no policy was applied

	Approval *Approval `json:"approval,omitempty"` // what the run awaited before its call, and who approved

	Outcome      string           `json:"outcome,omitempty"`
	Error        *message.Failure `json:"error,omitempty"`
	Attempts     int              `json:"attempts,omitempty"`
	Adopted      bool             `json:"adopted,omitempty"`
	ActionID     string           `json:"actionId,omitempty"`
	Calls        []Call           `json:"calls,omitempty"`
	CallsOmitted int              `json:"callsOmitted,omitempty"` // earlier ones
	Shortened    bool             `json:"shortened,omitempty"`

	// Set for AuditCounted. The first message of each kind has an AuditRefused record instead.
	ClaimedSigner string    `json:"claimedSigner,omitempty"` // the signer that a bad signature names
	Count         int       `json:"count,omitempty"`
	Minute        time.Time `json:"minute,omitzero"`

	// Set for AuditOperated.
	Act        string `json:"act,omitempty"`
	By         string `json:"by,omitempty"`        // the NATS user
	ByClaimed  bool   `json:"byClaimed,omitempty"` // By is only what the client machine reports: its user and host
	Reason     string `json:"reason,omitempty"`
	DeadLetter uint64 `json:"deadLetter,omitempty"` // its sequence

	// Set for AuditOrdered, whose Act is the verb. SignedBy, Signer and Client are then those of the order.
	Whose     string `json:"whose,omitempty"` // the owner of the request, as the order names it
	Actions   bool   `json:"actions,omitempty"`
	Subject   string `json:"subject,omitempty"` // which the signature covers
	Order     string `json:"order,omitempty"`   // the payload that was signed
	Signature string `json:"signature,omitempty"`

	PublishedAt time.Time `json:"publishedAt,omitzero"` // by the broker's clock; of a replay: the original's
	ReceivedAt  time.Time `json:"receivedAt,omitzero"`
	DecidedAt   time.Time `json:"decidedAt,omitzero"`
}

// Shorten returns the record with its texts cut to 200 characters. It is used when the whole record does not fit.
func (r AuditRecord) Shorten() AuditRecord {
	for _, s := range []*string{&r.RequestID, &r.ClaimedID, &r.Comment, &r.RequestedBy, &r.Ticket, &r.Batch, &r.ActionID, &r.By, &r.Reason, &r.Order} {
		short := message.Shorten(*s, 200)
		r.Shortened = r.Shortened || short != *s
		*s = short
	}
	if r.Approval != nil {
		r.Approval, r.Shortened = r.Approval.withoutSigned(), true
	}
	if r.Error != nil {
		e := *r.Error
		e.Message = message.Shorten(e.Message, 200)
		r.Shortened = r.Shortened || e.Message != r.Error.Message
		r.Error = &e
	}
	return r
}

// WithoutCalls returns the record without its exchanges with the API. It is used when the record does not fit with them.
func (r AuditRecord) WithoutCalls() AuditRecord {
	r.CallsOmitted, r.Calls, r.Shortened = r.CallsOmitted+len(r.Calls), nil, true
	return r
}

// Audit returns the audit record of the run's decision, or of its acceptance while the action is followed.
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

// Recovered rebuilds an entry and its key from the record of an acceptance, after the ledger was lost. ok is false if the
// record holds too little for that. What no audit record holds stays lost: metadata, replyTo and trace.
func (r AuditRecord) Recovered() (key string, e Entry, ok bool) {
	stream, _, _ := strings.Cut(r.Message, ":")
	if r.Kind != AuditAccepted || r.Shortened || r.ActionID == "" || stream == "" {
		return "", Entry{}, false
	}
	req := message.Request{ID: r.RequestID, SignedBy: r.SignedBy, Client: r.Client, Derived: strings.HasPrefix(r.RequestID, stream+":")}
	return EntryKey(stream, req, r.PublishedAt), Entry{
		State: StateSubmitted, Run: r.Run, ID: r.RequestID, Derived: req.Derived, Fingerprint: fingerprint(r.MachineID, r.Comment),
		MachineID: r.MachineID, Comment: r.Comment, RequestedBy: r.RequestedBy, Ticket: r.Ticket, Batch: r.Batch,
		SignedBy: r.SignedBy, Signer: r.Signer, Client: r.Client, Owned: req.Owner() != "",
		Lane: r.Lane, Source: r.Message, ReplayOf: r.ReplayOf, AskedAt: r.PublishedAt, ReceivedAt: r.ReceivedAt,
		CalledAt: r.ReceivedAt.Add(-time.Hour), Attempts: r.Attempts, Allowed: r.Policy == policyAllowed, Approval: r.Approval,
		Follow: true, Adopted: r.Adopted, ActionID: r.ActionID, AcceptedAt: r.DecidedAt, Calls: r.Calls, CallsOmitted: r.CallsOmitted,
	}, true
}
