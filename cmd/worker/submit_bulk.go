package main

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"iter"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	"example.com/unrestrict-worker/internal/broker"
	"example.com/unrestrict-worker/internal/remediation"
)

// shownMistakes is how many mistakes of a file are shown; the others are counted.
const shownMistakes = 50

// bulk is the requests of one command, in an order that is the same each time they are gone through.
type bulk struct {
	single  string // id of a single request; "" for a file
	name    string // of the file, as mistakes call it
	rows    iter.Seq[row]
	batch   string // "" for a single request without one
	named   bool   // by --batch: no row may have another
	subject string
	rules   remediation.Rules // the worker's own, signatures included

	seed    []byte // to sign with; nil: not signed
	signer  string // its public nkey
	expires string // expiresAt of signed rows that have none
}

// prepared is a row as it is published, or what is wrong with it.
type prepared struct {
	line    int
	message message
	payload []byte
	header  remediation.Header
	err     error
}

// where is how an error calls a row.
func (b *bulk) where(line int) string {
	if b.single != "" {
		return "the request"
	}
	return fmt.Sprintf("%s, line %d", b.name, line)
}

// requests goes through the rows once more.
func (b *bulk) requests() iter.Seq[prepared] {
	return func(yield func(prepared) bool) {
		for r := range b.rows {
			p := prepared{line: r.line, message: r.message, err: r.err}
			if p.err == nil {
				p.err = b.complete(&p)
			}
			if !yield(p) {
				return
			}
		}
	}
}

// complete gives a row what it has not of its own.
func (b *bulk) complete(p *prepared) (err error) {
	m := &p.message
	if m.ID == "" {
		m.ID = b.batch + ":" + strconv.Itoa(p.line)
	}
	if b.named && m.Batch != "" && m.Batch != b.batch {
		return fmt.Errorf("batch: is %s here and %s on the command line; leave one of them out", strconv.Quote(m.Batch), strconv.Quote(b.batch))
	}
	if m.Batch == "" {
		m.Batch = b.batch
	}
	if b.seed != nil && m.ExpiresAt == "" {
		m.ExpiresAt = b.expires
	}
	if p.payload, err = asJSON(m); err != nil || b.seed == nil {
		return err
	}
	signer, signature, err := remediation.Sign(b.seed, b.subject, p.payload)
	p.header = remediation.Header{remediation.HeaderSigner: {signer}, remediation.HeaderSignature: {signature}}
	return err
}

// check holds every row against the worker's own rules, makes it known to the harvest, if there is one, and returns how
// many there are. Otherwise all mistakes are bad input.
func (b *bulk) check(h *harvest) (rows int, err error) {
	var shown []string
	mistakes := 0
	lines := map[string]int{} // of ids
	for p := range b.requests() {
		rows++
		if p.err == nil {
			p.err = b.judge(p)
		}
		if first := lines[p.message.ID]; p.err == nil && first != 0 {
			p.err = fmt.Errorf("id: %s is that of line %d too; give each row its own", strconv.Quote(p.message.ID), first)
		}
		if p.err == nil {
			lines[p.message.ID] = p.line
			if h != nil {
				h.add(p)
			}
			continue
		}
		if mistakes++; mistakes <= shownMistakes {
			shown = append(shown, plain(b.where(p.line)+": "+p.err.Error()))
		}
	}
	switch {
	case mistakes == 0 && rows == 0:
		return 0, badInput("%s: there is no request in it", b.name)
	case mistakes == 0:
		return rows, nil
	case mistakes == 1:
		return 0, badInput("%s\nNothing was published.", shown[0])
	case mistakes > shownMistakes:
		shown = append(shown, fmt.Sprintf("and %d more", mistakes-shownMistakes))
	}
	return 0, badInput("%d mistakes; nothing was published:\n  %s", mistakes, strings.Join(shown, "\n  "))
}

func (b *bulk) judge(p prepared) error {
	_, invalid := b.rules.Parse(remediation.Delivery{Stream: b.rules.Stream, Subject: b.subject, Header: p.header, Data: p.payload})
	if invalid != nil {
		return errors.New(invalid.Message)
	}
	return nil
}

// outgoing is a row for the broker. Its message id is the same whenever the same request is published again by the same
// signer: so a second run doubles nothing, while a row that was corrected in the meantime, or signed, still reaches the
// worker, which says what it makes of it. again is the run that a row of an earlier dry run asks for, else 0.
func (b *bulk) outgoing(p prepared, again int) broker.Outgoing {
	sum := sha256.Sum256([]byte(strings.Join([]string{p.message.ID, strings.ToLower(p.message.MachineID), p.message.Comment, b.signer}, "\n")))
	id := p.message.ID + "/" + hex.EncodeToString(sum[:6])
	if again > 0 {
		id += "/" + strconv.Itoa(again)
	}
	return broker.Outgoing{Name: b.where(p.line), MessageID: id, Header: p.header, Payload: p.payload}
}

// checkBatch says what is wrong with a batch's name, from which ids are made.
func checkBatch(name, stream string) error {
	switch {
	case name == stream:
		return badInput("--batch: %s:1 and the like are kept for messages that have no id; choose another name than the request stream's", stream)
	case !utf8.ValidString(name) || strings.ContainsFunc(name, unicode.IsControl):
		return badInput("--batch: the name has control characters or is not UTF-8; leave them out")
	case utf8.RuneCountInString(name) > maxBatchName:
		return badInput("--batch: the name has more than %d characters; shorten it", maxBatchName)
	}
	return nil
}

// maxBatchName leaves room for a line number in an id of 256 characters.
const maxBatchName = 240
