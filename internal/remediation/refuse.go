package remediation

import (
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"go.uber.org/zap"

	"example.com/unrestrict-worker/internal/ledger"
	"example.com/unrestrict-worker/internal/message"
)

// refuse rejects a message that has no claim on an id, under the id STREAM:SEQ. Nothing is written to the ledger: result
// and dead letter have message ids, so after a crash between them the broker drops what it has.
func (p *attempt) refuse(r message.Request, why *message.Invalid) (message.Outcome, error) {
	p.refused = why.Code
	p.startSpan()
	r.TraceParent, r.TraceState = p.req.TraceParent, p.req.TraceState
	now, unverified := time.Now().UTC(), why.Unverified(r)
	f := &message.Failure{Code: why.Code, Message: why.Message, Origin: message.OriginRequest}
	result := message.Result{
		RequestID: p.d.Ref(), Run: 1, ClaimedID: why.ClaimedID, MachineID: r.MachineID, RequestedBy: r.RequestedBy,
		Ticket: r.Ticket, Batch: r.Batch, Metadata: r.Metadata, Outcome: message.Rejected, Final: true, Error: f,
		SignedBy: r.SignedBy, Client: r.Client, ReceivedAt: later(p.began.UTC(), p.d.Published), FinishedAt: now, Unverified: unverified,
	}
	if err := p.recordRefusal(p.auditRefusal(r, result), unverified); err != nil {
		return message.Outcome{}, err
	}
	dead := message.DeadLetter{Delivery: p.d, Code: f.Code, Message: f.Message, RequestID: p.d.Ref(), SignedBy: r.SignedBy, Run: 1, Time: now, Unverified: unverified}
	if err := p.Publisher.DeadLetter(p.work, dead, p.d.Published); err != nil {
		return message.Outcome{}, err
	}
	if err := p.Publisher.Result(p.work, result, message.Trace{Parent: r.TraceParent, State: r.TraceState}, r.ReplyTo, p.d.Published); err != nil {
		return message.Outcome{}, err
	}
	if p.replay.found {
		if err := p.DeadLetters.Drop(p.work, p.replay.seq); err != nil {
			return message.Outcome{}, err
		}
	}
	p.Metrics.refused(f.Code)
	p.Log.Info("message rejected", p.about(p.d.Ref(), zap.String("claimed_id", why.ClaimedID),
		zap.String("code", f.Code), zap.String("why", f.Message), zap.String("signed_by", r.SignedBy))...)
	return message.Done(), nil
}

// later is the later of two times. A message is received after it was published, whatever the clocks say: Publisher.Result
// relies on that to recognise the result of this message.
func later(a, b time.Time) time.Time {
	if a.Before(b) {
		return b
	}
	return a
}

// A signed request whose expiresAt is too far ahead would be good once enough time has passed, for whoever has kept its
// bytes: perhaps when its id has been used by another request, ended and forgotten. So what was refused for that stays
// refused: the ledger remembers it for as long as it would live.
//
// A crash before this record is written leaves the message, which is redelivered.

const refusedAlready = "expiresAt: this request was refused when it was more than 7 days ahead, and stays so; sign it anew"

// refusedKey stands for what was signed, whoever signed it and however the signature is written down.
func (p *attempt) refusedKey() string {
	return "x." + ledger.DeploymentDigest(p.Rules.Stream) + "." + ledger.Digest(string(message.SignedText(p.origin.Subject, p.origin.Data)), 20)
}

// rememberRefusal records a request that expires too late, before its result is published.
func (p *attempt) rememberRefusal(expiresAt time.Time) error {
	const most = 100 * 365 * 24 * time.Hour // what the broker can reckon with
	value, err := json.Marshal(struct {
		Version int    `json:"v"`
		Nonce   string `json:"nonce"`
	}{ledger.FormatVersion, ledger.Nonce()})
	if err != nil {
		return err
	}
	w := ledger.Write{Key: p.refusedKey(), Value: value, TTL: min(time.Until(expiresAt)+time.Hour, most)}
	if _, err := p.Ledger.Save(p.work, w); err != nil && !errors.Is(err, ledger.ErrConflict) { // it is there already
		return fmt.Errorf("remember a refused request: %w", err)
	}
	return nil
}

// refusedBefore says whether the same bytes were refused for expiring too late. It matters only where
// signatures are required: without them anybody can write anything.
func (p *attempt) refusedBefore() (bool, error) {
	if p.Rules.Signers == nil || p.e.State != "" {
		return false, nil
	}
	rec, err := p.Ledger.Load(p.work, p.refusedKey())
	if err != nil {
		return false, fmt.Errorf("read the ledger: %w", err)
	}
	return rec.Value != nil, nil
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
