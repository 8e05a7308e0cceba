package broker

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"example.com/unrestrict-worker/internal/remediation"

	"example.com/unrestrict-worker/internal/ledger"
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

	chain  *auditWriter // nil: to be opened
	opened int
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
	if a.chain == nil {
		if err := a.open(ctx); err != nil {
			return fmt.Errorf("open a chain of the audit trail: %w", err)
		}
	}
	if err := a.append(ctx, auditLine{AuditRecord: r}); err != nil {
		return fmt.Errorf("write to the audit trail: %w", err)
	}
	return nil
}

// auditWriter is one chain, as far as it is stored.
type auditWriter struct {
	id   string
	n    uint64 // of its last record
	last auditPoint
}

// auditPoint is one message of the trail.
type auditPoint struct {
	Sequence uint64 `json:"sequence"`
	SHA256   string `json:"sha256"` // of its payload
}

// auditLine is a record as it is stored. Who changes what a reader relies on raises V.
type auditLine struct {
	V            int         `json:"v"`
	Writer       string      `json:"writer"`
	N            uint64      `json:"n"`                      // 1, 2, 3, ... of the writer
	Prev         string      `json:"prev,omitempty"`         // SHA-256 of the writer's record before, of its exact bytes
	PrevSequence uint64      `json:"prevSequence,omitempty"` // where that one is
	Seen         *auditPoint `json:"seen,omitempty"`         // of a first record: the last message then, anybody's
	Time         time.Time   `json:"time"`
	ledger.AuditRecord
}

// encode writes what is the writer's by hand, for all of it is plain.
func (l *auditLine) encode() ([]byte, error) {
	b := fmt.Appendf(make([]byte, 0, 1152), `{"v":%d,"writer":"%s","n":%d`, l.V, l.Writer, l.N) // the usual record has less
	if l.Prev != "" {
		b = fmt.Appendf(b, `,"prev":"%s","prevSequence":%d`, l.Prev, l.PrevSequence)
	}
	if l.Seen != nil {
		b = fmt.Appendf(b, `,"seen":{"sequence":%d,"sha256":"%s"}`, l.Seen.Sequence, l.Seen.SHA256)
	}
	b = l.Time.AppendFormat(append(b, `,"time":"`...), time.RFC3339Nano)
	b, err := l.AppendMembers(append(b, '"'))
	return sealed(b), err
}

// sealed ends a record with its last member, sum: the SHA-256 of all the bytes before it. The chain has a record's hash
// in the next one; a writer's last has no next.
func sealed(record []byte) []byte {
	sum := digestOf(record)
	return append(append(append(record, sumBefore...), sum...), sumAfter...)
}

// isSealed says whether a record is as it was sealed.
func isSealed(payload []byte) bool {
	at := len(payload) - len(sumBefore) - hex.EncodedLen(sha256.Size) - len(sumAfter)
	return at >= 0 && bytes.Equal(payload, sealed(bytes.Clone(payload[:at])))
}

const (
	auditVersion = 1
	auditOpened  = "opened" // the kind of a writer's first record

	sumBefore, sumAfter = `,"sum":"`, `"}`
)

func digestOf(data []byte) string {
	sum := sha256.Sum256(data)
	return hex.EncodeToString(sum[:])
}

// open begins a chain.
func (a *Auditor) open(ctx context.Context) error {
	seen, err := a.lastStored(ctx)
	if err != nil {
		return err
	}
	a.opened++
	a.chain = &auditWriter{id: fmt.Sprintf("%s-%d", a.process, a.opened)}
	return a.append(ctx, auditLine{Seen: seen, AuditRecord: ledger.AuditRecord{Kind: auditOpened}})
}

// lastStored is the trail's last message, nil if there is none. With it in the chain, the last records of writers that
// are dead by then can't go missing either.
func (a *Auditor) lastStored(ctx context.Context) (*auditPoint, error) {
	ctx, cancel := context.WithTimeout(ctx, apiTimeout)
	defer cancel()
	m, found, err := a.b.readOne(ctx, AuditStream, messageRequest{Last: AuditSubject})
	if err != nil || !found {
		return nil, err
	}
	return &auditPoint{Sequence: m.Sequence, SHA256: digestOf(m.Data)}, nil
}

// append stores the chain's next record. After an error nobody knows whether it is stored, and the chain is not used again.
func (a *Auditor) append(ctx context.Context, line auditLine) error {
	w := a.chain
	a.chain = nil
	line.V, line.Writer, line.N, line.Time = auditVersion, w.id, w.n+1, time.Now().UTC()
	line.Prev, line.PrevSequence = w.last.SHA256, w.last.Sequence
	data, err := line.encode()
	if err == nil && len(data) > a.b.MaxPayload()-room {
		line.AuditRecord = line.Shorten()
		data, err = line.encode()
	}
	if err != nil {
		return err
	}
	ack, err := publishing(a.b.js, &nats.Msg{Subject: AuditSubject, Data: data},
		jetstream.WithExpectStream(AuditStream), jetstream.WithRetryAttempts(0))(ctx) // a second attempt could store it twice
	if err != nil {
		return err
	}
	w.n, w.last = line.N, auditPoint{Sequence: ack.Sequence, SHA256: digestOf(data)}
	a.chain = w
	return nil
}
