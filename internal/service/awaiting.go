package service

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"example.com/unrestrict-worker/internal/admin"
	"example.com/unrestrict-worker/internal/broker"
	"example.com/unrestrict-worker/internal/ledger"
	"example.com/unrestrict-worker/internal/message"
)

// awaitingGood is how long the page reuses one search of the ledger, which may be long. Nobody can approve on the page, so that a
// few seconds do no harm.
const awaitingGood = 10 * time.Second

// awaiting keeps what the page shows of the runs that await approval. The zero value is empty.
type awaiting struct {
	mu   sync.Mutex // held during a search
	at   time.Time
	rows []admin.ResultRow
}

// show returns the runs that have waited the longest.
func (a *awaiting) show(ctx context.Context, b *broker.Broker) ([]admin.ResultRow, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if time.Since(a.at) < awaitingGood {
		return a.rows, nil
	}
	o, err := b.Overview(ctx, nil)
	if err != nil {
		return nil, err
	}
	if a.at, a.rows = time.Now(), nil; o.Awaiting == 0 {
		return nil, nil
	}
	var rows []admin.ResultRow
	err = b.NewLedger().Search(ctx, func(e ledger.Entry) {
		if !e.Awaits() {
			return
		}
		rows = append(rows, admin.ResultRow{
			RequestID: e.ID, Run: e.Run, MachineID: e.MachineID, RequestedBy: e.RequestedBy, SignedBy: e.SignedBy, Ticket: e.Ticket, Outcome: message.AwaitingApproval, State: stateTexts[message.AwaitingApproval], Time: e.Approval.Since,
			Message: fmt.Sprintf("%d of %s, until %s", e.Approval.Required, strings.Join(e.Approval.By, ", "), admin.Clock(e.Approval.ExpiresAt)),
		})
	})
	if err != nil {
		return nil, err
	}
	slices.SortFunc(rows, func(x, y admin.ResultRow) int { return x.Time.Compare(y.Time) })
	a.rows = slices.Clone(rows[:min(len(rows), shown)])
	return a.rows, nil
}
