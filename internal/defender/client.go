// Package defender calls the Microsoft Defender for Endpoint API and says of every failure what it means.
//
// It never repeats a call by itself: one permit, one HTTP exchange. Facts about the API are marked with their source:
// [doc] is Microsoft's documentation of the Defender for Endpoint API.
package defender

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"sync/atomic"
	"time"

	"github.com/cenkalti/backoff/v4"
	"github.com/prometheus/client_golang/prometheus"
	"go.opentelemetry.io/otel/trace"
)

// Config is how to reach the API. Only BaseURL is required.
type Config struct {
	BaseURL    string                // as CheckBaseURL takes it
	UserAgent  string                // default "unrestrict-worker"
	Timeout    time.Duration         // one exchange, the body included; default 30 s
	StartLimit time.Duration         // how long a call that is granted waits for a connection; default 2 s
	Registerer prometheus.Registerer // nil: no metrics
	// TracerProvider makes a span of each exchange; nil: none. The API is not told of traces.
	TracerProvider trace.TracerProvider
	// Transport is nil for a transport of our own. Of an *http.Transport the settings are taken (proxy, TLS, dialling);
	// with any other, every call that ends without an answer counts as sent.
	Transport http.RoundTripper
}

// Client calls the API for one tenant. All its methods may be called at once from many goroutines.
type Client struct {
	base       string
	userAgent  string
	timeout    time.Duration
	startLimit time.Duration
	tokens     *Tokens
	budget     Budget
	conns      *connections
	metrics    *metrics
	tracer     trace.Tracer // nil: no spans
	clock      clock
	throttle   throttle
}

// New makes a client; it asks for nothing yet.
func New(cfg Config, tokens *Tokens, budget Budget) (*Client, error) {
	base, err := parseBaseURL(cfg.BaseURL)
	if err != nil {
		return nil, fmt.Errorf("the API's address: %w", err)
	}
	m, err := newMetrics(cfg.Registerer, tokens.expires)
	if err != nil {
		return nil, fmt.Errorf("register the API's metrics: %w", err)
	}
	c := &Client{
		base: base.String(), userAgent: cfg.UserAgent, timeout: cfg.Timeout, startLimit: cfg.StartLimit,
		tokens: tokens, budget: budget, conns: newConnections(base, cfg.Transport), metrics: m,
	}
	if cfg.TracerProvider != nil {
		c.tracer = cfg.TracerProvider.Tracer("example.com/unrestrict-worker/internal/defender")
	}
	if c.userAgent == "" {
		c.userAgent = "unrestrict-worker"
	}
	if c.timeout <= 0 {
		c.timeout = 30 * time.Second
	}
	if c.startLimit <= 0 {
		c.startLimit = 2 * time.Second
	}
	c.throttle.next = backoff.NewExponentialBackOff(backoff.WithInitialInterval(time.Second), backoff.WithMultiplier(2),
		backoff.WithRandomizationFactor(0), backoff.WithMaxInterval(time.Minute), backoff.WithMaxElapsedTime(0))
	return c, nil
}

// Close closes the connections that are idle. Calls under way end by themselves.
func (c *Client) Close() { c.conns.close() }

// Permit is a token and one granted call. It is good for one exchange; the zero Permit for none.
type Permit struct {
	token    *bearer
	gotToken bool // the token was asked for by this very permit
	granted  time.Time
	waited   time.Duration
	spent    *atomic.Bool
}

// Granted is the instant of the grant.
func (p Permit) Granted() time.Time { return p.granted }

// Waited is how long the budget was waited for.
func (p Permit) Waited() time.Duration { return p.waited }

// Ready gets what a POST needs, the slow and the free things first: a token, a connection, then one call from the
// budget. Without a token the error is an *Error with Op "token" (System); where the API can't be reached, one with Op
// "unrestrict" (Transient), and no call of the budget is spent. The budget's own error is returned wrapped.
func (c *Client) Ready(ctx context.Context) (Permit, error) {
	return c.ready(ctx, opUnrestrict, useUnrestrict)
}

func (c *Client) ready(ctx context.Context, op, use string) (Permit, error) {
	before, got, err := c.tokens.get(ctx)
	if err != nil {
		return Permit{}, err
	}
	began := time.Now()
	if err := c.conns.warm(ctx); err != nil {
		e := fault(ctx, op, err, false, before.value)
		c.count(e, began)
		c.unsent(ctx, op, e, began)
		return Permit{}, e
	}
	asked := time.Now()
	granted, err := c.budget.Take(ctx, use)
	if err != nil {
		return Permit{}, fmt.Errorf("take a call from the budget: %w", err)
	}
	waited := time.Since(asked)
	token := before
	if waited > atOnce { // it may have outlived the token
		again := false
		if token, again, err = c.tokens.get(ctx); err != nil {
			return Permit{}, err
		}
		got = again || got && token == before
	}
	return Permit{token: token, gotToken: got, granted: granted, waited: waited, spent: new(atomic.Bool)}, nil
}

// atOnce is how long a call may be waited for while its token stays as good as it was.
const atOnce = 100 * time.Millisecond

// Unrestrict sends the one POST that p permits, unless its grant is no longer fresh (class Stale). A nil error means that the API accepted the call, or answered with the action that was
// already under way. The machine id is 40 hexadecimal digits. Errors are *Error.
func (c *Client) Unrestrict(ctx context.Context, p Permit, machineID, comment string) (MachineAction, error) {
	machineID = strings.ToLower(machineID)
	if !validMachineID(machineID) {
		return MachineAction{}, &Error{Op: opUnrestrict, Class: Rejected, Code: codeMachineID, Message: "a machine id is 40 hexadecimal digits"}
	}
	body, err := commentBody(comment)
	if err != nil {
		return MachineAction{}, &Error{Op: opUnrestrict, Class: Rejected, Code: codeUnreadable, Err: err}
	}
	r, e := c.traced(ctx, opUnrestrict, p, "/api/machines/"+machineID+"/unrestrictCodeExecution", body)
	if e != nil {
		return MachineAction{}, e
	}
	a, err := decodeAction(r.body)
	if err == nil && (a.MachineID != "" && !strings.EqualFold(a.MachineID, machineID) || a.Type != "" && a.Type != TypeUnrestrict) {
		err = errors.New("the action in the answer is another's")
	}
	if err != nil {
		return MachineAction{}, r.noAction(err)
	}
	p.token.accepted.Store(true)
	a.Exchange = r.Exchange
	return a, nil
}

// Action looks one action up. use is "lookup" or "follow". Errors are *Error, or the budget's own, wrapped.
func (c *Client) Action(ctx context.Context, use, id string) (MachineAction, error) {
	if id == "" || id == "." || id == ".." {
		return MachineAction{}, &Error{Op: opGet, Class: Rejected, Code: codeActionID, Message: "that is no action's id"}
	}
	r, err := c.look(ctx, opGet, use, "/api/machineactions/"+url.PathEscape(id))
	if err != nil {
		return MachineAction{}, err
	}
	a, err := decodeAction(r.body)
	if err == nil && !strings.EqualFold(a.ID, id) {
		err = errors.New("the action in the answer is another one")
	}
	if err != nil {
		return MachineAction{}, r.noAction(err)
	}
	a.Exchange = r.Exchange
	return a, nil
}

// Page is one page of a list.
type Page struct {
	Exchange Exchange
	Actions  []MachineAction
	More     bool // the API cut the page short: there is more that matches, whatever Top was
}

// List looks one page of actions up; see Page for what List leaves out.
func (c *Client) List(ctx context.Context, use string, q Query) ([]MachineAction, error) {
	page, err := c.Page(ctx, use, q)
	return page.Actions, err
}

// Page looks one page of actions up in one exchange; the API's next links are never followed. use is "lookup" or "follow".
// Errors are *Error, or the budget's own, wrapped. Where the id of an entity can't be read the error is Ambiguous
// (unreadableAnswer) and the readable ones come with it: such a page does not prove that an action is absent.
func (c *Client) Page(ctx context.Context, use string, q Query) (Page, error) {
	r, err := c.look(ctx, opList, use, "/api/machineactions?"+q.encode())
	if err != nil {
		return Page{}, err
	}
	page, err := decodeList(r.body)
	page.Exchange = r.Exchange
	if err != nil {
		return page, r.unreadable(err)
	}
	return page, nil
}

// look is an exchange that reads, with a permit of its own.
func (c *Client) look(ctx context.Context, op, use, path string) (*reply, error) {
	p, err := c.ready(ctx, op, use)
	if err != nil {
		return nil, err
	}
	r, e := c.traced(ctx, op, p, path, nil)
	if e != nil {
		return nil, e
	}
	return r, nil
}

// validMachineID keeps everything out of the path that could lead elsewhere.
func validMachineID(id string) bool {
	return len(id) == 40 && strings.Trim(id, "0123456789abcdef") == ""
}

// commentBody is {"Comment":"..."}: the API's parameter names are case-sensitive ([doc] common-errors.md).
func commentBody(comment string) ([]byte, error) {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(struct{ Comment string }{comment}); err != nil {
		return nil, err
	}
	return bytes.TrimSuffix(b.Bytes(), []byte("\n")), nil
}
