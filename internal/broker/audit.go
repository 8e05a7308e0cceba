package broker

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"example.com/unrestrict-worker/internal/remediation"
)

// Auditor is remediation's Auditor on the stream REMEDIATION_AUDIT.
//
// Its records stand in chains, each of one writer. A writer has one record on its way at a time, so that what a chain
// names as its last record is known to be stored. One whose acknowledgement does not come is a writer's last, whether it
// was stored or not: the next record is another writer's. So no fault leaves a gap in a chain, or a number twice; and
// callers do not wait for one another, for there are as many writers as records on their way (ADR 10).
type Auditor struct {
	b       *Broker
	process string
	slots   chan struct{} // bounds the writers

	mu     sync.Mutex
	idle   []*auditWriter // the one that wrote last is the next to write, so that there are few
	opened int
}

var _ remediation.Auditor = (*Auditor)(nil)

// maxAuditWriters is how many records of one process are on their way at most.
const maxAuditWriters = 16

// NewAuditor writes to the audit trail, after Provision; process tells this one from all others, for good.
func (b *Broker) NewAuditor(process string) *Auditor {
	return &Auditor{b: b, process: process, slots: make(chan struct{}, maxAuditWriters)}
}

// Record implements remediation.Auditor.
func (a *Auditor) Record(ctx context.Context, r remediation.AuditRecord) error {
	select {
	case a.slots <- struct{}{}:
	case <-ctx.Done():
		return fmt.Errorf("write to the audit trail: %w", context.Cause(ctx))
	}
	w := a.take()
	if w == nil {
		var err error
		if w, err = a.open(ctx); err != nil {
			<-a.slots
			return fmt.Errorf("open a chain of the audit trail: %w", err)
		}
	}
	return a.send(ctx, w, r)()
}

// Begin implements remediation.Auditor. Where no writer is idle all is left to what it returns.
func (a *Auditor) Begin(ctx context.Context, r remediation.AuditRecord) func() error {
	select {
	case a.slots <- struct{}{}:
		if w := a.take(); w != nil {
			return a.send(ctx, w, r)
		}
		<-a.slots
	default:
	}
	return func() error { return a.Record(ctx, r) }
}

// send sends a writer's next record. What it returns waits until it is stored, and gives writer and slot back.
func (a *Auditor) send(ctx context.Context, w *auditWriter, r remediation.AuditRecord) func() error {
	stored := a.append(w, auditLine{AuditRecord: r})
	return func() error {
		defer func() { <-a.slots }()
		if err := stored(ctx); err != nil {
			return fmt.Errorf("write to the audit trail: %w", err) // w is not heard of again
		}
		a.mu.Lock()
		defer a.mu.Unlock()
		a.idle = append(a.idle, w)
		return nil
	}
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
	remediation.AuditRecord
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

// take is the writer that wrote last of those that nobody has; nil: there is none.
func (a *Auditor) take() *auditWriter {
	a.mu.Lock()
	defer a.mu.Unlock()
	n := len(a.idle)
	if n == 0 {
		return nil
	}
	w := a.idle[n-1]
	a.idle = a.idle[:n-1]
	return w
}

// open begins a chain.
func (a *Auditor) open(ctx context.Context) (*auditWriter, error) {
	a.mu.Lock()
	a.opened++
	w := &auditWriter{id: fmt.Sprintf("%s-%d", a.process, a.opened)}
	a.mu.Unlock()
	seen, err := a.lastStored(ctx)
	if err != nil {
		return nil, err
	}
	return w, a.append(w, auditLine{Seen: seen, AuditRecord: remediation.AuditRecord{Kind: auditOpened}})(ctx)
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

// append sends the writer's next record, and returns what waits until it is stored. After an error the writer must not be
// used: whether it is stored is not known.
func (a *Auditor) append(w *auditWriter, line auditLine) func(context.Context) error {
	line.V, line.Writer, line.N, line.Time = auditVersion, w.id, w.n+1, time.Now().UTC()
	line.Prev, line.PrevSequence = w.last.SHA256, w.last.Sequence
	data, err := line.encode()
	if err == nil && len(data) > a.b.MaxPayload()-room {
		line.AuditRecord = line.Shorten()
		data, err = line.encode()
	}
	if err != nil {
		return func(context.Context) error { return err }
	}
	n := line.N // alone, lest the wait keep all of the record
	acknowledged := publishing(a.b.js, &nats.Msg{Subject: AuditSubject, Data: data},
		jetstream.WithExpectStream(AuditStream), jetstream.WithRetryAttempts(0)) // a second attempt could store it twice
	return func(ctx context.Context) error {
		ack, err := acknowledged(ctx)
		if err == nil {
			w.n, w.last = n, auditPoint{Sequence: ack.Sequence, SHA256: digestOf(data)}
		}
		return err
	}
}
