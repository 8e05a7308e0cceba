package remediation

import (
	"context"

	"example.com/unrestrict-worker/internal/ledger"
	"example.com/unrestrict-worker/internal/message"
)

// publisher publishes what the ledger has decided, in order: the audit record, the dead letter, the result, and last the
// mark in the entry. The submitter and the tracker both use it. A crash anywhere between leaves an entry without the mark:
// all of it is published again, the broker recognises by their message ids what it has, and the record comes twice.
type publisher struct {
	Publisher
	audit  Auditor
	ledger ledger.Ledger
}

// publish does so for e, which is durable as it is. letter is nil where no message is in hand: then the acceptance, which
// whoever has the message publishes, is only published if that message still waits in its stream. For a process that died
// with it never will, and behind the end nobody would.
func (p publisher) publish(ctx context.Context, key string, e *ledger.Entry, letter *message.DeadLetter) error {
	if accepted := e.Acceptance(); accepted != nil {
		waits := letter != nil
		if !waits {
			var err error
			if waits, err = p.Waits(ctx, e.Source); err != nil {
				return err
			}
		}
		if waits {
			if err := p.publishOne(ctx, accepted, nil); err != nil {
				return err
			}
		}
	}
	if e.State == ledger.StateSubmitted {
		return nil // the tracker goes on from the ledger
	}
	if err := p.publishOne(ctx, e, letter); err != nil {
		return err
	}
	e.Forget()
	return ledger.Save(ctx, p.ledger, key, e, ledger.Retention)
}

// publishOne records and publishes what e says. Nothing is published that is not in the audit trail.
func (p publisher) publishOne(ctx context.Context, e *ledger.Entry, letter *message.DeadLetter) error {
	if err := p.audit.Record(ctx, e.Audit()); err != nil {
		return err
	}
	if e.Dead && letter != nil {
		if err := p.DeadLetter(ctx, *letter, e.Since()); err != nil {
			return err
		}
	}
	return p.Result(ctx, e.Result(), e.Trace(), e.ReplyTo, e.Since())
}

// publish is publisher.publish with the message in hand.
func (p *attempt) publish() error {
	return publisher{p.Publisher, p.Audit, p.Ledger}.publish(p.publishing(&p.e), p.key, &p.e, p.deadLetter())
}

// deadLetter is what the message in hand becomes if the run ended so.
func (p *attempt) deadLetter() *message.DeadLetter {
	d := p.origin
	d.Stream, d.Sequence = p.d.Stream, p.d.Sequence
	letter := &message.DeadLetter{Delivery: d, RequestID: p.e.ID, SignedBy: p.e.SignedBy, Run: p.e.Run, Attempts: p.e.Attempts, Time: p.e.DecidedAt}
	if p.e.Error != nil {
		letter.Code, letter.Message = p.e.Error.Code, p.e.Error.Message
	}
	return letter
}
