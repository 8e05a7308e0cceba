// Package approvals is `worker approvals`, `worker approve` and `worker deny`.
package approvals

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"example.com/unrestrict-worker/internal/admin"
	"example.com/unrestrict-worker/internal/broker"
	"example.com/unrestrict-worker/internal/cli/session"
	"example.com/unrestrict-worker/internal/ledger"
	"example.com/unrestrict-worker/internal/message"
	"example.com/unrestrict-worker/internal/service"
)

// Waiting is a run that awaits approval, with the message that is approved. What is shown of it is read from that message, not
// from the entry that a worker wrote.
type Waiting struct {
	ledger.Entry
	message service.Queued
	wrong   error // why it can't be approved as it stands; nil: it can
}

// gather returns the wanted entries that await approval, in the order in which their approval was asked for.
func gather(ctx context.Context, conn *broker.Broker, wanted func(*ledger.Entry) bool) (all []Waiting, err error) {
	var entries []ledger.Entry
	err = conn.NewLedger().Search(ctx, func(e ledger.Entry) {
		if e.Awaits() && wanted(&e) {
			entries = append(entries, e)
		}
	})
	if broker.IsMissing(err) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	return withMessages(ctx, conn, entries)
}

// withMessages finds the messages of entries.
func withMessages(ctx context.Context, conn *broker.Broker, entries []ledger.Entry) (all []Waiting, err error) {
	if len(entries) == 0 {
		return nil, nil
	}
	stream := conn.Names().Stream
	of := map[string]service.Queued{}
	sources := map[string]bool{}
	for _, e := range entries {
		sources[e.Source] = true
	}
	name := "" // any
	if len(entries) == 1 {
		name = entries[0].ID
	}
	found, err := service.ReadQueue(ctx, conn, name, func(q service.Queued) bool { return sources[fmt.Sprintf("%s:%d", stream, q.Sequence)] })
	if err != nil {
		return nil, err
	}
	for _, q := range found {
		of[fmt.Sprintf("%s:%d", stream, q.Sequence)] = q
	}
	for _, e := range entries {
		q, there := of[e.Source]
		w := Waiting{Entry: e, message: q}
		switch h := q.Header; {
		case !there:
			w.wrong = errors.New("its message is gone from its stream, so that what would be approved can't be shown")
		case message.SignedDigest(q.Subject, q.Data) != e.Approval.Digest:
			w.wrong = errors.New("its message is not the one that the worker asks to approve: the digests differ")
		case h.Get(message.HeaderSigner) != e.Signer || !message.Signed(e.Signer, h.Get(message.HeaderSignature), q.Subject, q.Data):
			w.wrong = errors.New("its message is not signed by " + e.SignedBy)
		}
		all = append(all, w)
	}
	slices.SortStableFunc(all, func(a, b Waiting) int {
		return cmp.Or(a.Approval.Since.Compare(b.Approval.Since), cmp.Compare(a.ID, b.ID))
	})
	return all, nil
}

// view is a Waiting in JSON: what is signed, and what else helps to decide.
type view struct {
	RequestID   string    `json:"requestId"`
	Run         int       `json:"run"`
	SignedBy    string    `json:"signedBy,omitempty"`
	MachineID   string    `json:"machineId,omitempty"`
	Comment     string    `json:"comment,omitempty"`
	RequestedBy string    `json:"requestedBy,omitempty"`
	Ticket      string    `json:"ticket,omitempty"`
	Batch       string    `json:"batch,omitempty"`
	Metadata    any       `json:"metadata,omitempty"`
	ReplyTo     string    `json:"replyTo,omitempty"`
	ExpiresAt   time.Time `json:"expiresAt,omitzero"`
	Subject     string    `json:"subject,omitempty"`
	Digest      string    `json:"digest"`
	Required    int       `json:"required"`
	By          []string  `json:"by"`
	Since       time.Time `json:"since"`
	Until       time.Time `json:"until"`
	Wrong       string    `json:"wrong,omitempty"` // why it can't be approved as it stands
}

func (w *Waiting) view() view {
	r, a := w.message.Req, w.Approval
	v := view{
		RequestID: w.ID, Run: w.Run, SignedBy: w.SignedBy, MachineID: r.MachineID, Comment: r.Comment, RequestedBy: r.RequestedBy, Ticket: r.Ticket, Batch: r.Batch,
		ReplyTo: r.ReplyTo, ExpiresAt: r.ExpiresAt, Subject: w.message.Subject, Digest: a.Digest, Required: a.Required, By: a.By, Since: a.Since, Until: a.ExpiresAt,
	}
	if r.Metadata != nil {
		v.Metadata = r.Metadata
	}
	if w.wrong != nil {
		v.Wrong = w.wrong.Error()
	}
	return v
}

// write writes all that an approval signs, for people.
func (w *Waiting) write(out io.Writer) error {
	v := w.view()
	field := func(name, text string) {
		if text != "" {
			fmt.Fprintf(out, "%-14s%s\n", name, session.Plain(text))
		}
	}
	id := v.RequestID
	if v.Run > 1 {
		id += fmt.Sprintf(", run %d", v.Run)
	}
	field("request", id)
	field("signed by", v.SignedBy)
	field("machine", v.MachineID)
	field("comment", v.Comment)
	field("requested by", v.RequestedBy)
	field("ticket", v.Ticket)
	field("batch", v.Batch)
	field("metadata", string(w.message.Req.Metadata))
	field("reply to", v.ReplyTo)
	if !v.ExpiresAt.IsZero() {
		field("expires", v.ExpiresAt.UTC().Format(time.RFC3339))
	}
	field("on", v.Subject)
	field("digest", v.Digest)
	_, err := fmt.Fprintf(out, "%-14s%d of %s, since %s, until %s\n", "awaits", v.Required, session.Plain(strings.Join(v.By, ", ")), admin.Clock(v.Since), admin.Clock(v.Until))
	if v.Wrong != "" {
		field("NOT AS IT IS", v.Wrong)
	}
	return err
}

// ListCmd is `worker approvals`.
type ListCmd struct {
	Batch string `placeholder:"NAME" help:"Only rows of this batch."`
	JSON  bool   `name:"json" help:"One JSON object a line."`
}

// Run shows what awaits approval, with all that an approval signs.
func (c *ListCmd) Run(ctx context.Context, env *session.Env) error {
	conn, err := session.DialForCommand(ctx, env)
	if err != nil {
		return err
	}
	defer session.CloseAfterCommand(conn)
	all, err := gather(ctx, conn, func(e *ledger.Entry) bool { return c.Batch == "" || e.Batch == c.Batch })
	if err != nil {
		return err
	}
	if len(all) == 0 && !c.JSON {
		_, err = fmt.Fprintln(env.Stdout, "Nothing awaits approval.")
		return err
	}
	for i, w := range all {
		switch {
		case c.JSON:
			err = session.WriteJSONLine(env.Stdout, w.view())
		default:
			if i > 0 {
				fmt.Fprintln(env.Stdout)
			}
			err = w.write(env.Stdout)
		}
		if err != nil {
			return err
		}
	}
	return nil
}
