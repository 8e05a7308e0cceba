package defender

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"sync"
	"time"

	"github.com/cenkalti/backoff/v4"
)

// How much of an answer is read, after decompression. A page may have 10,000 actions ([doc]
// get-machineactions-collection.md) with comments of 4,000 characters.
const (
	maxAction = 8 << 20
	maxList   = 64 << 20
	maxError  = 64 << 10
)

// reply is a 2xx, its body read to the end.
type reply struct {
	Exchange
	header http.Header
	body   []byte
}

// noAction is the error of a 2xx that bears no action of ours; err says why.
func (r *reply) noAction(err error) *Error {
	e := r.unreadable(err)
	if len(r.body) == 0 || json.Valid(r.body) {
		e.Code = codeNoAction
	}
	return e
}

func (r *reply) unreadable(err error) *Error {
	e := Classify(Answer{Op: r.Op, StatusCode: r.StatusCode, Header: r.header})
	e.Code, e.Message, e.Exchange = codeUnreadable, redact(err.Error(), 300), r.Exchange
	return e
}

// exchange is one HTTP exchange with the API: a POST if there is a body, else a GET. It returns a 2xx whose body could be
// read; all else is an error. By then a 401 has dropped the token and a 429 has closed the budget.
func (c *Client) exchange(ctx context.Context, op string, p Permit, path string, body []byte) (*reply, *Error) {
	if p.spent == nil || !p.spent.CompareAndSwap(false, true) {
		return nil, &Error{Op: op, Class: Stale, Code: codeStale, Message: "the permit is spent"}
	}
	if e := c.startable(ctx, op, p); e != nil {
		return nil, e
	}
	began := time.Now()
	conn, err := c.conns.get(ctx, c.startLimit-time.Since(p.granted))
	if err != nil {
		e := fault(ctx, op, err, false, p.token.value)
		c.count(e, began)
		return nil, e
	}
	defer c.conns.put(conn)
	ctx, cancel := context.WithTimeoutCause(ctx, c.timeout, errTimeout)
	defer cancel()
	req, err := c.request(ctx, path, p.token.value, body)
	if err != nil {
		return nil, fault(ctx, op, err, false, p.token.value)
	}
	if e := c.startable(ctx, op, p); e != nil { // the last look before the write
		return nil, e
	}
	before, start := conn.sent(), time.Now()
	conn.used = start
	resp, err := conn.RoundTrip(req) //nolint:bodyclose // what reads the answer closes it, within the time that is left
	if err != nil {
		e := c.unanswered(ctx, op, err, before < 0 || conn.sent() != before, p.token.value)
		c.count(e, start)
		if e.Sent {
			e.Exchange = Exchange{At: start, Op: op}
		}
		return nil, e
	}
	received := time.Now()
	content, readErr := readBody(resp, op)
	conn.used = time.Now()
	c.metrics.observe(op, strconv.Itoa(resp.StatusCode), time.Since(start))
	r := &reply{
		Exchange: Exchange{At: start, Op: op, StatusCode: resp.StatusCode, CorrelationID: correlationID(resp.Header, p.token.forms)},
		header:   resp.Header, body: entity(redactBody(content, p.token.forms)),
	}
	return c.judge(ctx, p, r, readErr, start, received)
}

var errTimeout = fmt.Errorf("DEFENDER_TIMEOUT has passed: %w", context.DeadlineExceeded)

// judge tells a 2xx from the rest, and does what the rest asks for.
func (c *Client) judge(ctx context.Context, p Permit, r *reply, readErr error, start, received time.Time) (*reply, *Error) {
	ok := r.StatusCode >= 200 && r.StatusCode < 300
	var envelope *Envelope
	if !ok {
		envelope = parseEnvelope(r.body)
	}
	if ok || envelope != nil {
		c.clock.saw(r.header, start, received)
	}
	if envelope != nil {
		envelope.Code = redactLikely(p.token.forms.takenOut(envelope.Code), 200)
		envelope.Message = redactLikely(p.token.forms.takenOut(envelope.Message), 4096)
		envelope.Target = redactLikely(p.token.forms.takenOut(envelope.Target), 200)
	}
	if (ok || envelope != nil) && r.StatusCode != http.StatusUnauthorized {
		p.token.proven.Store(true)
	}
	if r.StatusCode != http.StatusTooManyRequests {
		c.throttle.over()
	}
	switch {
	case ok && readErr == nil:
		return r, nil
	case ok:
		return nil, r.unreadable(readErr)
	}
	e := Classify(Answer{
		Op: r.Op, StatusCode: r.StatusCode, Header: r.header, Envelope: envelope, Truncated: readErr != nil && !errors.Is(readErr, errTooLarge),
		TokenFresh: p.token.fresh(p.gotToken, received), TokenAccepted: p.token.accepted.Load(), Now: received,
	})
	e.Exchange = r.Exchange
	if envelope != nil && e.Class != Throttled { // a 429's target is the tenant
		if id := printable(envelope.Target); id != "" {
			e.Exchange.CorrelationID = id
		}
	}
	if r.StatusCode == http.StatusUnauthorized {
		c.tokens.refuse(p.token)
	}
	if e.Class == Throttled {
		c.throttled(ctx, p, e)
	}
	return nil, e
}

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

func (c *Client) request(ctx context.Context, path, token string, body []byte) (*http.Request, error) {
	method, reader := http.MethodGet, io.Reader(nil)
	if body != nil {
		method, reader = http.MethodPost, bytes.NewReader(body)
	}
	req, err := http.NewRequestWithContext(ctx, method, c.base+path, reader)
	if err != nil {
		return nil, err
	}
	req.GetBody = nil // no transport may send it twice
	req.Header.Set("Authorization", "Bearer "+token)
	req.Header.Set("Accept", "application/json")
	req.Header.Set("User-Agent", c.userAgent)
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	return req, nil
}

// unanswered is the error of a round trip that failed. Our own time-out is not the caller's doing.
func (c *Client) unanswered(ctx context.Context, op string, err error, sent bool, token string) *Error {
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

var errTooLarge = errors.New("the answer is too large")

// readBody reads to the end, within the limit and the exchange's time. A 1xx (101 alone gets here) has no end.
func readBody(resp *http.Response, op string) ([]byte, error) {
	defer func() { _ = resp.Body.Close() }()
	limit := int64(maxError)
	switch {
	case resp.StatusCode < 200:
		return nil, nil
	case resp.StatusCode < 300 && op == opList:
		limit = maxList
	case resp.StatusCode < 300:
		limit = maxAction
	}
	content, err := io.ReadAll(io.LimitReader(resp.Body, limit+1))
	if err != nil {
		return nil, fmt.Errorf("read the answer: %w", err)
	}
	if int64(len(content)) > limit {
		return nil, errTooLarge
	}
	return content, nil
}

// throttle is the wait after a 429 that names none.
type throttle struct {
	mu   sync.Mutex
	next *backoff.ExponentialBackOff
	last time.Duration
	at   time.Time // when last was set
}

// after is the wait following a hintless 429 to a call granted at that time. The 429s of one burst share one step.
func (t *throttle) after(granted time.Time) time.Duration {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.last == 0 || granted.After(t.at) {
		t.last, t.at = t.next.NextBackOff(), time.Now()
	}
	return t.last
}

func (t *throttle) over() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.next.Reset()
	t.last = 0
}

// throttled closes the budget of all replicas before the caller hears of the 429, even if the caller has gone.
func (c *Client) throttled(ctx context.Context, p Permit, e *Error) {
	if e.RetryAfter == 0 {
		e.RetryAfter = c.throttle.after(p.granted)
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
	defer cancel()
	if err := c.budget.Close(ctx, e.RetryAfter); err != nil {
		e.Err = fmt.Errorf("close the budget: %w", err)
	}
}
