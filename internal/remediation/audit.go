package remediation

import (
	"context"
	"time"

	"example.com/unrestrict-worker/internal/ledger"
	"example.com/unrestrict-worker/internal/message"
)

// Auditor keeps a record of each decision for good.
//
// Record returns nil only when the record is durable; nothing is published before that. After an error the record may or
// may not be durable. After a crash or an error Record is called again with the same decision, which may then be recorded
// twice; that is accepted.
//
// It is safe for concurrent use.
type Auditor interface {
	Record(ctx context.Context, r ledger.AuditRecord) error
}

// auditReplay is the record of a run that a dead letter has opened.
func (p *attempt) auditReplay() ledger.AuditRecord {
	r := p.e.Audit()
	r.Kind, r.Outcome, r.DecidedAt = ledger.AuditReplayed, "", time.Now().UTC()
	return r
}

// auditRefusal is the record of a message that has no claim on an id. It echoes what the message's result echoes.
func (p *attempt) auditRefusal(r message.Request, told message.Result) ledger.AuditRecord {
	return ledger.AuditRecord{
		Kind: ledger.AuditRefused, RequestID: told.RequestID, Run: told.Run, ClaimedID: told.ClaimedID, Message: p.d.Ref(), ReplayOf: p.replay.seq,
		MachineID: r.MachineID, Comment: r.Comment, RequestedBy: r.RequestedBy, Ticket: r.Ticket, Batch: r.Batch,
		SignedBy: r.SignedBy, Signer: r.Signer, Client: r.Client, Outcome: told.Outcome, Error: message.ShortError(told.Error),
		PublishedAt: p.d.Published.UTC(), ReceivedAt: told.ReceivedAt.UTC(), DecidedAt: told.FinishedAt,
	}
}
