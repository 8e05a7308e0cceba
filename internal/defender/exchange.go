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
)

// call describes one exchange: a POST if there is a body, else a GET.
type call struct {
	op, path string
	body     []byte
	read     func(body io.Reader) error // decodes the body of a 2xx
}

// reply is an answer that was read to its end, or could not be (err).
type reply struct {
	Exchange
	header          http.Header
	refusal         []byte // the body of an answer other than a 2xx
	err             error
	start, received time.Time
}

// unreadable is the error of a 2xx whose body does not have the expected content, or breaks off.
func (r *reply) unreadable() *Error {
	e := Classify(Answer{Op: r.Op, StatusCode: r.StatusCode, Header: r.header})
	e.Message, e.Exchange = redact(r.err.Error()), r.Exchange
	if !errors.Is(r.err, errNoAction) {
		e.Code = codeUnreadable
	}
	return e
}

// send is one HTTP exchange with the API. Everything but a readable 2xx is an error. When send returns, a 401 has
// dropped the token and a 429 has closed the budget.
func (c *Client) send(ctx context.Context, p Permit, what call) (Exchange, *Error) {
	if p.spent == nil || !p.spent.CompareAndSwap(false, true) {
		return Exchange{}, &Error{Op: what.op, Class: Stale, Code: codeStale, Message: "the grant is spent"}
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
	if e := c.startable(ctx, what.op, p); e != nil { // the last check before the write
		return Exchange{}, e
	}
	before, start := conn.wire.written.Load(), time.Now()
	conn.used = start
	resp, err := conn.RoundTrip(req) //nolint:bodyclose // what reads the answer closes it, within the time that is left
	if err != nil {
		e := c.unanswered(ctx, what.op, err, conn.wire.written.Load() != before, p.token.secret)
		c.count(e, start)
		if e.Sent {
			e.Exchange = Exchange{At: start, Op: what.op}
		}
		return e.Exchange, e
	}
	r := &reply{Exchange: Exchange{At: start, Op: what.op, StatusCode: resp.StatusCode}, header: resp.Header, start: start, received: time.Now()}
	body := c.slots.body(ctx, resp, what.op)
	defer body.close()
	if r.ok() {
		r.err = what.read(body)
	} else {
		r.refusal, r.err = io.ReadAll(body)
	}
	conn.used = time.Now()
	c.metrics.observe(what.op, strconv.Itoa(resp.StatusCode), time.Since(start))
	e := c.judge(ctx, p, r)
	return r.Exchange, e
}

func (r *reply) ok() bool { return r.StatusCode >= 200 && r.StatusCode < 300 }

var errTimeout = fmt.Errorf("DEFENDER_TIMEOUT has passed: %w", context.DeadlineExceeded)

// judge classifies an answer, and acts on it: a 401 drops the token, a 429 closes the budget. An answer in Defender's
// form also counts for later answers: it shows that Defender is reachable and, unless it is a 401, that the token is
// valid.
func (c *Client) judge(ctx context.Context, p Permit, r *reply) *Error {
	var envelope *Envelope
	if !r.ok() {
		envelope = parseEnvelope(r.refusal, p.token.secret)
	}
	r.CorrelationID = correlationID(r.header, envelope, r.StatusCode, p.token.secret)
	known := r.received.Sub(c.Answered()) < lately
	if r.ok() || envelope != nil {
		c.clock.observe(r.header, r.start, r.received)
		if r.StatusCode != http.StatusUnauthorized {
			p.token.proven.Store(true)
		}
	}
	if r.StatusCode != http.StatusTooManyRequests {
		c.throttle.reset()
	}
	switch {
	case r.ok() && r.err == nil:
		return nil
	case r.ok():
		return r.unreadable()
	}
	e := Classify(Answer{
		Op: r.Op, StatusCode: r.StatusCode, Header: r.header, Envelope: envelope, Known: known,
		Empty: len(r.refusal) == 0 && r.err == nil, Truncated: r.err != nil && !errors.Is(r.err, errTooLarge),
		TokenFresh: p.token.fresh(p.gotToken, r.received), TokenAccepted: p.token.accepted.Load(), Now: r.received,
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

// lately is how long after an answer in Defender's form the address still counts as Defender's.
const lately = time.Minute

// startable returns nil while p's call may start.
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
	req.GetBody = nil // keeps every transport from sending it twice
	req.Header.Set("Authorization", "Bearer "+token)
	req.Header.Set("Accept", "application/json")
	req.Header.Set("User-Agent", c.userAgent)
	if what.body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	return req, nil
}

// unanswered is the error of a round trip that failed. Our own time-out must not look like a cancellation by the
// caller.
func (c *Client) unanswered(ctx context.Context, op string, err error, sent bool, token *secret) *Error {
	if errors.Is(context.Cause(ctx), errTimeout) {
		ctx, err = context.WithoutCancel(ctx), errTimeout
	}
	return fault(ctx, op, err, sent, token)
}

// count counts a call that was not answered, unless its caller gave up before it was sent.
func (c *Client) count(e *Error, since time.Time) {
	if e.Sent || e.Code != codeCancelled {
		c.metrics.observe(e.Op, e.Code, time.Since(since))
	}
}
