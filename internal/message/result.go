package message

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"time"
)

// Outcomes of a run.
const (
	Submitted = "submitted" // the API accepted the call; final only where actions are not followed
	Succeeded = "succeeded"
	Failed    = "failed"
	TimedOut  = "timedOut"
	Cancelled = "cancelled"
	Rejected  = "rejected"
	Abandoned = "abandoned"
	DryRun    = "dryRun"

	AwaitingApproval = "awaitingApproval" // never final
)

// Outcomes are the outcomes of a result.
func Outcomes() []string {
	return []string{AwaitingApproval, Submitted, Succeeded, Failed, TimedOut, Cancelled, Rejected, Abandoned, DryRun}
}

// IsOutcome reports whether s is one of the outcomes.
func IsOutcome(s string) bool { return slices.Contains(Outcomes(), s) }

// Result is one message on the results subject (docs/schemas/result.json).
type Result struct {
	RequestID              string           `json:"requestId"`
	Run                    int              `json:"run"`
	ClaimedID              string           `json:"claimedId,omitempty"`
	MachineID              string           `json:"machineId,omitempty"`
	RequestedBy            string           `json:"requestedBy,omitempty"`
	Ticket                 string           `json:"ticket,omitempty"`
	Batch                  string           `json:"batch,omitempty"`
	Metadata               json.RawMessage  `json:"metadata,omitempty"`
	Outcome                string           `json:"outcome"`
	Final                  bool             `json:"final"`
	MachineAction          json.RawMessage  `json:"machineAction,omitempty"`
	MachineActionTruncated bool             `json:"machineActionTruncated,omitempty"`
	MetadataTruncated      bool             `json:"metadataTruncated,omitempty"`
	Error                  *Failure         `json:"error,omitempty"`
	Attempts               int              `json:"attempts"`
	Adopted                bool             `json:"adopted,omitempty"`
	Lane                   Lane             `json:"lane,omitempty"` // the lane that it was called on; absent for a request of the previous version
	Approval               *Approval        `json:"approval,omitempty"`
	ApprovedBy             []string         `json:"approvedBy,omitempty"`
	CancelRequested        *CancelRequested `json:"cancelRequested,omitempty"`
	SignedBy               string           `json:"signedBy,omitempty"`
	Client                 string           `json:"client,omitempty"`
	Owner                  string           `json:"-"` // owner of the id; "": none
	ReceivedAt             time.Time        `json:"receivedAt"`
	FinishedAt             time.Time        `json:"finishedAt,omitzero"`

	Unverified bool `json:"-"` // its message is unverified: only the latest such results are kept
}

// Approval is what a run awaits before its call.
type Approval struct {
	Required  int       `json:"required"`
	By        []string  `json:"by"` // who may approve
	ExpiresAt time.Time `json:"expiresAt"`
	Digest    string    `json:"digest"`
}

// CancelRequested is the order to cancel the run. An accepted action runs to its end all the same, unless the API was asked
// to cancel it.
type CancelRequested struct {
	By         string    `json:"by,omitempty"`
	At         time.Time `json:"at"` // when the order was stored
	Reason     string    `json:"reason,omitempty"`
	HTTPStatus int       `json:"httpStatus,omitempty"` // of the API's answer; 0: not asked, or no answer
}

// MessageID is the result's Nats-Msg-Id and CloudEvents id, ID:PHASE:RUN or ID:PHASE:RUN:OWNER, with the id percent-encoded.
// Two results that differ in id, phase, run or owner never share one: read from its end, one form has a number where the
// other has a phase.
func (r Result) MessageID() string {
	phase := "submitted"
	switch {
	case r.Final:
		phase = "final"
	case r.Outcome == AwaitingApproval:
		phase = "approval"
	}
	id := percentEncode(r.RequestID) + ":" + phase + ":" + strconv.Itoa(r.Run)
	if r.Owner != "" {
		id += ":" + r.Owner
	}
	return id
}

// Render makes the message: a CloudEvent in binary mode with the result as its data. Metadata and MachineAction are included
// byte for byte. If headers and body exceed limit bytes (0: no limit), the MachineAction is left out and
// MachineActionTruncated set; if that is not enough, Metadata and MetadataTruncated alike. It returns an error if either is
// not JSON, and ErrTooLarge if the rest is still too large. source names the deployment, a URI reference.
func (r Result) Render(source string, trace Trace, limit int) (Header, []byte, error) {
	h := r.header(source, trace)
	body, err := r.body()
	if err != nil {
		return nil, nil, fmt.Errorf("render result %s: %w", r.MessageID(), err)
	}
	for _, leaveOut := range []func(){
		func() {
			r.MachineActionTruncated, r.MachineAction = r.MachineActionTruncated || r.MachineAction != nil, nil
		},
		func() { r.MetadataTruncated, r.Metadata = r.MetadataTruncated || r.Metadata != nil, nil },
	} {
		if limit <= 0 || h.size()+len(body) <= limit {
			return h, body, nil
		}
		leaveOut()
		if body, err = r.body(); err != nil {
			return nil, nil, fmt.Errorf("render result %s: %w", r.MessageID(), err)
		}
	}
	if n := h.size() + len(body); n > limit {
		return nil, nil, fmt.Errorf("render result %s: %w: %d bytes, where %d fit into a message", r.MessageID(), ErrTooLarge, n, limit)
	}
	return h, body, nil
}

func (r Result) header(source string, trace Trace) Header {
	id := r.MessageID()
	h := Header{
		"Nats-Msg-Id":        {id},
		"Content-Type":       {"application/json"},
		"ce-specversion":     {"1.0"},
		"ce-id":              {id}, // already encoded: readers decode it to the id
		"ce-source":          {percentEncode(source)},
		"ce-type":            {"remediation.unrestrict." + r.Outcome},
		"ce-datacontenttype": {"application/json"},
	}
	if r.MachineID != "" {
		h["ce-subject"] = []string{r.MachineID}
	}
	if !r.FinishedAt.IsZero() {
		h["ce-time"] = []string{r.FinishedAt.UTC().Format(time.RFC3339Nano)}
	}
	if trace.Parent != "" {
		h["traceparent"] = []string{trace.Parent}
		if trace.State != "" {
			h["tracestate"] = []string{trace.State}
		}
	}
	return h
}

// body includes metadata and machineAction byte for byte: encoding/json would remove their white space.
func (r Result) body() ([]byte, error) {
	metadata, action := r.Metadata, r.MachineAction
	r.Metadata, r.MachineAction = nil, nil
	r.Error, r.ReceivedAt, r.FinishedAt = ShortError(r.Error), r.ReceivedAt.UTC(), r.FinishedAt.UTC()
	body, err := EncodeJSON(r)
	if err != nil {
		return nil, err
	}
	for _, raw := range []struct {
		name  string
		value json.RawMessage
	}{{"metadata", metadata}, {"machineAction", action}} {
		if raw.value == nil || string(raw.value) == "null" {
			continue
		}
		if !json.Valid(raw.value) {
			return nil, errors.New(raw.name + " is no JSON")
		}
		body = slices.Concat(body[:len(body)-1], []byte(`,"`+raw.name+`":`), raw.value, []byte("}"))
	}
	return body, nil
}

// EncodeJSON leaves < and > unescaped, because people search in results and records.
func EncodeJSON(value any) ([]byte, error) {
	b := bytes.NewBuffer(make([]byte, 0, 1024)) // enough for most, so that it need not grow
	enc := json.NewEncoder(b)
	enc.SetEscapeHTML(false)
	err := enc.Encode(value)
	return bytes.TrimSuffix(b.Bytes(), []byte("\n")), err
}
