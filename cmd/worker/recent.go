package main

import (
	"context"
	"encoding/json"

	"example.com/unrestrict-worker/internal/admin"
	"example.com/unrestrict-worker/internal/broker"
	"example.com/unrestrict-worker/internal/remediation"
)

// shown is how many rows of results and dead letters the page asks for.
const shown = 12

func recentResults(ctx context.Context, b *broker.Broker) ([]admin.ResultRow, error) {
	msgs, err := b.Latest(ctx, b.Names().ResultsStream, shown)
	if err != nil {
		return nil, err
	}
	var rows []admin.ResultRow
	for _, m := range msgs {
		var r remediation.Result
		if json.Unmarshal(m.Data, &r) != nil {
			continue
		}
		row := admin.ResultRow{RequestID: r.RequestID, Run: r.Run, MachineID: r.MachineID, Outcome: r.Outcome, Time: m.Time}
		if r.Error != nil {
			row.Code, row.Message = r.Error.Code, r.Error.Message
		}
		rows = append(rows, row)
	}
	return rows, nil
}

func recentDeadLetters(ctx context.Context, b *broker.Broker) ([]admin.DeadLetterRow, error) {
	msgs, err := b.Latest(ctx, b.Names().DeadletterStream, shown)
	if err != nil {
		return nil, err
	}
	var rows []admin.DeadLetterRow
	for _, m := range msgs {
		d := remediation.ReadDeadLetter(m.Header, m.Data)
		rows = append(rows, admin.DeadLetterRow{
			Sequence: m.Sequence, RequestID: d.RequestID, Run: d.Run, Code: d.Code, Message: d.Message, Attempts: d.Attempts, Time: m.Time,
		})
	}
	return rows, nil
}
