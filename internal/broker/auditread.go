package broker

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/nats-io/nats.go/jetstream"
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
func (t *AuditTrail) Each(ctx context.Context, since time.Time, fn func(Message) error) error {
	err := t.b.Follow(ctx, AuditStream, FollowOptions{Since: since, ToPresent: true}, func(m Message) error {
		if m.Sequence > t.last {
			return errEnough // written since
		}
		return fn(m)
	})
	if err == nil {
		err = context.Cause(ctx)
	}
	return err
}

// Payload is one message's, nil if it is not there.
func (t *AuditTrail) Payload(ctx context.Context, sequence uint64) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, apiTimeout)
	defer cancel()
	m, found, err := t.b.readOne(ctx, AuditStream, messageRequest{Sequence: sequence})
	if err != nil || !found {
		return nil, err
	}
	return m.Data, nil
}

// exportLine is one line of an export.
type exportLine struct {
	Sequence uint64          `json:"sequence"`
	StoredAt time.Time       `json:"storedAt"`         // by the broker's clock
	Record   json.RawMessage `json:"record,omitempty"` // byte for byte
	Data     []byte          `json:"data,omitempty"`   // what is no JSON on one line, in base64
}

// ExportAudit is a message as a line of JSON, with its line end. The record stands in it byte for byte, which encoding/json
// would not leave it.
func ExportAudit(m Message) ([]byte, error) {
	if !json.Valid(m.Data) || bytes.ContainsAny(m.Data, "\r\n") || len(bytes.TrimSpace(m.Data)) != len(m.Data) {
		line, err := json.Marshal(exportLine{Sequence: m.Sequence, StoredAt: m.Time.UTC(), Data: m.Data})
		return append(line, '\n'), err
	}
	line, err := json.Marshal(exportLine{Sequence: m.Sequence, StoredAt: m.Time.UTC()})
	if err != nil {
		return nil, err
	}
	line = append(line[:len(line)-1], `,"record":`...)
	return append(append(line, m.Data...), "}\n"...), nil
}

// ImportAudit reads a line of ExportAudit.
func ImportAudit(line []byte) (sequence uint64, payload []byte, err error) {
	var l exportLine
	if err := json.Unmarshal(line, &l); err != nil {
		return 0, nil, fmt.Errorf("is no line of an export: %w", err)
	}
	if l.Sequence == 0 {
		return 0, nil, errors.New("is no line of an export: sequence is missing")
	}
	if l.Record != nil {
		return l.Sequence, l.Record, nil
	}
	return l.Sequence, l.Data, nil
}
