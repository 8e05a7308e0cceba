// Package ledger defines what is stored about each request, machine and signer: its states and its format. An entry is
// changed only by compare-and-swap. internal/remediation decides the changes, and internal/broker stores them.
package ledger

import (
	"cmp"
	"time"

	"example.com/unrestrict-worker/internal/defender"
	"example.com/unrestrict-worker/internal/message"
)

// State is how far a run of a request has come.
type State string

// The states of an entry; ARCHITECTURE.md draws them.
const (
	StateWaiting   State = "waiting"   // the run is open and has no call under way
	StateCalled    State = "called"    // Owner may be calling, or died while calling
	StateUnknown   State = "unknown"   // the call ended, and whether it took place is unknown
	StateSubmitted State = "submitted" // accepted, being followed
	StateFinal     State = "final"     // decided; Published says whether the result is published too
)

// StateHeld marks a placeholder, not an entry: it blocks a key for replicas of the previous version (holdID).
const StateHeld State = "held"

// Known is false for a state that only a newer version has, and for a value without a state, which no version writes.
func (s State) Known() bool {
	switch s {
	case StateWaiting, StateCalled, StateUnknown, StateSubmitted, StateFinal:
		return true
	}
	return false
}

// Entry is what the ledger stores about one request. It holds everything that later results need, because the message is
// acknowledged once the call is accepted. Times are by this machine's clock unless stated otherwise.
type Entry struct {
	Version   int    `json:"v"`
	State     State  `json:"state"`
	Published bool   `json:"published,omitempty"` // result and dead letter are published
	Run       int    `json:"run"`
	Owner     string `json:"owner,omitempty"` // the process that wrote StateCalled; LastCall is by its clock
	Nonce     string `json:"nonce"`

	ID          string `json:"id"`
	Derived     bool   `json:"derived,omitempty"`
	Fingerprint string `json:"print"` // digest of machine and comment, which all messages of one id must share
	MachineID   string `json:"machineId"`
	Comment     string `json:"comment,omitempty"`
	RequestedBy string `json:"requestedBy,omitempty"`
	Ticket      string `json:"ticket,omitempty"`
	Batch       string `json:"batch,omitempty"`
	Metadata    []byte `json:"metadata,omitempty"`
	ReplyTo     string `json:"replyTo,omitempty"`
	SignedBy    string `json:"signedBy,omitempty"`
	Signer      string `json:"signer,omitempty"` // the nkey of SignedBy
	Client      string `json:"client,omitempty"`
	Owned       bool   `json:"owned,omitempty"` // its message ids contain SignedBy, or Client without one; the previous version's did not
	TraceParent string `json:"traceparent,omitempty"`
	TraceState  string `json:"tracestate,omitempty"`

	Lane message.Lane `json:"lane,omitempty"` // of the message that the call was made for, or that was handled last

	Source     string    `json:"source,omitempty"`   // STREAM:SEQ of the message
	ReplayOf   uint64    `json:"replayOf,omitempty"` // the dead letter that opened this run
	AskedAt    time.Time `json:"askedAt,omitzero"`   // when first published, by the broker's clock; of a replay: the original's
	ReceivedAt time.Time `json:"receivedAt"`         // when first delivered

	CalledAt  time.Time        `json:"calledAt,omitzero"`   // the run's first call, in the API's time less a margin: no action of this run is older
	LastCall  time.Time        `json:"lastCall,omitzero"`   // the latest call
	StartBy   time.Time        `json:"startBy,omitzero"`    // when LastCall starts at the latest; only earlier versions wrote it. Zero: within StartLimit
	Attempts  int              `json:"attempts,omitempty"`  // POSTs sent
	Looks     int              `json:"looks,omitempty"`     // look-ups since the latest call that did not find it
	LookFrom  time.Time        `json:"lookFrom,omitzero"`   // the look-ups' delays count from here
	NotFound  time.Time        `json:"notFound,omitzero"`   // the first 404
	Failures  int              `json:"failures,omitempty"`  // retries after faults of its own; they make the backoff grow
	Failed    Duration         `json:"failed,omitempty"`    // how long it has waited for faults of its own
	NotBefore time.Time        `json:"notBefore,omitzero"`  // earliest next try
	LastError *message.Failure `json:"lastError,omitempty"` // why the run waits

	Allowed bool `json:"allowed,omitempty"` // the policy was applied, and allows the run
	Counted bool `json:"counted,omitempty"` // the run counts in its SignerHour
	// GuardedAt is when the guard let the run's next call pass. Only earlier versions wrote it; it is preserved.
	GuardedAt time.Time `json:"guardedAt,omitzero"`

	Follow     bool      `json:"follow,omitempty"` // follow the action; fixed when the call is accepted
	Adopted    bool      `json:"adopted,omitempty"`
	ActionID   string    `json:"actionId,omitempty"`
	Created    time.Time `json:"created,omitzero"`    // the action's creation, in the API's time
	AcceptedAt time.Time `json:"acceptedAt,omitzero"` // when it became submitted
	ActionCut  bool      `json:"actionCut,omitempty"` // the action is too large to keep and to publish
	Action     []byte    `json:"-"`                   // as the API last returned it; stored after the JSON, byte for byte

	Approval *Approval `json:"approval,omitempty"` // what the run awaits before its call, and who approved; nil: nothing
	Cancel   *Cancel   `json:"cancel,omitempty"`   // the cancel order that applies; nil: none

	Calls        []Call `json:"calls,omitempty"` // exchanges with the API; those after the last write of the entry are missing
	CallsOmitted int    `json:"callsOmitted,omitempty"`
	// Recorded lists the kinds of audit record that are durable although publishing failed afterwards.
	Recorded []string `json:"recorded,omitempty"`

	Outcome   string           `json:"outcome,omitempty"`
	Error     *message.Failure `json:"error,omitempty"`
	Dead      bool             `json:"dead,omitempty"` // needs a dead letter, which only the replica that has the message can publish
	DecidedAt time.Time        `json:"decidedAt,omitzero"`

	Stages Stages `json:"stages,omitzero"`

	Revision uint64    `json:"-"`
	Written  time.Time `json:"-"` // by the broker's clock
}

// Duration is a time.Duration that is stored as text.
type Duration time.Duration

// MarshalText writes a Go duration.
func (d Duration) MarshalText() ([]byte, error) { return []byte(time.Duration(d).String()), nil }

// UnmarshalText reads a Go duration.
func (d *Duration) UnmarshalText(b []byte) error {
	v, err := time.ParseDuration(string(b))
	*d = Duration(v)
	return err
}

// NewEntry opens run 1 of a request that was first published at asked. asked and now are by the broker's clock.
func NewEntry(r message.Request, d message.Delivery, asked, now time.Time) Entry {
	return Entry{
		State: StateWaiting, Run: 1, ID: r.ID, Derived: r.Derived, Fingerprint: fingerprint(r.MachineID, r.Comment),
		MachineID: r.MachineID, Comment: r.Comment, RequestedBy: r.RequestedBy, Ticket: r.Ticket, Batch: r.Batch,
		Metadata: r.Metadata, ReplyTo: r.ReplyTo, SignedBy: r.SignedBy, Signer: r.Signer, Client: r.Client, Owned: r.Owner() != "",
		TraceParent: r.TraceParent, TraceState: r.TraceState,
		Lane: d.Lane, Source: d.Ref(), AskedAt: asked.UTC(), ReceivedAt: time.Now().UTC(),
		Stages: Stages{Queue: Duration(max(now.Sub(d.Published), 0))},
	}
}

// Matches reports whether the entry has this request's machine and comment: all messages of one id must agree in them.
func (e *Entry) Matches(r message.Request) bool {
	return e.Fingerprint == fingerprint(r.MachineID, r.Comment)
}

func fingerprint(machine, comment string) string {
	return Digest(machine+"\n"+comment, 10)
}

// KeepAction stores the action as the API returned it, unless it has more than limit bytes.
func (e *Entry) KeepAction(a defender.MachineAction, limit int) {
	if e.Action, e.ActionCut = a.Raw, a.Cut; len(a.Raw) > limit {
		e.Action, e.ActionCut = nil, true
	}
}

// Result renders the entry: the submitted result while the action is followed, the final one once the run is decided.
func (e *Entry) Result() message.Result {
	r := message.Result{
		RequestID: e.ID, Run: e.Run, MachineID: e.MachineID, RequestedBy: e.RequestedBy, Ticket: e.Ticket, Batch: e.Batch,
		Metadata: e.Metadata, Outcome: message.Submitted, MachineAction: e.Action, MachineActionTruncated: e.ActionCut,
		Attempts: e.Attempts, Adopted: e.Adopted, Lane: e.Lane, ApprovedBy: e.Approval.ApprovedBy(), CancelRequested: e.Cancel.Result(),
		SignedBy: e.SignedBy, Client: e.Client, ReceivedAt: e.ReceivedAt, FinishedAt: e.AcceptedAt,
	}
	if e.Owned {
		r.Owner = cmp.Or(e.SignedBy, e.Client)
	}
	if e.State == StateFinal {
		r.Outcome, r.Final, r.Error, r.FinishedAt = e.Outcome, true, e.Error, e.DecidedAt
	}
	return r
}

// Acceptance is the entry as it was when its call was accepted; nil if the call was not accepted or is not followed.
func (e *Entry) Acceptance() *Entry {
	switch {
	case !e.Follow || e.ActionID == "":
		return nil
	case e.State == StateSubmitted:
		return e
	}
	accepted := *e
	accepted.State = StateSubmitted
	return &accepted
}

// Since is when the entry's current result was decided.
func (e *Entry) Since() time.Time {
	if e.State == StateSubmitted {
		return e.AcceptedAt
	}
	return e.DecidedAt
}

// Forget marks the entry as published, and drops what no later result needs.
func (e *Entry) Forget() {
	e.Published = true
	if e.Approval != nil {
		e.Approval = e.Approval.withoutSigned()
	}
	e.Comment, e.Metadata, e.Action, e.ReplyTo, e.Calls, e.Recorded = "", nil, nil, "", nil, nil
}
