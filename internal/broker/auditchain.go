package broker

import (
	"cmp"
	"encoding/json"
	"fmt"
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

// AuditChain verifies the audit trail, message by message in the order of the stream. Its memory is one head for each
// writer and the digests of the latest messages.
type AuditChain struct {
	// Reread gives a message's payload again; nil where it is not there. It is asked for one that a writer saw long before
	// its first record was stored.
	reread func(sequence uint64) ([]byte, error)

	first, last uint64
	heads       map[string]AuditHead
	kept        map[auditRecordID]AuditHead
	recent      [4096]auditPoint
}

type auditRecordID struct {
	writer string
	n      uint64
}

// NewAuditChain begins at a sequence: with 1 for the whole trail. What a part that begins later says of messages before
// it can't be verified. kept are heads of an earlier time.
func NewAuditChain(first uint64, kept []AuditHead, reread func(sequence uint64) ([]byte, error)) *AuditChain {
	c := &AuditChain{first: first, last: first - 1, heads: map[string]AuditHead{}, kept: map[auditRecordID]AuditHead{}, reread: reread}
	for _, h := range kept {
		if h.Sequence >= first {
			c.kept[auditRecordID{h.Writer, h.N}] = h
		}
	}
	return c
}

// Add verifies the next message. The error is an *AuditBreak, after which nothing more can be said, or Reread's own.
func (c *AuditChain) Add(sequence uint64, payload []byte) error {
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
	c.heads[head.Writer], c.last = head, sequence
	c.recent[sequence%uint64(len(c.recent))] = auditPoint{sequence, head.SHA256}
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
	if err := c.upTo(last); err != nil {
		return err
	}
	for _, h := range slices.SortedFunc(maps.Values(c.kept), byPlace) {
		return broken(h, "was there when its digest was kept, and is missing")
	}
	return nil
}

func byPlace(a, b AuditHead) int { return cmp.Compare(a.Sequence, b.Sequence) }

// Range is what was verified so far: the first sequence and the last; last < first: nothing.
func (c *AuditChain) Range() (first, last uint64) { return c.first, c.last }

// Heads are the writers' last records so far, in the order of the stream.
func (c *AuditChain) Heads() []AuditHead { return slices.SortedFunc(maps.Values(c.heads), byPlace) }
