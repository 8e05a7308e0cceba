package trail

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"maps"
	"slices"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"example.com/unrestrict-worker/internal/message"
)

// Chain verifies the audit trail, message by message in the order of the stream. It keeps in memory one head for each
// writer and the digests of the latest messages.
type Chain struct {
	Signers *message.Signers // who has which key, to verify what people signed; nil: the names in the records are trusted

	// reread reads a message's payload again; nil if the trail does not have it. It is called for a message that a writer saw long
	// before its first record was stored.
	reread func(sequence uint64) ([]byte, error)

	first, last uint64
	export      hash.Hash // of all lines
	heads       map[string]Head
	kept        map[recordID]Head
	before      Kept
	beforeLines hash.Hash // of the lines that before covers
	recent      [4096]Point
}

type recordID struct {
	writer string
	n      uint64
}

// NewChain returns a Chain that begins at a sequence: 1 for the whole trail. If it begins later, what its records say about
// earlier messages can't be verified, except by before, which an earlier verification has found.
func NewChain(first uint64, before Kept, reread func(sequence uint64) ([]byte, error)) *Chain {
	c := &Chain{
		first: first, last: first - 1, export: sha256.New(), heads: map[string]Head{}, reread: reread,
		before: before, beforeLines: sha256.New(), kept: map[recordID]Head{},
	}
	for _, h := range before.Heads {
		c.kept[recordID{h.Writer, h.N}] = h
	}
	return c
}

// Add verifies the next message. The error is a *Break, after which the Chain can't be used any more, or that of reread.
func (c *Chain) Add(m Message) error {
	sequence, payload := m.Sequence, m.Data
	if err := c.begins(); err != nil {
		return err
	}
	if err := c.upTo(sequence - 1); err != nil {
		return err
	}
	if sequence <= c.last {
		return &Break{Sequence: sequence, What: fmt.Sprintf("comes after sequence %d", c.last)}
	}
	var line Line
	// Programs differ in which of two members with the same name they read, and some ignore case.
	switch err := json.Unmarshal(payload, &line, json.MatchCaseInsensitiveNames(true)); {
	case errors.Is(err, jsontext.ErrDuplicateName):
		return &Break{Sequence: sequence, Writer: line.Writer, N: line.N, What: "has a member twice: " + err.Error()}
	case err != nil:
		return &Break{Sequence: sequence, What: "is no record: " + noRecord(err)}
	case line.V > version:
		return &Break{Sequence: sequence, Writer: line.Writer, N: line.N, What: fmt.Sprintf("is of version %d, which this program does not know: verify with the newer one", line.V)}
	case line.V < 1 || line.Writer == "" || line.N < 1 || (line.N == 1) != (line.Kind == Opened):
		return &Break{Sequence: sequence, What: "is no record: v, writer, n or kind is wrong"}
	case !isSealed(payload):
		return &Break{Sequence: sequence, Writer: line.Writer, N: line.N, What: "was altered: its sum is not that of what it says"}
	}
	if why := c.unproved(line.AuditRecord); why != "" {
		return &Break{Sequence: sequence, Writer: line.Writer, N: line.N, What: why}
	}
	head := Head{Writer: line.Writer, N: line.N, Sequence: sequence, SHA256: digest(payload)}
	if err := c.follows(head, line); err != nil {
		return err
	}
	if line.Seen != nil {
		if err := c.saw(head, *line.Seen); err != nil {
			return err
		}
	}
	id := recordID{head.Writer, head.N}
	if kept, ok := c.kept[id]; ok && kept != head {
		return broken(head, "is not the one whose digest was kept: it was altered, or messages before it were added or removed")
	}
	delete(c.kept, id)
	if err := c.exported(m); err != nil {
		return err
	}
	c.heads[head.Writer], c.last = head, sequence
	c.recent[sequence%uint64(len(c.recent))] = Point{sequence, head.SHA256}
	return nil
}

// begins verifies that the trail does not lack messages at its beginning that before had.
func (c *Chain) begins() error {
	if c.before.First > 0 && c.before.First < c.first {
		return &Break{Sequence: c.before.First, What: span("sequence", c.before.First, c.first-1) + " was there when the heads were kept, and is missing"}
	}
	return nil
}

// exported adds the message's line of an export to the digests: only that line covers the time at which it was stored.
func (c *Chain) exported(m Message) error {
	line, err := Export(m)
	if err != nil {
		return err
	}
	c.export.Write(line)
	b := c.before
	if b.ExportSHA256 == "" || m.Sequence < b.First || m.Sequence > b.Last {
		return nil
	}
	if c.beforeLines.Write(line); m.Sequence == b.Last && hex.EncodeToString(c.beforeLines.Sum(nil)) != b.ExportSHA256 {
		return &Break{Sequence: m.Sequence, What: fmt.Sprintf("with all from sequence %d is not what was there when the heads were kept: storedAt of one of them was altered", b.First)}
	}
	return nil
}

// follows verifies a record against its writer's record before it.
func (c *Chain) follows(r Head, line Line) error {
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

// saw verifies that the message that a writer saw last when it began is unaltered.
func (c *Chain) saw(r Head, seen Point) error {
	if seen.Sequence < c.first {
		return nil
	}
	current := c.recent[seen.Sequence%uint64(len(c.recent))]
	if current.Sequence != seen.Sequence && seen.Sequence < r.Sequence {
		payload, err := c.reread(seen.Sequence)
		if err != nil {
			return fmt.Errorf("read sequence %d again: %w", seen.Sequence, err)
		}
		current = Point{seen.Sequence, digest(payload)}
	}
	if current != seen {
		return &Break{Sequence: seen.Sequence, What: fmt.Sprintf(
			"is not the message that writer %q saw there when it began (sequence %d): it was altered, or messages before it were added or removed", r.Writer, r.Sequence)}
	}
	return nil
}

// upTo verifies that no message is missing up to a sequence.
func (c *Chain) upTo(sequence uint64) error {
	if sequence > c.last {
		return &Break{Sequence: c.last + 1, What: span("sequence", c.last+1, sequence) + " is missing"}
	}
	return nil
}

// span names one thing or several, in the singular, for a sentence.
func span(what string, from, to uint64) string {
	if from == to {
		return fmt.Sprintf("%s %d", what, from)
	}
	return fmt.Sprintf("every %s from %d to %d", what, from, to)
}

// End verifies the end of the trail, after the last Add. last is the last sequence that the stream has assigned.
func (c *Chain) End(last uint64) error {
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

// Found is what was verified so far; if Last < First, nothing was.
func (c *Chain) Found() Kept {
	return Kept{
		First: c.first, Last: c.last, ExportSHA256: hex.EncodeToString(c.export.Sum(nil)),
		Heads: slices.SortedFunc(maps.Values(c.heads), byPlace),
	}
}

// noRecord says what is wrong with a line that can't be decoded. The library varies the text of an error about types on purpose,
// so that nobody relies on it; verify must print the same text each time.
func noRecord(err error) string {
	if wrong, is := errors.AsType[*json.SemanticError](err); is {
		return fmt.Sprintf("a JSON value that begins with %s stands where another type belongs (at byte %d)", wrong.JSONKind, wrong.ByteOffset)
	}
	return err.Error()
}
