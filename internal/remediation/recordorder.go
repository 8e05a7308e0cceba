package remediation

import (
	"context"
	"time"

	"example.com/unrestrict-worker/internal/ledger"
	"example.com/unrestrict-worker/internal/message"
)

// RecordOrder records an order in the audit trail, with the reason if it changes nothing. Of unverified orders the first of
// each minute and kind has a record, and the others are counted (refusals).
func (s *Submitter) RecordOrder(ctx context.Context, q Queue, d message.Delivery) error {
	o, invalid := s.Orders.Judge(d)
	if invalid == nil && isVerdict(&o) {
		var err error
		if invalid, err = s.verdictFault(ctx, q, &o); err != nil {
			return err
		}
	}
	r := ledger.AuditRecord{
		Kind: ledger.AuditOrdered, Act: o.Verb, Message: d.Ref(), RequestID: o.ID, Run: o.Run, Batch: o.Batch, Whose: o.Signer, Actions: o.Actions,
		SignedBy: o.By, Signer: o.Key, Client: o.Via, Reason: o.Reason, PublishedAt: d.Published.UTC(), DecidedAt: time.Now().UTC(),
	}
	if o.Client != "" {
		r.Whose = o.Client
	}
	if o.Key != "" { // what others need to verify it
		r.Subject, r.Order, r.Signature = d.Subject, string(d.Data), d.Header.Get(message.HeaderSignature)
	}
	if invalid == nil {
		return s.Audit.Record(ctx, r)
	}
	r.Outcome, r.ClaimedID = message.Rejected, invalid.ClaimedID
	r.Error = &message.Failure{Code: invalid.Code, Message: invalid.Message, Origin: message.OriginRequest}
	if o.Key != "" && invalid.Code != CodeRepeated {
		return s.Audit.Record(ctx, r)
	}
	of := refusal{minute: time.Now().UTC().Truncate(time.Minute), code: invalid.Code, order: true}
	if s.refusals.count(of) {
		return nil
	}
	err := s.Audit.Record(ctx, r.Shorten())
	if err != nil {
		s.refusals.add(of, 0)
	}
	return err
}
