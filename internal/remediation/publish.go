package remediation

import (
	"context"
	"slices"

	"example.com/unrestrict-worker/internal/ledger"
	"example.com/unrestrict-worker/internal/message"
)

// Auditor keeps a permanent record of each decision.
//
// Record returns nil only when the record is durable; nothing is published before that. After an error the record may or may
// not be durable. After a crash or an error Record is called again with the same decision, which may then be recorded twice;
// that is accepted.
//
// It is safe for concurrent use.
type Auditor interface {
	Record(ctx context.Context, r ledger.AuditRecord) error
	// Fits returns an error that wraps message.ErrTooLarge if the record of a run can never be stored, however short it is
	// made.
	Fits(r ledger.AuditRecord) error
}

// publisher publishes a decision, in order: the audit record, the dead letter, the result, and last the mark in the entry.
// The submitter and the tracker both use it. A crash in between leaves an entry without the mark. Then everything is
// published again: the broker drops duplicates by message id, and the audit record is written twice.
type publisher struct {
	Publisher
	audit  Auditor
	ledger ledger.Ledger
}

// publish publishes e, which is already durable, and marks it. letter is nil if no message is being handled.
func (p publisher) publish(ctx context.Context, key string, e *ledger.Entry, letter *message.DeadLetter) error {
	recorded := len(e.Recorded)
	err := p.publishAll(ctx, e, letter)
	switch {
	case err != nil && len(e.Recorded) > recorded:
		_ = ledger.Save(ctx, p.ledger, key, e, 0) // best effort: without it the next try writes the audit record again
		return err
	case err != nil || e.State == ledger.StateSubmitted: // the tracker continues from the ledger
		return err
	}
	if isUnpublishable(e) {
		e.LastError = nil
	}
	e.Forget()
	return ledger.Save(ctx, p.ledger, key, e, ledger.Retention)
}

// publishAll publishes the acceptance and the end. The acceptance is normally published by the handler of the message.
// Without a message it is published only if the message is still in its stream: then the process that had it may have
// crashed, and the acceptance would otherwise be published after the end or never.
func (p publisher) publishAll(ctx context.Context, e *ledger.Entry, letter *message.DeadLetter) error {
	if accepted := e.Acceptance(); accepted != nil {
		waits := letter != nil
		if !waits {
			var err error
			if waits, err = p.Unacked(ctx, e.Source); err != nil {
				return err
			}
		}
		if waits {
			if err := p.publishOne(ctx, accepted, nil, &e.Recorded); err != nil {
				return err
			}
		}
	}
	if e.State == ledger.StateSubmitted {
		return nil
	}
	return p.publishOne(ctx, e, letter, &e.Recorded)
}

// publishOne records and publishes e's result. Nothing is published that is not in the audit trail. What is already recorded
// there is not recorded again, however often publishing fails.
func (p publisher) publishOne(ctx context.Context, e *ledger.Entry, letter *message.DeadLetter, recorded *[]string) error {
	if r := e.Audit(); !slices.Contains(*recorded, r.Kind) {
		if err := p.audit.Record(ctx, r); err != nil {
			return notPublished{err}
		}
		*recorded = append(*recorded, r.Kind)
	}
	if e.Dead && letter != nil {
		if err := p.DeadLetter(ctx, *letter, e.Since()); err != nil {
			return notPublished{err}
		}
	}
	if err := p.Result(ctx, e.Result(), e.Trace(), e.ReplyTo, e.Since()); err != nil {
		return notPublished{err}
	}
	return nil
}

// publish is publisher.publish for the delivered message.
func (p *attempt) publish() error {
	err := publisher{p.Publisher, p.Audit, p.Ledger}.publish(p.publishing(&p.e), p.key, &p.e, p.deadLetter())
	if err != nil {
		return err
	}
	p.Shared.notePublished(p.key)
	p.Breaker.ResetFrom(faultPublish)
	if isUnpublishable(&p.e) { // an acceptance, which is published now
		p.e.LastError = nil
		_ = p.save()
	}
	return nil
}

// deadLetter is the dead letter that the delivered message becomes if the run ended with one.
func (p *attempt) deadLetter() *message.DeadLetter {
	d := p.origin
	d.Stream, d.Sequence = p.d.Stream, p.d.Sequence
	letter := &message.DeadLetter{Delivery: d, RequestID: p.e.ID, SignedBy: p.e.SignedBy, Run: p.e.Run, Attempts: p.e.Attempts, Time: p.e.DecidedAt}
	if p.e.Error != nil {
		letter.Code, letter.Message = p.e.Error.Code, p.e.Error.Message
	}
	return letter
}

// ask publishes that the run awaits approval, and marks that. After a crash in between it is published again, which the
// stream recognises as a duplicate.
func (p *attempt) ask() error {
	r := p.e.Audit()
	r.Kind, r.Outcome, r.DecidedAt = ledger.AuditAwaiting, message.AwaitingApproval, p.e.Approval.Since
	err := p.Audit.Record(p.work, r)
	if err == nil {
		err = p.Publisher.Result(p.publishing(&p.e), p.e.Approval.Result(&p.e), p.e.Trace(), p.e.ReplyTo, p.e.Approval.Since)
	}
	if err != nil {
		return notPublished{err}
	}
	asked := *p.e.Approval
	asked.Asked = true
	p.e.Approval = &asked
	return p.save()
}
