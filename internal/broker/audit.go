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
// A process writes one chain, one record at a time, so the predecessor that a record names is always stored. If a record's
// acknowledgement does not arrive, its chain ends, whether or not the record was stored, and the next record opens a new
// chain. So no fault leaves a gap in a chain, or a number twice (ADR 10).
type Auditor struct {
	b       *Broker
	process string
	turn    chan struct{} // holds one token while nobody writes; its holder owns the fields below

	chain   *trail.Writer // nil: to be opened
	opened  int
	created time.Time // of the stream that the chain is in
}

var _ remediation.Auditor = (*Auditor)(nil)

// NewAuditor returns an Auditor; call it after Provision. process must never be the name of another process, past or future.
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
		a.chain, a.created = nil, created // the stream was recreated: it has none of the earlier records
	}
	if a.chain == nil {
		if err := a.open(ctx); err != nil {
			return fmt.Errorf("open a chain of the audit trail: %w", err)
		}
	}
	payload, err := a.chain.Next(time.Now(), r, a.b.limit(AuditStream))
	switch n, most := len(payload), a.b.limit(AuditStream); {
	case err == nil && n > most: // too large even when shortened; nothing was sent, so the chain goes on
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
	n, err := trail.ShortestSize(r)
	if err == nil && n > most {
		err = tooLargeRecord(n, most)
	}
	return err
}

// open begins a chain with its first record.
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

// lastStored returns the trail's last message, nil if the trail is empty.
func (a *Auditor) lastStored(ctx context.Context) (*trail.Point, error) {
	m, found, err := a.b.get(ctx, AuditStream, stream.Query{Last: AuditSubject})
	if err != nil || !found {
		return nil, err
	}
	seen := auditMessage(m).Point()
	return &seen, nil
}

// store publishes the chain's next payload. After an error it is not known whether the payload was stored, so the chain is not
// used again.
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
