// Package defendersim is a simulated Defender API that misbehaves on request.
//
// It is one http.Handler with three parts: the API under /api/ and /api/v1.0/ (routes.go), the authority, which is
// Entra's part (authority.go), and a control API under /sim/ (control.go, described in index.txt), which needs no
// token. docs/simulator.md describes it for playbook authors, with each known difference and the side on which it errs.
//
// Nothing runs in the background, and the only input besides requests is time.Now: an action's status is computed from
// the clock when it is requested. So a Server also works in a testing/synctest bubble, if it is made there.
//
// Its answers follow Microsoft's pages ([doc], with the file's name), bodies seen live ([live]) and what clients that
// ship rely on ([client]); everything else is marked [composed].
package defendersim

import (
	"crypto/rsa"
	"math/rand/v2"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// Config configures how a Server behaves. The zero value is a well-behaved API with
// the documented limits that knows no machine.
type Config struct {
	// Limits are the sliding windows over all API calls, but not over calls to the authority. nil: 100 per minute and
	// 1,500 per hour ([doc] unrestrict-code-execution.md); empty: none. A call refused by them, a 401 and an injected
	// 401 or 429 do not count; everything else does, whatever the answer.
	Limits    []Limit
	Lifecycle Lifecycle
	// CPUQuota is how long, from when it is set, every call is refused with the 429 about CPU time.
	CPUQuota time.Duration

	// Outcome is the final status of actions on machines that have none of their own; "": Succeeded.
	Outcome string

	// ListLag is how long after its creation an action is missing from list and get.
	ListLag   time.Duration
	Duplicate DuplicateMode
	Cancel    CancelMode
	// OneAtATime: an open action of another type refuses the call too, always with 400.
	OneAtATime bool

	// UnknownFields: actions have a field that no page names.
	UnknownFields bool
	// MalformedNextLink: the link to the third page of a list has lost the names of the options.
	MalformedNextLink bool

	// AllowUnknownMachines: every id of 40 hexadecimal digits exists, not only those registered.
	AllowUnknownMachines bool

	// Deflate: successes are compressed for every client, not only for those that accept it ([live]: a client that accepts
	// gzip too gets deflate).
	Deflate bool

	// ClockOffset is the API's clock minus ours, seen in Date headers and in all times of actions.
	ClockOffset time.Duration
	// Latency delays every API answer but 401 and the windows' 429, and the effect with it.
	Latency time.Duration
	// PageSize is how many actions a list without $top gives at once; 0: 10,000.
	PageSize int
	// CallLog is how many calls Calls remembers; 0: all, negative: none.
	CallLog int
	// Seed makes the ids of actions and the dice of Fault.Probability repeatable; 0: random.
	Seed uint64

	// Roles go into the tokens issued; nil: Machine.RestrictExecution and Machine.Read.All.
	Roles []string
	// TokenLifetime of tokens from the token endpoint; 0: one hour.
	TokenLifetime time.Duration
	// RevokeTokensAfter: a token is refused so long after its issue, whatever its claims; 0: never.
	RevokeTokensAfter time.Duration
	// LenientSignIn: the token endpoint accepts a form sent by GET, as one connector that ships sends it.
	LenientSignIn bool
	// The client credentials accepted; empty: any. A client assertion stands in for the secret and is not verified.
	TenantID, ClientID, ClientSecret string
	// Others are further registrations of the tenant.
	Others []Registration
	// SigningKey signs the tokens, and its public half is among the authority's keys; nil: a random key that is not published.
	SigningKey *rsa.PrivateKey
}

// Registration is an app registration with the roles that its tokens have.
type Registration struct {
	ClientID, ClientSecret string
	Roles                  []string
}

// Lifecycle is how long an action stays Pending, then InProgress. Zero: a
// second; negative: no time at all.
type Lifecycle struct{ Pending, InProgress time.Duration }

// DuplicateMode is the answer to a call for a machine that has an open action
// of the same type. Both forms were seen live; which one comes "may depend on
// how much time has passed".
type DuplicateMode int

// The modes.
const (
	Duplicate400       DuplicateMode = iota // 400 ActiveRequestAlreadyExists
	Duplicate201                            // 201 with the open action
	Duplicate200                            // 200 with the open action
	DuplicateAlternate                      // 400 and 201 in turn, for each machine
)

// CancelMode is what happens to an open action that is cancelled. In each mode the reply says Cancelled, under the
// action's own id.
type CancelMode int

// The modes. All were seen live by others.
const (
	CancelEnds    CancelMode = iota // it ends at once
	CancelIgnored                   // it goes on as if it were not cancelled
	CancelLate                      // it completes, but its status is Cancelled
)

// Server is the simulated API. Its methods may be called at any time by any
// goroutine. It keeps every action, and eight bytes for every accepted call,
// as long as it lives.
type Server struct {
	cfg   atomic.Pointer[Config] // replaced as a whole, see Set
	start time.Time              // carries the monotonic clock that everything is measured by
	done  chan struct{}
	close sync.Once
	sim   http.Handler
	paths []compiled

	gate   gate
	tokens tokens
	book   book
}

// New makes a Server. It starts nothing; Close matters only where requests hang.
func New(cfg Config) *Server {
	if cfg.Limits == nil {
		cfg.Limits = []Limit{{100, time.Minute}, {1500, time.Hour}}
	}
	cfg.Lifecycle.Pending = or(cfg.Lifecycle.Pending, time.Second)
	cfg.Lifecycle.InProgress = or(cfg.Lifecycle.InProgress, time.Second)
	cfg.TokenLifetime = or(cfg.TokenLifetime, time.Hour)
	cfg.PageSize = or(cfg.PageSize, maxPage)
	if cfg.Roles == nil {
		cfg.Roles = []string{"Machine.RestrictExecution", "Machine.Read.All"}
	}
	seed := cfg.Seed
	if seed == 0 {
		seed = rand.Uint64()
	}
	// From here on zero means none.
	cfg.Lifecycle.Pending, cfg.Lifecycle.InProgress = max(0, cfg.Lifecycle.Pending), max(0, cfg.Lifecycle.InProgress)
	s := &Server{start: time.Now(), done: make(chan struct{}), paths: compile(routes())}
	s.cfg.Store(&cfg)
	s.gate.window.limits, s.gate.closedUntil = cfg.Limits, cfg.CPUQuota
	s.gate.dice = rand.New(rand.NewPCG(seed, 1))
	s.book = book{machines: map[string]*machine{}, alias: map[string]string{}, byID: map[string]*action{}, dice: rand.New(rand.NewPCG(seed, 2))}
	s.tokens.init()
	s.sim = s.control()
	return s
}

// conf is the configuration in force, which is never modified in place.
func (s *Server) conf() *Config { return s.cfg.Load() }

// Close ends the requests that hang or wait, and every later one that would.
func (s *Server) Close() { s.close.Do(func() { close(s.done) }) }

// ServeHTTP answers for the API, the authority and the control API.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	switch {
	case strings.HasPrefix(r.URL.Path, "/api/"):
		s.serveAPI(w, r)
	case strings.HasPrefix(r.URL.Path, "/sim/"):
		s.sim.ServeHTTP(w, r)
	default:
		s.serveAuthority(w, r)
	}
}

// now is the API's clock: it never runs backwards, and has the seven fraction
// digits that go over the wire.
func (s *Server) now() time.Time {
	return s.start.Add(time.Since(s.start) + s.conf().ClockOffset).UTC().Truncate(100 * time.Nanosecond)
}

// sleep reports whether the time has passed; false: the client disconnected, or the Server is closed.
func (s *Server) sleep(r *http.Request, d time.Duration) bool {
	if d <= 0 {
		return true
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-r.Context().Done():
	case <-s.done:
	}
	return false
}

func or[T comparable](v, standard T) T {
	var zero T
	if v == zero {
		return standard
	}
	return v
}

// baseURL is the address by which the client reached us.
func baseURL(r *http.Request) string {
	if r.TLS != nil {
		return "https://" + r.Host
	}
	return "http://" + r.Host
}
