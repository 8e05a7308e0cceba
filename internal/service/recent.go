package service

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"example.com/unrestrict-worker/internal/admin"
	"example.com/unrestrict-worker/internal/broker"
	"example.com/unrestrict-worker/internal/message"
)

// How many rows the page shows.
const (
	shown         = 12 // rows of failures, dead letters and batches
	shownRequests = 25
	shownWaiting  = 5 // requests that wait, among these
)

func resultRow(at time.Time, r message.Result) admin.ResultRow {
	row := admin.ResultRow{
		RequestID: r.RequestID, ClaimedID: r.ClaimedID, Run: r.Run, MachineID: r.MachineID, RequestedBy: r.RequestedBy, SignedBy: r.SignedBy,
		Ticket: r.Ticket, Outcome: r.Outcome, Time: at, Advice: AdviceOf(r),
	}
	if !r.Final {
		row.State = stateTexts[r.Outcome]
	}
	if f := WhyEnded(r); f != nil {
		row.Code, row.Message = f.Code, f.Message
	}
	return row
}

func recentDeadLetters(ctx context.Context, b *broker.Broker) ([]admin.DeadLetterRow, error) {
	msgs, err := b.Latest(ctx, b.Names().DeadletterStream, shown)
	if err != nil {
		return nil, err
	}
	var rows []admin.DeadLetterRow
	for _, m := range msgs {
		h := m.Header
		d := message.ReadDeadLetter(h, m.Data)
		replay := ReplayOf(b.Names(), d, h, m.Data, time.Now())
		row := admin.DeadLetterRow{Sequence: m.Sequence, Attempts: d.Attempts, Replay: replay.Chance == ReplayHelps}
		row.ResultRow = admin.ResultRow{
			RequestID: d.RequestID, Run: d.Run, SignedBy: d.SignedBy, Code: d.Code, Message: d.Message, Time: m.Time, Advice: replay.Text,
		}
		if r, claimed, ok := RequestOfDeadLetter(d, h, m.Data, b.Names().Stream); ok {
			row.MachineID, row.RequestedBy, row.Ticket, row.ClaimedID = r.MachineID, r.RequestedBy, r.Ticket, claimed
		}
		rows = append(rows, row)
	}
	return rows, nil
}

// WhyEnded returns the error of a result. An action that did not succeed has none: for it WhyEnded returns what the API reports
// of the action. Nil: there is nothing to report.
func WhyEnded(r message.Result) *message.Failure {
	if r.Error != nil || !r.Final || r.Outcome == message.Succeeded || len(r.MachineAction) == 0 {
		return r.Error
	}
	var a struct {
		ID, Status         string
		ErrorHResult       int64
		TroubleshootInfo   string
		CancellationReason string
		Commands           []struct{ Errors []string }
	}
	_ = json.Unmarshal(r.MachineAction, &a) // what can't be read is left out
	texts := []string{"the machine's action " + a.ID + " ended " + a.Status}
	if a.ErrorHResult != 0 {
		texts = append(texts, fmt.Sprintf("errorHResult 0x%08X", a.ErrorHResult&0xffffffff))
	}
	for _, text := range []string{a.TroubleshootInfo, a.CancellationReason} {
		if text != "" {
			texts = append(texts, text)
		}
	}
	for _, c := range a.Commands {
		texts = append(texts, c.Errors...)
	}
	if len(texts) == 1 {
		texts = append(texts, "Defender says no more; see the action in its portal")
	}
	return &message.Failure{Code: "action" + a.Status, Message: strings.Join(texts, "; "), Origin: message.OriginDefender}
}
