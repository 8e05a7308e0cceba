package submit

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
	"example.com/unrestrict-worker/internal/cli/session"
	"example.com/unrestrict-worker/internal/config"
	"example.com/unrestrict-worker/internal/message"
	"example.com/unrestrict-worker/internal/rows"
	"example.com/unrestrict-worker/internal/service"
)

// shownMistakes is how many mistakes of a file are shown; the others are counted.
const shownMistakes = 50

// Bulk is the requests of one command, in the same order each time they are iterated.
type Bulk struct {
	Single string // id of a single request; "" for a file
	known  bool   // the id was given: it may have been used before
	name   string // of the file, as errors name it
	Rows   iter.Seq[rows.Row]
	Batch  string // "" for a single request without one
	named  bool   // by --batch: no row may have another
	Lane   message.Lane
	base   string        // the subject of normal
	rules  message.Rules // the worker's own, signatures included

	seed    []byte // to sign with; nil: not signed
	signer  string // its public nkey
	Expires string // expiresAt of signed rows that have none

	repeated int    // rows about a machine that an earlier row is about too, found by check
	repeat   string // the first of them, in words
}

// Prepared is a row as it is published, or what is wrong with it.
type Prepared struct {
	Line    int
	Message rows.Message
	content [sha256.Size]byte // digest of the row alone: the default expiry and the signature differ each time the command runs
	Payload []byte
	header  message.Header
	err     error
}

// subject returns the lane's subject, which signatures cover.
func (b *Bulk) subject() string { return b.Lane.Subject(b.base) }

// where names a row in errors.
func (b *Bulk) where(line int) string {
	if b.Single != "" {
		return "the request"
	}
	return fmt.Sprintf("%s, line %d", b.name, line)
}

// Requests iterates over the rows. It may be called any number of times.
func (b *Bulk) Requests() iter.Seq[Prepared] {
	return func(yield func(Prepared) bool) {
		for r := range b.Rows {
			p := Prepared{Line: r.Line, Message: r.Message, err: r.Err}
			if p.err == nil {
				p.err = b.Complete(&p)
			}
			if !yield(p) {
				return
			}
		}
	}
}

// Complete fills in what a row lacks: its id, its batch, its expiry and its signature.
func (b *Bulk) Complete(p *Prepared) (err error) {
	m := &p.Message
	if m.ID == "" {
		m.ID = b.Batch + ":" + strconv.Itoa(p.Line)
	}
	if b.named && m.Batch != "" && m.Batch != b.Batch {
		return fmt.Errorf("batch: is %s here and %s on the command line; leave one of them out", strconv.Quote(m.Batch), strconv.Quote(b.Batch))
	}
	if m.Batch == "" {
		m.Batch = b.Batch
	}
	if p.Payload, err = session.AsJSON(m); err != nil {
		return err
	}
	p.content = sha256.Sum256(p.Payload)
	if b.seed == nil {
		return nil
	}
	if m.ExpiresAt == "" {
		m.ExpiresAt = b.Expires
		if p.Payload, err = session.AsJSON(m); err != nil {
			return err
		}
	}
	signer, signature, err := message.Sign(b.seed, b.subject(), p.Payload)
	p.header = message.Header{message.HeaderSigner: {signer}, message.HeaderSignature: {signature}}
	return err
}

// check checks every row against the worker's own rules, adds it to the collector, if there is one, and returns their
// number. If there are mistakes, the error is all of them, as bad input.
func (b *Bulk) check(h *collector) (rows int, err error) {
	var shown []string
	mistakes := 0
	lines := map[string]int{} // of ids
	machines := map[string]int{}
	for p := range b.Requests() {
		rows++
		if p.err == nil {
			p.err = b.judge(p)
		}
		if first := lines[p.Message.ID]; p.err == nil && first != 0 {
			p.err = fmt.Errorf("id: %s is that of line %d too; give each row its own", strconv.Quote(p.Message.ID), first)
		}
		if p.err == nil {
			lines[p.Message.ID] = p.Line
			b.notice(p, machines)
			if h != nil {
				h.add(p)
			}
			continue
		}
		if mistakes++; mistakes <= shownMistakes {
			shown = append(shown, session.Plain(b.where(p.Line)+": "+p.err.Error()))
		}
	}
	if mistakes == 0 && rows > 0 {
		return rows, nil
	}
	return 0, b.badRows(mistakes, shown)
}

// badRows returns what is wrong with the rows, or that there are none.
func (b *Bulk) badRows(mistakes int, shown []string) error {
	switch {
	case mistakes == 0:
		return config.BadInput("%s: there is no request in it", b.name)
	case mistakes == 1:
		return config.BadInput("%s\nNothing was published.", shown[0])
	case mistakes > shownMistakes:
		shown = append(shown, fmt.Sprintf("and %d more", mistakes-shownMistakes))
	}
	return config.BadInput("%d mistakes; nothing was published:\n  %s", mistakes, strings.Join(shown, "\n  "))
}

// notice counts a row about a machine that an earlier row is about. That is no mistake, but rarely intended.
func (b *Bulk) notice(p Prepared, machines map[string]int) {
	machine := strings.ToLower(p.Message.MachineID)
	if first := machines[machine]; first == 0 {
		machines[machine] = p.Line
	} else if b.repeated++; b.repeated == 1 {
		b.repeat = fmt.Sprintf("%s in lines %d and %d", machine, first, p.Line)
	}
}

func (b *Bulk) judge(p Prepared) error {
	_, invalid := b.rules.Parse(message.Delivery{Stream: b.rules.Stream, Subject: b.subject(), Header: p.header, Data: p.Payload})
	if invalid != nil {
		return errors.New(invalid.Message)
	}
	return nil
}

// Outgoing returns a row as a message for the broker. Its message id is the same whenever the same command publishes the
// same row again, so that the broker drops the duplicate. A row that was corrected in the meantime, or signed, has another
// one, and reaches the worker. Nobody else can use the message id up, because it depends on the content of the file. A
// single request gets a new one each time: the worker recognises it by the request's id. again is the run that a row of an
// earlier dry run asks for, otherwise 0.
func (b *Bulk) Outgoing(p Prepared, again int) broker.Outgoing {
	of := fmt.Sprintf("%q %q %d %q %d %x", b.subject(), b.Batch, p.Line, b.signer, again, p.content)
	if b.Single != "" {
		of = service.RandomID()
	}
	sum := sha256.Sum256([]byte(of))
	return broker.Outgoing{Name: b.where(p.Line), Lane: b.Lane, MessageID: hex.EncodeToString(sum[:16]), Header: p.header, Payload: p.Payload}
}

// checkBatch checks the name of a batch, from which ids are made.
func checkBatch(name, stream string) error {
	switch {
	case name == stream:
		return config.BadInput("--batch: %s:1 and the like are kept for messages that have no id; choose another name than the request stream's", stream)
	case !utf8.ValidString(name) || strings.ContainsFunc(name, unicode.IsControl):
		return config.BadInput("--batch: the name has control characters or is not UTF-8; leave them out")
	case utf8.RuneCountInString(name) > maxBatchName:
		return config.BadInput("--batch: the name has more than %d characters; shorten it", maxBatchName)
	}
	return nil
}

// maxBatchName leaves room for a line number in an id of 256 characters.
const maxBatchName = 240
