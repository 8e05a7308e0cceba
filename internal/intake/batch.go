package intake

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"iter"
	"mime"
	"net/http"
	"regexp"
	"slices"
	"strconv"
	"time"

	"example.com/unrestrict-worker/internal/intake/clients"
	"example.com/unrestrict-worker/internal/message"
	"example.com/unrestrict-worker/internal/rows"
)

// Limits of a batch.
const (
	batchBytes  = 8 << 20
	batchRows   = 10_000
	batchBodies = 2 // in memory at once
)

// batch is the rows of a batch as they are to be published, in order.
type batch struct {
	name string
	rows []batchRow
	byID map[string]int // index of each in rows
}

type batchRow struct {
	submission
	line    int
	content [sha256.Size]byte // of the row itself: an expiry and a signature that are added differ each time
}

var batchName = regexp.MustCompile(`^[A-Za-z0-9_-]{1,64}$`)

// batchNameOf checks the name of a batch: NAME:LINE must be a valid id, and must not look like the STREAM:SEQ of a
// message.
func (s *Server) batchNameOf(r *http.Request) (string, *problem) {
	name, n := r.PathValue("name"), s.link.cfg.Names
	if slices.Contains([]string{n.Stream, n.ResultsStream, n.DeadletterStream, n.ControlStream}, name) {
		return "", malformed("name", "name: is a stream's; choose another")
	}
	if !batchName.MatchString(name) {
		return "", malformed("name", "name: give 1 to 64 of the characters a to z, A to Z, 0 to 9, _ and -")
	}
	return name, nil
}

// malformed is a problem about a malformed field.
func malformed(field, detail string) *problem {
	p := fault(message.CodeMalformed, detail)
	p.Field = field
	return p
}

// readBatch reads all rows of a body, and judges each as the worker would.
func (s *Server) readBatch(w http.ResponseWriter, r *http.Request, c *clients.Client, name string) (*batch, *problem) {
	lane, p := laneOf(r, c, message.LaneBulk)
	if p == nil {
		p = checkEncoding(r)
	}
	if p != nil {
		return nil, p
	}
	kind, _, _ := mime.ParseMediaType(r.Header.Get("Content-Type"))
	if kind != "text/csv" && kind != "application/jsonl" && kind != "application/x-ndjson" {
		return nil, fault(codeMediaType, "send text/csv, or application/jsonl with one request a line")
	}
	body, p := readBody(w, r, batchBytes)
	if p != nil {
		return nil, p
	}
	body = bytes.TrimPrefix(body, []byte("\ufeff"))
	read := rows.CSV(bytes.NewReader(body), "")
	if kind != "text/csv" {
		read = rows.JSON(bytes.NewReader(body), "", message.Rules{Stream: s.rules.Stream, OwnSubjects: s.rules.OwnSubjects})
	}
	return s.batchOf(name, lane, c, read)
}

func (s *Server) batchOf(name string, lane message.Lane, c *clients.Client, read iter.Seq[rows.Row]) (*batch, *problem) {
	b := &batch{name: name, byID: map[string]int{}}
	for row := range read {
		if len(b.rows) == batchRows {
			return nil, fault(message.CodeTooLarge, fmt.Sprintf("there are more than %d rows; send several batches", batchRows))
		}
		next, p := s.batchRow(name, lane, c, row)
		if first, twice := b.byID[next.req.ID]; p == nil && twice {
			p = malformed("id", fmt.Sprintf("id: is that of line %d too; give each row its own", b.rows[first].line))
		}
		if p != nil {
			p.Row, p.Detail = row.Line, fmt.Sprintf("line %d: %s", row.Line, p.Detail)
			return nil, p
		}
		b.byID[next.req.ID] = len(b.rows)
		b.rows = append(b.rows, next)
	}
	if len(b.rows) == 0 {
		return nil, fault(message.CodeMalformed, "there is no row in the body")
	}
	return b, nil
}

func (s *Server) batchRow(name string, lane message.Lane, c *clients.Client, row rows.Row) (out batchRow, p *problem) {
	m := row.Message
	switch {
	case row.Err != nil:
		p := fault(message.CodeMalformed, row.Err.Error())
		p.Field = (&message.Invalid{Message: p.Detail}).Field()
		return out, p
	case m.Batch != "" && m.Batch != name:
		return out, malformed("batch", "batch: is another than the path has; leave it out")
	}
	if m.Batch = name; m.ID == "" {
		m.ID = name + ":" + strconv.Itoa(row.Line)
	}
	out.line = row.Line
	out.Delivery = message.Delivery{
		Stream: s.rules.Stream, Subject: s.link.cfg.Names.LaneSubject(lane), Lane: lane, Header: message.Header{message.HeaderClient: {c.Name}}, Published: time.Now(),
	}
	var errs [2]error
	out.Data, errs[0] = message.EncodeJSON(m)
	if out.content = sha256.Sum256(out.Data); c.Seed != nil && m.ExpiresAt == "" {
		m.ExpiresAt = time.Now().Add(signFor).UTC().Format(time.RFC3339)
		out.Data, errs[1] = message.EncodeJSON(m)
	}
	if errors.Join(errs[:]...) != nil {
		return out, fault(message.CodeMalformed, "can't be written as JSON")
	}
	if p := s.sign(&out.submission, c); p != nil {
		return out, p
	}
	out.req, p = s.judge(out.Delivery)
	return out, p
}

// messageID is the same whenever the same row is sent again, so that the broker drops the duplicate. again is the run
// that the row starts after a dry run. The row's content is part of it, so that only a sender who knows the row can use
// the message id up.
func (r *batchRow) messageID(b *batch, again int) string {
	sum := sha256.Sum256(fmt.Appendf(nil, "intake %q %q %d %q %d %x", r.Subject, b.name, r.line, r.Header.Get(message.HeaderClient), again, r.content))
	return hex.EncodeToString(sum[:16])
}

// enter takes one of the slots for bodies; leave frees it. It does not wait for a slot: the client can wait and send
// the batch again.
func (s *Server) enter() (leave func(), p *problem) {
	select {
	case s.bodies <- struct{}{}:
		return func() { <-s.bodies }, nil
	default:
		return nil, fault(codeNotQueued, "other batches are being stored just now; send it again")
	}
}

// within bounds the storing of a batch, which goes on if the client disconnects.
func within(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.WithoutCancel(ctx), storeBatch)
}

const storeBatch = 20 * time.Second
