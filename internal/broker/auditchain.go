package broker

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"hash"
	"maps"
	"slices"
)

// AuditHead is one record of a writer, such as its last: whoever keeps it elsewhere can tell later that the record, and so
// every one of this writer before it, is still there unaltered.
type AuditHead struct {
	Writer   string `json:"writer"`
	N        uint64 `json:"n"`
	Sequence uint64 `json:"sequence"`
	SHA256   string `json:"sha256"`
}

// AuditBreak is where the audit trail is not what was written.
type AuditBreak struct {
	Sequence uint64 `json:"sequence"`         // in the stream
	Writer   string `json:"writer,omitempty"` // "" where none can be told
	N        uint64 `json:"n,omitempty"`      // of the writer's records
	What     string `json:"what"`
}

func (b *AuditBreak) Error() string {
	if b.Writer == "" {
		return fmt.Sprintf("sequence %d: %s", b.Sequence, b.What)
	}
	return fmt.Sprintf("sequence %d, record %d of writer %q: %s", b.Sequence, b.N, b.Writer, b.What)
}

// AuditKept is what was found of a trail earlier, and kept where nobody could alter it.
type AuditKept struct {
	First        uint64      `json:"first,omitempty"` // the first message that was there; 0: not known
	Last         uint64      `json:"last,omitempty"`
	ExportSHA256 string      `json:"exportSha256,omitempty"` // of these messages as ExportAudit writes them; "": not known
	Heads        []AuditHead `json:"heads"`                  // the last record of each writer
}

// AuditChain verifies the audit trail, message by message in the order of the stream. Its memory is one head for each
// writer and the digests of the latest messages.
type AuditChain struct {
	// Reread gives a message's payload again; nil where it is not there. It is asked for one that a writer saw long before
	// its first record was stored.
	reread func(sequence uint64) ([]byte, error)

	first, last uint64
	export      hash.Hash // of all lines
	heads       map[string]AuditHead
	kept        map[auditRecordID]AuditHead
	before      AuditKept
	beforeLines hash.Hash // of those that were there before
	recent      [4096]auditPoint
}

type auditRecordID struct {
	writer string
	n      uint64
}

// NewAuditChain begins at a sequence: with 1 for the whole trail. What a part that begins later says of messages before
// it can't be verified, unless before, which was found at an earlier time, had them.
func NewAuditChain(first uint64, before AuditKept, reread func(sequence uint64) ([]byte, error)) *AuditChain {
	c := &AuditChain{
		first: first, last: first - 1, export: sha256.New(), heads: map[string]AuditHead{}, reread: reread,
		before: before, beforeLines: sha256.New(), kept: map[auditRecordID]AuditHead{},
	}
	for _, h := range before.Heads {
		c.kept[auditRecordID{h.Writer, h.N}] = h
	}
	return c
}

// Add verifies the next message. The error is an *AuditBreak, after which nothing more can be said, or Reread's own.
func (c *AuditChain) Add(m Message) error {
	sequence, payload := m.Sequence, m.Data
	if err := c.begins(); err != nil {
		return err
	}
	if err := c.upTo(sequence - 1); err != nil {
		return err
	}
	if sequence <= c.last {
		return &AuditBreak{Sequence: sequence, What: fmt.Sprintf("comes after sequence %d", c.last)}
	}
	var line auditLine
	switch err := json.Unmarshal(payload, &line); {
	case err != nil:
		return &AuditBreak{Sequence: sequence, What: "is no record: " + err.Error()}
	case line.V > auditVersion:
		return &AuditBreak{Sequence: sequence, Writer: line.Writer, N: line.N, What: fmt.Sprintf("is of version %d, which this program does not know: verify with the newer one", line.V)}
	case line.V < 1 || line.Writer == "" || line.N < 1 || (line.N == 1) != (line.Kind == auditOpened):
		return &AuditBreak{Sequence: sequence, What: "is no record: v, writer, n or kind is wrong"}
	case repeatedMember(payload) != "":
		return &AuditBreak{Sequence: sequence, Writer: line.Writer, N: line.N, What: fmt.Sprintf("has the member %q twice", repeatedMember(payload))}
	case !isSealed(payload):
		return &AuditBreak{Sequence: sequence, Writer: line.Writer, N: line.N, What: "was altered: its sum is not that of what it says"}
	}
	head := AuditHead{Writer: line.Writer, N: line.N, Sequence: sequence, SHA256: digestOf(payload)}
	if err := c.follows(head, line); err != nil {
		return err
	}
	if line.Seen != nil {
		if err := c.saw(head, *line.Seen); err != nil {
			return err
		}
	}
	id := auditRecordID{head.Writer, head.N}
	if kept, ok := c.kept[id]; ok && kept != head {
		return broken(head, "is not the one whose digest was kept: it was altered, or messages before it were added or removed")
	}
	delete(c.kept, id)
	if err := c.exported(m); err != nil {
		return err
	}
	c.heads[head.Writer], c.last = head, sequence
	c.recent[sequence%uint64(len(c.recent))] = auditPoint{sequence, head.SHA256}
	return nil
}

// begins says that nothing is cut off at the front that was there before.
func (c *AuditChain) begins() error {
	if c.before.First > 0 && c.before.First < c.first {
		return &AuditBreak{Sequence: c.before.First, What: span("sequence", c.before.First, c.first-1) + " was there when the heads were kept, and is missing"}
	}
	return nil
}

// exported takes the message's line, which is all that covers when it was stored.
func (c *AuditChain) exported(m Message) error {
	line, err := ExportAudit(m)
	if err != nil {
		return err
	}
	c.export.Write(line)
	b := c.before
	if b.ExportSHA256 == "" || m.Sequence < b.First || m.Sequence > b.Last {
		return nil
	}
	if c.beforeLines.Write(line); m.Sequence == b.Last && hex.EncodeToString(c.beforeLines.Sum(nil)) != b.ExportSHA256 {
		return &AuditBreak{Sequence: m.Sequence, What: fmt.Sprintf("with all from sequence %d is not what was there when the heads were kept: storedAt of one of them was altered", b.First)}
	}
	return nil
}

func broken(at AuditHead, format string, args ...any) error {
	return &AuditBreak{Sequence: at.Sequence, Writer: at.Writer, N: at.N, What: fmt.Sprintf(format, args...)}
}

// follows holds a record against the one before it of its writer.
func (c *AuditChain) follows(r AuditHead, line auditLine) error {
	before, known := c.heads[r.Writer]
	switch {
	case known && r.N <= before.N:
		return broken(r, "comes twice or too late: record %d is at sequence %d already", before.N, before.Sequence)
	case known && r.N > before.N+1:
		return broken(r, "%s of this writer is missing", span("record", before.N+1, r.N-1))
	case known && line.Prev != before.SHA256:
		return broken(before, "is not the one that record %d (sequence %d) names: one of the two was altered", r.N, r.Sequence)
	case known && line.PrevSequence != before.Sequence:
		return broken(before, "was stored at sequence %d, as record %d says: messages before it were added or removed", line.PrevSequence, r.N)
	case !known && r.N > 1 && line.PrevSequence >= c.first:
		return broken(r, "%s of this writer is missing", span("record", 1, r.N-1))
	}
	return nil
}

// saw holds what a writer saw last when it began against what is there.
func (c *AuditChain) saw(r AuditHead, seen auditPoint) error {
	if seen.Sequence < c.first {
		return nil
	}
	there := c.recent[seen.Sequence%uint64(len(c.recent))]
	if there.Sequence != seen.Sequence && seen.Sequence < r.Sequence {
		payload, err := c.reread(seen.Sequence)
		if err != nil {
			return fmt.Errorf("read sequence %d again: %w", seen.Sequence, err)
		}
		there = auditPoint{seen.Sequence, digestOf(payload)}
	}
	if there != seen {
		return &AuditBreak{Sequence: seen.Sequence, What: fmt.Sprintf(
			"is not the message that writer %q saw there when it began (sequence %d): it was altered, or messages before it were added or removed", r.Writer, r.Sequence)}
	}
	return nil
}

// upTo says that no message is missing up to a sequence.
func (c *AuditChain) upTo(sequence uint64) error {
	if sequence > c.last {
		return &AuditBreak{Sequence: c.last + 1, What: span("sequence", c.last+1, sequence) + " is missing"}
	}
	return nil
}

// span names one or several in the singular, for a sentence.
func span(what string, from, to uint64) string {
	if from == to {
		return fmt.Sprintf("%s %d", what, from)
	}
	return fmt.Sprintf("every %s from %d to %d", what, from, to)
}

// End is after the last message. last is the sequence that the stream gave last.
func (c *AuditChain) End(last uint64) error {
	if err := c.begins(); err != nil {
		return err
	}
	if err := c.upTo(last); err != nil {
		return err
	}
	for _, h := range slices.SortedFunc(maps.Values(c.kept), byPlace) {
		return broken(h, "was there when its digest was kept, and is missing")
	}
	return nil
}

func byPlace(a, b AuditHead) int { return cmp.Compare(a.Sequence, b.Sequence) }

// Found is what was verified so far; Last < First: nothing.
func (c *AuditChain) Found() AuditKept {
	return AuditKept{
		First: c.first, Last: c.last, ExportSHA256: hex.EncodeToString(c.export.Sum(nil)),
		Heads: slices.SortedFunc(maps.Values(c.heads), byPlace),
	}
}
