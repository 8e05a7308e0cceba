package broker

import (
	"context"
	"fmt"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"example.com/unrestrict-worker/internal/broker/stream"
	"example.com/unrestrict-worker/internal/broker/trail"
	"example.com/unrestrict-worker/internal/ledger"
	"example.com/unrestrict-worker/internal/message"
	"example.com/unrestrict-worker/internal/remediation"
)

// Auditor is remediation's Auditor on the stream REMEDIATION_AUDIT.
//
// A process writes one chain, one record at a time, so that what a record names as the one before is known to be stored.
// A record whose acknowledgement does not come ends its chain, whether it was stored or not: the next record opens
// another. So no fault leaves a gap in a chain, or a number twice (ADR 10).
type Auditor struct {
	b       *Broker
	process string
	turn    chan struct{} // holds the one token while nobody writes; who has it owns what is below

	chain   *trail.Writer // nil: to be opened
	opened  int
	created time.Time // of the stream that the chain is in
}

var _ remediation.Auditor = (*Auditor)(nil)

// NewAuditor writes to the audit trail, after Provision; process tells this one from all others, for good.
func (b *Broker) NewAuditor(process string) *Auditor {
	a := &Auditor{b: b, process: process, turn: make(chan struct{}, 1)}
	a.turn <- struct{}{}
	return a
}

// Record implements remediation.Auditor. Records are stored in the order of the calls.
func (a *Auditor) Record(ctx context.Context, r ledger.AuditRecord) error {
	select {
	case <-a.turn:
		defer func() { a.turn <- struct{}{} }()
	case <-ctx.Done():
		return fmt.Errorf("write to the audit trail: %w", context.Cause(ctx))
	}
	if created := a.b.found.Load().created[AuditStream]; !created.Equal(a.created) {
		a.chain, a.created = nil, created // the stream was made anew: nothing that came before is in it
	}
	if a.chain == nil {
		if err := a.open(ctx); err != nil {
			return fmt.Errorf("open a chain of the audit trail: %w", err)
		}
	}
	payload, err := a.chain.Next(time.Now(), r, a.b.limit(AuditStream))
	switch n, most := len(payload), a.b.limit(AuditStream); {
	case err == nil && n > most: // not even shortened, and the chain goes on
		err = tooLargeRecord(n, most)
	case err == nil:
		err = a.store(ctx, a.chain, payload)
	}
	if err != nil {
		return fmt.Errorf("write to the audit trail: %w", err)
	}
	return nil
}

func tooLargeRecord(n, most int) error {
	return fmt.Errorf("%w: the audit record has %d bytes at least, where the limits of %s leave %d", message.ErrTooLarge, n, AuditStream, most)
}

// Fits implements remediation.Auditor.
func (a *Auditor) Fits(r ledger.AuditRecord) error {
	most := a.b.limit(AuditStream)
	if most >= ledger.LeastMaxPayload {
		return nil
	}
	n, err := trail.Least(r)
	if err == nil && n > most {
		err = tooLargeRecord(n, most)
	}
	return err
}

// open begins a chain.
func (a *Auditor) open(ctx context.Context) error {
	seen, err := a.lastStored(ctx)
	if err != nil {
		return err
	}
	a.opened++
	chain := trail.NewWriter(fmt.Sprintf("%s-%d", a.process, a.opened))
	payload, err := chain.Open(time.Now(), seen)
	if err != nil {
		return err
	}
	return a.store(ctx, chain, payload)
}

// lastStored is the trail's last message, nil if there is none.
func (a *Auditor) lastStored(ctx context.Context) (*trail.Point, error) {
	m, found, err := a.b.get(ctx, AuditStream, stream.Query{Last: AuditSubject})
	if err != nil || !found {
		return nil, err
	}
	seen := auditMessage(m).Point()
	return &seen, nil
}

// store publishes the chain's next payload. After an error nobody knows whether it is stored, and the chain is not used again.
func (a *Auditor) store(ctx context.Context, chain *trail.Writer, payload []byte) error {
	a.chain = nil
	ack, err := stream.Publish(a.b.js, &nats.Msg{Subject: AuditSubject, Data: payload},
		jetstream.WithExpectStream(AuditStream), jetstream.WithRetryAttempts(0))(ctx) // a second attempt could store it twice
	if err != nil {
		return err
	}
	chain.Stored(ack.Sequence, payload)
	a.chain = chain
	return nil
}
