package remediation

import (
	"encoding/json"
	"errors"
	"fmt"
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
)

// Failure is what went wrong, in the form that results show.
type Failure struct {
	Code       string `json:"code"`
	Message    string `json:"message"`
	HTTPStatus int    `json:"httpStatus,omitempty"` // 0: there was no answer
	Origin     string `json:"origin"`               // request, defender or worker
}

// Result is one message on the results subject (docs/schemas/result.json).
type Result struct {
	RequestID              string          `json:"requestId"`
	Run                    int             `json:"run"`
	ClaimedID              string          `json:"claimedId,omitempty"`
	MachineID              string          `json:"machineId,omitempty"`
	RequestedBy            string          `json:"requestedBy,omitempty"`
	Ticket                 string          `json:"ticket,omitempty"`
	Batch                  string          `json:"batch,omitempty"`
	Metadata               json.RawMessage `json:"metadata,omitempty"`
	Outcome                string          `json:"outcome"`
	Final                  bool            `json:"final"`
	MachineAction          json.RawMessage `json:"machineAction,omitempty"`
	MachineActionTruncated bool            `json:"machineActionTruncated,omitempty"`
	Error                  *Failure        `json:"error,omitempty"`
	Attempts               int             `json:"attempts"`
	Adopted                bool            `json:"adopted,omitempty"`
	SignedBy               string          `json:"signedBy,omitempty"`
	ReceivedAt             time.Time       `json:"receivedAt"`
	FinishedAt             time.Time       `json:"finishedAt,omitzero"`

	Unverified bool `json:"-"` // nobody vouches for the message that it answers: of such results the last are kept
}

// maxMessage bounds error.message in characters, so that a result without its action fits into any message.
const maxMessage = 4000

// MessageID is the result's Nats-Msg-Id and CloudEvents id, ID:PHASE:RUN, the id percent-encoded. No two results of
// different id, phase or run have the same.
func (r Result) MessageID() string {
	phase := "submitted"
	if r.Final {
		phase = "final"
	}
	return percentEncode(r.RequestID) + ":" + phase + ":" + strconv.Itoa(r.Run)
}

// Render makes the message: a CloudEvent in binary mode with the result as its data. Metadata and the MachineAction
// stand in it byte for byte. If headers and body exceed limit bytes (0: no limit), the MachineAction is left out and
// MachineActionTruncated set. It is an error if Metadata or MachineAction is no JSON, or all else is too large still.
// source names the deployment, a URI reference.
func (r Result) Render(source string, trace Trace, limit int) (Header, []byte, error) {
	h := r.header(source, trace)
	body, err := r.body()
	if err != nil {
		return nil, nil, fmt.Errorf("render result %s: %w", r.MessageID(), err)
	}
	if limit > 0 && h.size()+len(body) > limit && r.MachineAction != nil {
		r.MachineAction, r.MachineActionTruncated = nil, true
		if body, err = r.body(); err != nil {
			return nil, nil, fmt.Errorf("render result %s: %w", r.MessageID(), err)
		}
	}
	if n := h.size() + len(body); limit > 0 && n > limit {
		return nil, nil, fmt.Errorf("render result %s: %d bytes, more than the %d that fit into a message", r.MessageID(), n, limit)
	}
	return h, body, nil
}

func (r Result) header(source string, trace Trace) Header {
	id := r.MessageID()
	h := Header{
		"Nats-Msg-Id":        {id},
		"Content-Type":       {"application/json"},
		"ce-specversion":     {"1.0"},
		"ce-id":              {id}, // encoded already: a reader that decodes gets the id as it is
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

// body has metadata and machineAction as they are: encoding/json would take out their white space.
func (r Result) body() ([]byte, error) {
	o := newObject(512 + len(r.Metadata) + len(r.MachineAction))
	o.text("requestId", r.RequestID)
	o.number("run", r.Run)
	o.some("claimedId", r.ClaimedID)
	o.some("machineId", r.MachineID)
	o.some("requestedBy", r.RequestedBy)
	o.some("ticket", r.Ticket)
	o.some("batch", r.Batch)
	o.text("outcome", r.Outcome)
	o.name("final")
	o.b = strconv.AppendBool(o.b, r.Final)
	o.flag("machineActionTruncated", r.MachineActionTruncated)
	o.failure("error", shortError(r.Error))
	o.number("attempts", r.Attempts)
	o.flag("adopted", r.Adopted)
	o.some("signedBy", r.SignedBy)
	o.instant("receivedAt", r.ReceivedAt.UTC())
	o.time("finishedAt", r.FinishedAt.UTC())
	for _, raw := range []struct {
		name  string
		value json.RawMessage
	}{{"metadata", r.Metadata}, {"machineAction", r.MachineAction}} {
		if raw.value == nil || string(raw.value) == "null" {
			continue
		}
		if !json.Valid(raw.value) {
			return nil, errors.New(raw.name + " is no JSON")
		}
		o.raw(raw.name, raw.value)
	}
	return o.end()
}
