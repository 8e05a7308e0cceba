// Package defender calls the Microsoft Defender for Endpoint API and classifies every failure.
//
// It never repeats a call by itself: one permit, one HTTP exchange. Facts about the API are marked with their source:
// [doc] is Microsoft's documentation of the Defender for Endpoint API.
package defender

import (
	"cmp"
	"context"
	"fmt"
	"net/http"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.opentelemetry.io/otel/trace"
)

// Config is how to reach the API.
type Config struct {
	BaseURL    string // https, or http on a loopback host, with nothing after host and port
	UserAgent  string
	Timeout    time.Duration         // one exchange, the body included
	StartLimit time.Duration         // how long a granted call waits for a connection
	MaxAction  int                   // largest entity, in bytes, whose Raw is kept; default 1 MiB
	Registerer prometheus.Registerer // nil: no metrics
	// TracerProvider makes a span of each exchange; nil: none. The trace context is not sent to the API.
	TracerProvider trace.TracerProvider
	Transport      *http.Transport // its settings are used (proxy, TLS, dialling); nil: defaults
}

// Client calls the API for one tenant. It is safe for concurrent use.
type Client struct {
	base       string
	userAgent  string
	timeout    time.Duration
	startLimit time.Duration
	maxAction  int
	tokens     *Tokens
	budget     Budget
	conns      *connections
	slots      slots
	metrics    *metrics
	tracer     trace.Tracer // nil: no spans
	clock      clock
	throttle   throttle
}

// New makes a client, without sending anything yet.
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
		maxAction: cmp.Or(cfg.MaxAction, 1<<20), tokens: tokens, budget: budget, conns: newConnections(base, cfg.Transport), slots: make(slots, 1), metrics: m,
	}
	if cfg.TracerProvider != nil {
		c.tracer = cfg.TracerProvider.Tracer("example.com/unrestrict-worker/internal/defender")
	}
	c.throttle.next = doubling(time.Minute)
	return c, nil
}

// Close closes the idle connections. Calls under way finish on their own.
func (c *Client) Close() { c.conns.close() }

// Permit is a token and one granted call. It is valid for one exchange; the zero Permit is valid for none.
type Permit struct {
	token    *bearer
	gotToken bool // the token was requested for this very permit
	granted  time.Time
	waited   time.Duration
	spent    *atomic.Bool
}

// Granted is the instant of the grant.
func (p Permit) Granted() time.Time { return p.granted }

// Waited is how long the permit waited for the budget.
func (p Permit) Waited() time.Duration { return p.waited }

// Ready gets what a POST of a lane needs, the slow and the free things first: a token, a connection, then one call from
// the budget. Without a token the error is an *Error with Op "token" (System). If the API can't be reached, it is one
// with Op "unrestrict" (Transient), and no call of the budget is spent. The budget's own error is returned wrapped.
func (c *Client) Ready(ctx context.Context, lane string) (Permit, error) {
	return c.ready(ctx, opUnrestrict, lane)
}

func (c *Client) ready(ctx context.Context, op, use string) (Permit, error) {
	before, got, err := c.tokens.get(ctx)
	if err != nil {
		return Permit{}, err
	}
	began := time.Now()
	if err := c.conns.warm(ctx); err != nil {
		e := fault(ctx, op, err, false, before.secret)
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
	if waited > atOnce { // the token may have expired meanwhile
		again := false
		if token, again, err = c.tokens.get(ctx); err != nil {
			return Permit{}, err
		}
		got = again || got && token == before
	}
	return Permit{token: token, gotToken: got, granted: granted, waited: waited, spent: new(atomic.Bool)}, nil
}

// atOnce is how long the wait for the budget may take before the token has to be checked again.
const atOnce = 100 * time.Millisecond

// Uses of a call, as Budget.Take names them. A POST has its lane's name.
const (
	UseLookup = "lookup" // finding out whether a call took place
	UseFollow = "follow" // looking up the actions being followed
)

// Budget grants HTTP exchanges with the API, for all replicas of one tenant together. A grant is for one exchange, is
// spent when it is made and can't be returned. All methods are safe for concurrent use.
type Budget interface {
	// Take waits until one call of the given use ("lookup", "follow" or a lane's name) is free and returns the instant
	// of the grant, with its monotonic reading. It ends when ctx does. Its error reaches the client's caller, wrapped.
	Take(ctx context.Context, use string) (time.Time, error)
	// Fresh reports whether a call granted at that instant may still start now: the grant is not too old, and no
	// closure came since. It is called just before each write and must not block.
	Fresh(granted time.Time) bool
	// Close forbids the calls of every replica for d from now, and returns once that is durable. An end earlier than
	// the one already set changes nothing. It does not retry.
	Close(ctx context.Context, d time.Duration) error
}
