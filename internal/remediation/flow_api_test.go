package remediation_test

import (
	"context"
	"errors"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"syscall"
	"time"

	"example.com/unrestrict-worker/internal/defender"
	"example.com/unrestrict-worker/internal/defender/defendersim"
)

// network leads from the replicas to the simulated API, through pipes.
type network struct {
	server *http.Server
	conns  chan net.Conn
	done   chan struct{}
	ended  chan struct{}
	once   sync.Once

	mu   sync.Mutex
	down bool
}

func serve(h http.Handler) *network {
	n := &network{server: &http.Server{Handler: h}, conns: make(chan net.Conn), done: make(chan struct{}), ended: make(chan struct{})}
	go func() { _ = n.server.Serve(n); close(n.ended) }()
	return n
}

func (n *network) close(api *defendersim.Server) {
	api.Close()
	_ = n.server.Close()
	<-n.ended
}

// Accept, Close and Addr make the network a listener.
func (n *network) Accept() (net.Conn, error) {
	select {
	case c := <-n.conns:
		return c, nil
	case <-n.done:
		return nil, net.ErrClosed
	}
}

func (n *network) Close() error   { n.once.Do(func() { close(n.done) }); return nil }
func (n *network) Addr() net.Addr { return &net.UnixAddr{Name: "pipe", Net: "pipe"} }

func (n *network) dial(ctx context.Context, _, _ string) (net.Conn, error) {
	n.mu.Lock()
	down := n.down
	n.mu.Unlock()
	if down {
		return nil, &net.OpError{Op: "dial", Net: "tcp", Err: syscall.ECONNREFUSED}
	}
	client, server := net.Pipe()
	select {
	case n.conns <- server:
		return client, nil
	case <-n.done:
	case <-ctx.Done():
	}
	return nil, net.ErrClosed
}

// setDown makes the API unreachable: no new connections, and idle ones are closed.
func (n *network) setDown(down bool) {
	n.mu.Lock()
	n.down = down
	n.mu.Unlock()
	n.server.SetKeepAlivesEnabled(!down)
}

// serveAPI is the simulated API, at which a replica can die: before its call takes effect, or before it has the answer.
func (w *world) serveAPI(rw http.ResponseWriter, q *http.Request) {
	r := w.replica(q.UserAgent())
	if r != nil && r.astray.Load() {
		panic(http.ErrAbortHandler)
	}
	if r == nil || !strings.HasSuffix(q.URL.Path, "/unrestrictCodeExecution") {
		w.api.ServeHTTP(rw, q)
		return
	}
	f := r.meet(atPost)
	if f == nil {
		w.api.ServeHTTP(rw, q)
		return
	}
	if f.done {
		w.api.ServeHTTP(httptest.NewRecorder(), q)
	}
	if f.dies {
		r.kill()
	}
	panic(http.ErrAbortHandler)
}

func (w *world) replica(id string) *replica {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, r := range w.replicas {
		if r.id == id {
			return r
		}
	}
	return nil
}

// tokenSource is the authority: tokens of the simulated API for all replicas.
type tokenSource struct {
	api *defendersim.Server

	mu         sync.Mutex
	down       bool
	slow       time.Duration
	roles      []string // of the tokens to come; nil: all that is needed
	generation int
}

// grant changes the application's roles; the replicas get new tokens.
func (s *tokenSource) grant(roles ...string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.roles = roles
	s.generation++
}

// setDown takes the token endpoint away; tokens that are out are not asked for again before they expire.
func (s *tokenSource) setDown(down bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.down = down
	s.generation++
}

// setSlow lets each new token take its time.
func (s *tokenSource) setSlow(d time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.slow = d
}

// credential is one replica's sign-in.
type credential struct {
	*tokenSource
	seen int
}

func (c *credential) Changed() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.seen != c.generation
}

func (c *credential) Token(context.Context, string, bool) (defender.Token, error) {
	c.mu.Lock()
	slow := c.slow
	c.mu.Unlock()
	time.Sleep(slow)
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.down {
		return defender.Token{}, errors.New("the token endpoint is away")
	}
	c.seen = c.generation
	const life = 24 * time.Hour
	return defender.Token{Value: c.api.IssueToken(life, c.roles...), Expires: time.Now().Add(life)}, nil
}
