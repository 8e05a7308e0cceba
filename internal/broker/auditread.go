package broker

import (
	"context"
	"fmt"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"example.com/unrestrict-worker/internal/broker/stream"
	"example.com/unrestrict-worker/internal/broker/trail"
)

// AuditTrail reads the audit trail as it was when it was opened.
type AuditTrail struct {
	b    *Broker
	last uint64
}

// OpenAuditTrail opens the stream. If it does not exist, the error is IsMissing.
func (b *Broker) OpenAuditTrail(ctx context.Context) (*AuditTrail, error) {
	s, err := within(ctx, func(ctx context.Context) (jetstream.Stream, error) { return b.js.Stream(ctx, AuditStream) })
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", AuditStream, explain(err))
	}
	return &AuditTrail{b: b, last: s.CachedInfo().State.LastSeq}, nil
}

// Last is the last sequence that the stream had assigned.
func (t *AuditTrail) Last() uint64 { return t.last }

// Each calls fn for each message, the oldest first; a zero since means all. If ctx ends, that is an error.
func (t *AuditTrail) Each(ctx context.Context, since time.Time, fn func(trail.Message) error) error {
	err := t.b.Follow(ctx, AuditStream, FollowOptions{Since: since, ToPresent: true}, func(m Message) error {
		if m.Sequence > t.last {
			return errStopFollow // written after the trail was opened
		}
		return fn(auditMessage(m))
	})
	if err == nil {
		err = context.Cause(ctx)
	}
	return err
}

// Payload returns the payload of one message, nil if the stream does not have it.
func (t *AuditTrail) Payload(ctx context.Context, sequence uint64) ([]byte, error) {
	m, found, err := t.b.get(ctx, AuditStream, stream.Query{Sequence: sequence})
	if err != nil || !found {
		return nil, err
	}
	return m.Data, nil
}

func auditMessage(m Message) trail.Message {
	return trail.Message{Sequence: m.Sequence, Time: m.Time, Data: m.Data}
}
