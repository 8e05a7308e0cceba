package broker

import (
	"context"
	"fmt"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"example.com/unrestrict-worker/internal/broker/stream"
	"example.com/unrestrict-worker/internal/broker/trail"
)

// AuditTrail reads the audit trail that there is now.
type AuditTrail struct {
	b    *Broker
	last uint64
}

// OpenAuditTrail looks for the stream; one that is not there is IsMissing.
func (b *Broker) OpenAuditTrail(ctx context.Context) (*AuditTrail, error) {
	s, err := within(ctx, func(ctx context.Context) (jetstream.Stream, error) { return b.js.Stream(ctx, AuditStream) })
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", AuditStream, explain(err))
	}
	return &AuditTrail{b: b, last: s.CachedInfo().State.LastSeq}, nil
}

// Last is the last sequence that the stream has given.
func (t *AuditTrail) Last() uint64 { return t.last }

// Each calls fn for each message, the oldest first; since is zero for all. An end of ctx is an error.
func (t *AuditTrail) Each(ctx context.Context, since time.Time, fn func(trail.Message) error) error {
	err := t.b.Follow(ctx, AuditStream, FollowOptions{Since: since, ToPresent: true}, func(m Message) error {
		if m.Sequence > t.last {
			return errEnough // written since
		}
		return fn(auditMessage(m))
	})
	if err == nil {
		err = context.Cause(ctx)
	}
	return err
}

// Payload is one message's, nil if it is not there.
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
