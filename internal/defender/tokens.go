package defender

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/cenkalti/backoff/v4"
)

// Token is a bearer token as a credential returns it.
type Token struct {
	Value     string
	Expires   time.Time // zero: unknown
	RefreshOn time.Time // zero: 5 minutes before it expires
}

// CredentialSource is where tokens come from. Tokens calls it from one goroutine at a time.
type CredentialSource interface {
	// Token gets a token. fresh: no cache may answer, because the API has refused the token there. It limits its own
	// time, and returns at once when ctx ends. The text of its error holds no secret and says what to fix.
	Token(ctx context.Context, scope string, fresh bool) (Token, error)
	// Changed reports whether the source has another token than last time and can return it cheaply (a file written
	// anew). It is called at every use and must not block.
	Changed() bool
}

// Tokens caches the bearer token of one tenant. azidentity caches tokens too, but makes callers wait for a renewal, and
// sends a new request at each use while sign-in fails. Here at most one token request is under way, a token is renewed
// in the background before it expires, and after a failure there is a growing pause in which all callers get the last
// error.
type Tokens struct {
	source CredentialSource
	scope  string

	ctx    context.Context // ends with Close
	cancel context.CancelFunc
	done   sync.WaitGroup

	mu      sync.Mutex // guards what follows
	current *bearer    // nil: none
	last    *bearer    // the latest one, kept for how the API answered it
	refused bool       // current was dropped because the API refused it; the next one must be fresh
	fetch   *fetch     // under way, else nil
	failure *Error     // of the last fetch, nil if it succeeded
	retryAt time.Time  // no fetch before that
	pause   *backoff.ExponentialBackOff
}

// fetch is one request for a token; bearer and err are set before done is closed.
type fetch struct {
	done   chan struct{}
	bearer *bearer
	err    *Error
}

// NewTokens makes the cache for tokens of one scope. Nothing is requested before the first use.
func NewTokens(source CredentialSource, scope string) *Tokens {
	ctx, cancel := context.WithCancel(context.Background())
	return &Tokens{source: source, scope: scope, pause: doubling(30 * time.Second), ctx: ctx, cancel: cancel}
}

// doubling is a backoff without jitter, from one second up to longest.
func doubling(longest time.Duration) *backoff.ExponentialBackOff {
	return backoff.NewExponentialBackOff(backoff.WithInitialInterval(time.Second), backoff.WithMultiplier(2),
		backoff.WithRandomizationFactor(0), backoff.WithMaxInterval(longest), backoff.WithMaxElapsedTime(0))
}

// Close cancels a request under way and waits for it. No token is requested after it.
func (t *Tokens) Close() {
	t.mu.Lock()
	t.cancel() // under mu, so that no fetch starts during Wait
	t.mu.Unlock()
	t.done.Wait()
}

// Check returns nil if a usable token is cached or can be obtained, else an *Error of class System.
func (t *Tokens) Check(ctx context.Context) error {
	_, _, err := t.get(ctx)
	var e *Error
	if errors.As(err, &e) && e.Class != System {
		return tokenError("no token yet: " + e.Message)
	}
	return err
}

// get returns the token to use now, and whether it was requested just for this call. The error is an *Error: System
// without a token, Transient when ctx ends first.
func (t *Tokens) get(ctx context.Context) (*bearer, bool, error) {
	b, f, err := t.currentOrFetch()
	if f == nil {
		return b, false, err
	}
	select {
	case <-f.done:
		if f.err != nil {
			return nil, false, f.err
		}
		return f.bearer, true, nil
	case <-ctx.Done():
		return nil, false, cancelled(ctx, opToken, false)
	}
}

// currentOrFetch returns the token to use, the fetch to wait for, or why there is neither. It starts a fetch if one is
// due.
func (t *Tokens) currentOrFetch() (*bearer, *fetch, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	now, changed := time.Now(), t.source.Changed()
	if t.current != nil && (changed || t.current.expired(now)) {
		t.current = nil
	}
	paused := !changed && now.Before(t.retryAt) && (t.current != nil || t.failure != nil)
	if t.fetch == nil && !paused && t.ctx.Err() == nil && (t.current == nil || t.current.due(now)) {
		f, fresh := &fetch{done: make(chan struct{})}, t.refused
		t.fetch = f
		t.done.Go(func() { t.run(f, fresh) })
	}
	switch {
	case t.current != nil:
		return t.current, nil, nil
	case t.fetch != nil:
		return nil, t.fetch, nil
	case t.ctx.Err() != nil:
		return nil, nil, tokenError("closed")
	}
	return nil, nil, t.failure
}

func (t *Tokens) run(f *fetch, fresh bool) {
	tok, err := t.source.Token(t.ctx, t.scope, fresh)
	now := time.Now()
	if err == nil {
		err = tok.unusable(now)
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if err == nil && t.refused && !fresh && t.last != nil && t.last.value == tok.Value {
		// It was requested before the API refused the token, and a cache returned that one again.
		t.done.Go(func() { t.run(f, true) })
		return
	}
	if err != nil {
		t.failure = tokenError(redact(err.Error()))
		t.retryAt = now.Add(t.pause.NextBackOff())
		f.err = t.failure
	} else {
		t.pause.Reset()
		t.current = newBearer(tok, now, t.last, t.refused)
		t.last, t.failure, t.refused = t.current, nil, false
		t.retryAt = now.Add(time.Second) // for renewals: a source that returns the same token again is not asked at every use
		f.bearer = t.current
	}
	t.fetch = nil
	close(f.done)
}

// refuse drops a token that the API answered with 401, so that the next use gets a fresh one.
func (t *Tokens) refuse(b *bearer) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.current == b {
		t.current, t.refused = nil, true
	}
}

// Tenant is the tenant of the latest token; "" before the first one, or if the token names none.
func (t *Tokens) Tenant() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.last == nil {
		return ""
	}
	return t.last.tenant
}

// expires is when the current token expires; zero without one, or if that is unknown.
func (t *Tokens) expires() time.Time {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.current == nil {
		return time.Time{}
	}
	return t.current.expires
}

// maxToken bounds a token, in bytes; one of Entra has some thousands at most.
const maxToken = 64 << 10

// unusable returns why a token can't be sent at all, nil if it can.
func (tok Token) unusable(now time.Time) error {
	if tok.Value == "" {
		return errors.New("there is no token in the answer")
	}
	if len(tok.Value) > maxToken {
		return fmt.Errorf("what was got is no bearer token: it has more than %d bytes", maxToken)
	}
	if strings.ContainsFunc(tok.Value, func(r rune) bool { return r <= ' ' || r > '~' }) {
		return errors.New("what was got is no bearer token: it has blanks or other characters that no token has")
	}
	if exp := expiry(tok); !exp.IsZero() && !now.Before(exp) {
		return fmt.Errorf("the token got has expired already, at %s: get a new one, or set this machine's clock", exp.UTC().Format(time.RFC3339))
	}
	return nil
}

func tokenError(message string) *Error {
	return &Error{Op: opToken, Class: System, Code: codeToken, Message: message, Reason: "There is no token for the API: " + message}
}
