package approvals

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"

	"example.com/unrestrict-worker/internal/broker"
	"example.com/unrestrict-worker/internal/cli/session"
	"example.com/unrestrict-worker/internal/cli/submit"
	"example.com/unrestrict-worker/internal/ledger"
	"example.com/unrestrict-worker/internal/message"
)

// fromFile finds, for each row of the file, the waiting request with the same content. For a row without one it returns an outcome
// that says why. Each request is then approved by its own digest, so that one that is not in the file is not approved with the
// batch.
func (c *flags) fromFile(ctx context.Context, env *session.Env, conn *broker.Broker) (waiting []Waiting, outcomes []outcome, err error) {
	of := submit.Cmd{File: c.File, Batch: c.Batch, Comment: c.Comment, ValidateOnly: true}
	s, done, err := of.Prepare(ctx, env)
	if err != nil {
		return nil, nil, err
	}
	defer done()
	all, err := gather(ctx, conn, func(e *ledger.Entry) bool {
		return e.Batch == c.Batch && (c.SignedBy == "" || e.SignedBy == c.SignedBy)
	})
	if err != nil {
		return nil, nil, err
	}
	byID := map[string][]Waiting{}
	for _, w := range all {
		byID[w.ID] = append(byID[w.ID], w)
	}
	names := conn.Names()
	rules := message.Rules{Stream: names.Stream, OwnSubjects: names.OwnSubjects()}
	for row := range s.Bulk.Requests() {
		found := byID[row.Message.ID]
		no := func(result, why string) {
			outcomes = append(outcomes, outcome{ID: row.Message.ID, Result: result, Why: fmt.Sprintf("line %d: %s", row.Line, why)})
		}
		switch {
		case len(found) == 0:
			no(unknown, "no request of this id awaits approval in the batch "+c.Batch)
			continue
		case len(found) > 1:
			no(refused, "several have a request of this id; say whose with --signed-by")
			continue
		}
		asked, invalid := rules.Parse(message.Delivery{Stream: names.Stream, Subject: names.Subject, Data: row.Payload})
		if invalid != nil {
			no(refused, invalid.Message)
			continue
		}
		if differs := differ(asked, found[0].message.Req); differs != "" && found[0].wrong == nil {
			no(refused, differs+": the waiting request says something else than the row")
			continue
		}
		waiting = append(waiting, found[0])
	}
	return waiting, outcomes, nil
}

// differ returns the first field in which a request differs from a row; "" if none does. A row without expiresAt leaves that
// open, because submit adds one when it signs.
func differ(row, request message.Request) string {
	for _, field := range []struct {
		name      string
		different bool
	}{
		{"machineId", row.MachineID != request.MachineID},
		{"comment", row.Comment != request.Comment},
		{"requestedBy", row.RequestedBy != request.RequestedBy},
		{"ticket", row.Ticket != request.Ticket},
		{"batch", row.Batch != request.Batch},
		{"replyTo", row.ReplyTo != request.ReplyTo},
		{"metadata", !bytes.Equal(compact(row.Metadata), compact(request.Metadata))},
		{"expiresAt", !row.ExpiresAt.IsZero() && !row.ExpiresAt.Equal(request.ExpiresAt)},
	} {
		if field.different {
			return field.name
		}
	}
	return ""
}

func compact(raw json.RawMessage) []byte {
	var b bytes.Buffer
	if len(raw) == 0 || json.Compact(&b, raw) != nil {
		return raw
	}
	return b.Bytes()
}
