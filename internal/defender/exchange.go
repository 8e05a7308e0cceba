package defender

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"time"

	"github.com/go-json-experiment/json/jsontext"
)

// call is one exchange that is asked for: a POST if there is a body, else a GET.
type call struct {
	op, path string
	body     []byte
	read     func(body []byte) error // reads what a 2xx bears; what it keeps is its own copy
}

// reply is an answer, its body read to the end.
type reply struct {
	Exchange
	header http.Header
	body   []byte
}

// unreadable is the error of a 2xx that does not bear what was asked for, or not to its end; err says why.
func (r *reply) unreadable(code string, err error) *Error {
	e := Classify(Answer{Op: r.Op, StatusCode: r.StatusCode, Header: r.header})
	e.Code, e.Message, e.Exchange = code, redact(err.Error()), r.Exchange
	return e
}

// send is one HTTP exchange with the API. All but a 2xx that could be read is an error. By then a 401 has dropped the token
// and a 429 has closed the budget.
func (c *Client) send(ctx context.Context, p Permit, what call) (Exchange, *Error) {
	if p.spent == nil || !p.spent.CompareAndSwap(false, true) {
		return Exchange{}, &Error{Op: what.op, Class: Stale, Code: codeStale, Message: "the permit is spent"}
	}
	if e := c.startable(ctx, what.op, p); e != nil {
		return Exchange{}, e
	}
	began := time.Now()
	conn, err := c.conns.get(ctx, c.startLimit-time.Since(p.granted))
	if err != nil {
		e := fault(ctx, what.op, err, false, p.token.secret)
		c.count(e, began)
		return Exchange{}, e
	}
	defer c.conns.put(conn)
	ctx, cancel := context.WithTimeoutCause(ctx, c.timeout, errTimeout)
	defer cancel()
	req, err := c.request(ctx, what, p.token.value)
	if err != nil {
		return Exchange{}, fault(ctx, what.op, err, false, p.token.secret)
	}
	if e := c.startable(ctx, what.op, p); e != nil { // the last look before the write
		return Exchange{}, e
	}
	before, start := conn.sent(), time.Now()
	conn.used = start
	resp, err := conn.RoundTrip(req) //nolint:bodyclose // what reads the answer closes it, within the time that is left
	if err != nil {
		e := c.unanswered(ctx, what.op, err, before < 0 || conn.sent() != before, p.token.secret)
		c.count(e, start)
		if e.Sent {
			e.Exchange = Exchange{At: start, Op: what.op}
		}
		return e.Exchange, e
	}
	received := time.Now()
	content, free, readErr := c.slots.read(ctx, resp, what.op)
	defer free()
	conn.used = time.Now()
	c.metrics.observe(what.op, strconv.Itoa(resp.StatusCode), time.Since(start))
	r := &reply{Exchange: Exchange{At: start, Op: what.op, StatusCode: resp.StatusCode}, header: resp.Header, body: trimmed(content)}
	e := c.judge(ctx, p, what, r, readErr, start, received)
	return r.Exchange, e
}

// trimmed is a body without what may stand around a JSON value: a byte order mark and blanks.
func trimmed(body []byte) []byte {
	return bytes.TrimSpace(bytes.TrimPrefix(body, []byte("\xef\xbb\xbf")))
}

var errTimeout = fmt.Errorf("DEFENDER_TIMEOUT has passed: %w", context.DeadlineExceeded)

// judge has a 2xx read, says what the rest means, and does what it asks for. What is remembered of the answer is what
// others are judged by: an answer in Defender's form shows who is there, and that the token holds.
func (c *Client) judge(ctx context.Context, p Permit, what call, r *reply, readErr error, start, received time.Time) *Error {
	ok := r.StatusCode >= 200 && r.StatusCode < 300
	var envelope *Envelope
	if !ok {
		envelope = parseEnvelope(r.body, p.token.secret)
	}
	r.CorrelationID = correlationID(r.header, envelope, r.StatusCode, p.token.secret)
	known := received.Sub(c.Answered()) < lately
	if ok || envelope != nil {
		c.clock.saw(r.header, start, received)
	}
	if (ok || envelope != nil) && r.StatusCode != http.StatusUnauthorized {
		p.token.proven.Store(true)
	}
	if r.StatusCode != http.StatusTooManyRequests {
		c.throttle.over()
	}
	if ok && readErr != nil {
		return r.unreadable(codeUnreadable, readErr)
	}
	if ok {
		err := what.read(r.body)
		switch {
		case err == nil:
			return nil
		case r.Op != opList && (len(r.body) == 0 || jsontext.Value(r.body).IsValid(lenient)):
			return r.unreadable(codeNoAction, err)
		}
		return r.unreadable(codeUnreadable, err)
	}
	e := Classify(Answer{
		Op: r.Op, StatusCode: r.StatusCode, Header: r.header, Envelope: envelope, Empty: len(r.body) == 0 && readErr == nil, Known: known,
		Truncated:  readErr != nil && !errors.Is(readErr, errTooLarge),
		TokenFresh: p.token.fresh(p.gotToken, received), TokenAccepted: p.token.accepted.Load(), Now: received,
	})
	e.Exchange = r.Exchange
	if r.StatusCode == http.StatusUnauthorized {
		c.tokens.refuse(p.token)
	}
	if e.Class == Throttled {
		c.throttled(ctx, p, e)
	}
	return e
}

// lately is how long an answer in Defender's form tells that Defender is who answers.
const lately = time.Minute

// startable is nil while p's call may start.
func (c *Client) startable(ctx context.Context, op string, p Permit) *Error {
	switch {
	case ctx.Err() != nil:
		return cancelled(ctx, op, false)
	case !c.budget.Fresh(p.granted):
		return &Error{Op: op, Class: Stale, Code: codeStale, Message: fmt.Sprintf("the grant of %s ago no longer holds", time.Since(p.granted).Round(time.Millisecond))}
	}
	return nil
}

func (c *Client) request(ctx context.Context, what call, token string) (*http.Request, error) {
	method, reader := http.MethodGet, io.Reader(nil)
	if what.body != nil {
		method, reader = http.MethodPost, bytes.NewReader(what.body)
	}
	req, err := http.NewRequestWithContext(ctx, method, c.base+what.path, reader)
	if err != nil {
		return nil, err
	}
	req.GetBody = nil // no transport may send it twice
	req.Header.Set("Authorization", "Bearer "+token)
	req.Header.Set("Accept", "application/json")
	req.Header.Set("User-Agent", c.userAgent)
	if what.body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	return req, nil
}

// unanswered is the error of a round trip that failed. Our own time-out is not the caller's doing.
func (c *Client) unanswered(ctx context.Context, op string, err error, sent bool, token *secret) *Error {
	if errors.Is(context.Cause(ctx), errTimeout) {
		ctx, err = context.WithoutCancel(ctx), errTimeout
	}
	return fault(ctx, op, err, sent, token)
}

// count counts a call that was not answered; one given up by its caller before it was sent is none.
func (c *Client) count(e *Error, since time.Time) {
	if e.Sent || e.Code != codeCancelled {
		c.metrics.observe(e.Op, e.Code, time.Since(since))
	}
}
