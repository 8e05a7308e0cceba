package broker

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
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

// ImportAudit reads a line of ExportAudit. One that ExportAudit would not have written so, byte for byte, is an *AuditBreak:
// programs differ in which of two members they read, and in what they make of those they don't know.
func ImportAudit(line []byte) (Message, error) {
	var l exportLine
	if err := json.Unmarshal(line, &l); err != nil {
		return Message{}, fmt.Errorf("is no line of an export: %w", err)
	}
	if l.Sequence == 0 {
		return Message{}, errors.New("is no line of an export: sequence is missing")
	}
	m := Message{Sequence: l.Sequence, Time: l.StoredAt, Data: l.Data}
	if l.Record != nil {
		m.Data = l.Record
	}
	if written, err := ExportAudit(m); err != nil || !bytes.Equal(written, line) {
		return m, &AuditBreak{Sequence: m.Sequence, What: "its line is not as `worker audit export` writes it: something in it was added, repeated or altered"}
	}
	return m, nil
}

// repeatedMember is a name that stands twice in one object of a JSON text, in whatever case; "" if there is none. Programs
// differ in which of the two they read, and encoding/json reads any case.
func repeatedMember(data []byte) string {
	type object struct {
		names map[string]bool // nil: an array
		value bool            // the next token is a value
	}
	var open []object
	for dec := json.NewDecoder(bytes.NewReader(data)); ; {
		token, err := dec.Token()
		if err != nil {
			return "" // the end; that it is JSON was seen before
		}
		if n := len(open) - 1; n >= 0 && open[n].names != nil {
			name, isText := token.(string)
			if !open[n].value && isText {
				if name = strings.ToLower(name); open[n].names[name] {
					return name
				}
				open[n].names[name] = true
			}
			open[n].value = !open[n].value
		}
		switch token {
		case json.Delim('{'):
			open = append(open, object{names: map[string]bool{}})
		case json.Delim('['):
			open = append(open, object{})
		case json.Delim('}'), json.Delim(']'):
			open = open[:len(open)-1]
		}
	}
}
