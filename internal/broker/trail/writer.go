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

// Line is a record as it is stored. Who changes what a reader relies on raises V.
type Line struct {
	V            int       `json:"v"`
	Writer       string    `json:"writer"`
	N            uint64    `json:"n"`                      // 1, 2, 3, ... of the writer
	Prev         string    `json:"prev,omitempty"`         // SHA-256 of the writer's record before, of its exact bytes
	PrevSequence uint64    `json:"prevSequence,omitempty"` // where that one is
	Seen         *Point    `json:"seen,omitempty"`         // of a first record: the last message then, anybody's
	Time         time.Time `json:"time"`
	ledger.AuditRecord
}

// Writer is one chain, as far as it is stored.
type Writer struct {
	id   string
	n    uint64 // of its last record
	last Point
}

// NewWriter begins a chain; id is no other writer's, ever. Its first record is that of Open.
func NewWriter(id string) *Writer { return &Writer{id: id} }

// Open is the payload of the first record. seen is the trail's last message, nil if there is none: with it in the chain, the
// last records of writers that are dead by then can't go missing either.
func (w *Writer) Open(at time.Time, seen *Point) ([]byte, error) {
	return w.encode(Line{Time: at, Seen: seen, AuditRecord: ledger.AuditRecord{Kind: Opened}})
}

// Next is the payload of the next record, which is shortened if it is longer than most bytes, and longer still if it can't be
// made so short.
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

// Least is how many bytes the record of a run has at least, whatever comes of it, in a chain of any length.
func Least(r ledger.AuditRecord) (int, error) {
	w := &Writer{id: strings.Repeat("x", 40), n: math.MaxInt64, last: Point{Sequence: math.MaxInt64, SHA256: strings.Repeat("0", 64)}}
	r.Error, r.ActionID = &message.Failure{Code: message.CodeTrackTimeout, Origin: message.OriginDefender, Message: strings.Repeat("x", 200)}, strings.Repeat("0", 36)
	data, err := w.Next(time.Now(), r, 0)
	return len(data), err
}

// Stored goes on behind a payload of Open or Next, which is stored at this sequence. Where that is not known the chain ends.
func (w *Writer) Stored(sequence uint64, payload []byte) {
	w.n, w.last = w.n+1, Message{Sequence: sequence, Data: payload}.Point()
}

// encode writes a line with what the chain knows.
func (w *Writer) encode(l Line) ([]byte, error) {
	l.V, l.Writer, l.N, l.Time = version, w.id, w.n+1, l.Time.UTC()
	if w.n > 0 {
		l.Prev, l.PrevSequence = w.last.SHA256, w.last.Sequence
	}
	b, err := message.EncodeJSON(l)
	if err != nil {
		return nil, err
	}
	return seal(b[:len(b)-1]), nil // the closing brace comes behind the sum
}

// seal ends a record with its last member, sum: the SHA-256 of all the bytes before it. The chain has a record's hash
// in the next one; a writer's last has no next.
func seal(record []byte) []byte {
	sum := digest(record)
	return append(append(append(record, sumBefore...), sum...), sumAfter...)
}

// isSealed says whether a record is as it was sealed.
func isSealed(payload []byte) bool {
	at := len(payload) - len(sumBefore) - hex.EncodedLen(sha256.Size) - len(sumAfter)
	return at >= 0 && bytes.Equal(payload, seal(bytes.Clone(payload[:at])))
}
