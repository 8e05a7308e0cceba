package trail

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"math"
	"strings"
	"time"

	"example.com/unrestrict-worker/internal/ledger"
	"example.com/unrestrict-worker/internal/message"
)

// Opened is the kind of a writer's first record.
const Opened = "opened"

const (
	version = 1

	sumBefore, sumAfter = `,"sum":"`, `"}`
)

// Line is a record as it is stored. A change of what readers rely on must raise V.
type Line struct {
	V            int       `json:"v"`
	Writer       string    `json:"writer"`
	N            uint64    `json:"n"`                      // 1, 2, 3, ... of the writer
	Prev         string    `json:"prev,omitempty"`         // SHA-256 of the exact bytes of the writer's record before
	PrevSequence uint64    `json:"prevSequence,omitempty"` // the sequence of that record
	Seen         *Point    `json:"seen,omitempty"`         // in a first record: the trail's last message at that time, of any writer
	Time         time.Time `json:"time"`
	ledger.AuditRecord
}

// Writer writes one chain. It holds the chain's end, as far as it is stored.
type Writer struct {
	id   string
	n    uint64 // of its last record
	last Point
}

// NewWriter begins a chain, whose first record is that of Open. No other writer may ever have the same id.
func NewWriter(id string) *Writer { return &Writer{id: id} }

// Open is the payload of the first record. seen is the trail's last message, nil if the trail is empty. Because the chain has it,
// the last records of earlier, dead writers can't be removed unnoticed either.
func (w *Writer) Open(at time.Time, seen *Point) ([]byte, error) {
	return w.encode(Line{Time: at, Seen: seen, AuditRecord: ledger.AuditRecord{Kind: Opened}})
}

// Next is the payload of the next record. If it is longer than most bytes, it is shortened; the result is still longer than most
// if that does not suffice.
func (w *Writer) Next(at time.Time, r ledger.AuditRecord, most int) ([]byte, error) {
	data, err := w.encode(Line{Time: at, AuditRecord: r})
	for _, shorten := range []func(ledger.AuditRecord) ledger.AuditRecord{ledger.AuditRecord.Shorten, ledger.AuditRecord.WithoutCalls} {
		if err != nil || len(data) <= most {
			break
		}
		r = shorten(r)
		data, err = w.encode(Line{Time: at, AuditRecord: r})
	}
	return data, err
}

// ShortestSize is how many bytes the record of a run needs at most in its shortest form, whatever its outcome, in a chain of
// any length.
func ShortestSize(r ledger.AuditRecord) (int, error) {
	w := &Writer{id: strings.Repeat("x", 40), n: math.MaxInt64, last: Point{Sequence: math.MaxInt64, SHA256: strings.Repeat("0", 64)}}
	r.Error, r.ActionID = &message.Failure{Code: message.CodeTrackTimeout, Origin: message.OriginDefender, Message: strings.Repeat("x", 200)}, strings.Repeat("0", 36)
	data, err := w.Next(time.Now(), r, 0)
	return len(data), err
}

// Stored continues the chain behind a payload of Open or Next that is stored at this sequence. If it is not known whether the
// payload is stored, the chain must not be used any more.
func (w *Writer) Stored(sequence uint64, payload []byte) {
	w.n, w.last = w.n+1, Message{Sequence: sequence, Data: payload}.Point()
}

// encode renders a line, with the chain's fields filled in.
func (w *Writer) encode(l Line) ([]byte, error) {
	l.V, l.Writer, l.N, l.Time = version, w.id, w.n+1, l.Time.UTC()
	if w.n > 0 {
		l.Prev, l.PrevSequence = w.last.SHA256, w.last.Sequence
	}
	b, err := message.EncodeJSON(l)
	if err != nil {
		return nil, err
	}
	return seal(b[:len(b)-1]), nil // seal adds the closing brace after the sum
}

// seal ends a record with its last member, sum: the SHA-256 of all the bytes before it. The chain has each record's hash in the
// next one; sum also protects a writer's last record, which has no next.
func seal(record []byte) []byte {
	sum := digest(record)
	return append(append(append(record, sumBefore...), sum...), sumAfter...)
}

// isSealed reports whether a record is unaltered since it was sealed.
func isSealed(payload []byte) bool {
	at := len(payload) - len(sumBefore) - hex.EncodedLen(sha256.Size) - len(sumAfter)
	return at >= 0 && bytes.Equal(payload, seal(bytes.Clone(payload[:at])))
}
