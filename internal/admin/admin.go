// Package admin serves what operators and probes read: health, readiness,
// metrics, the status as JSON and as a page that updates itself, and profiles.
// It is read-only and knows the worker only through the functions in Sources.
package admin

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"
	"golang.org/x/net/netutil"

	"example.com/unrestrict-worker/internal/health"
)

// Config is where to listen and who may read.
type Config struct {
	// Addr is host:port; port 0 takes a free one. Whether the bound address is
	// loopback decides which rules hold: on loopback the Host header is checked
	// and profiles are served, off loopback the token is required.
	Addr string
	// Token is required off loopback for everything but /livez, /readyz and
	// /metrics, as a bearer token or as the password of Basic authentication
	// with any user. Empty: everything but these three answers 403 off loopback.
	Token string
	// Gatherer is what /metrics serves.
	Gatherer prometheus.Gatherer
	// Level is shown on the page; nil shows none.
	Level *zap.AtomicLevel
}

// Sources are the functions through which the server reads the worker. All are
// required, are called concurrently, and must return soon after their context
// ends. What they return, errors included, is served: it must hold no secret.
type Sources struct {
	// Alive returns nil while the consume loop makes progress.
	Alive func() error
	// Conditions returns what holds this replica up. It is ready unless one of
	// them stops it.
	Conditions func() []health.Condition
	// Status is for /status and the page.
	Status func(ctx context.Context) (Status, error)
	// Recent is for the page alone.
	Recent func(ctx context.Context) (Recent, error)
	// Find returns the requests with that id, machine or ticket, newest first.
	Find func(ctx context.Context, what string) ([]ResultRow, error)
	// Stories returns what is known of the requests with that id, one for each owner. Find and Stories are called one at a time.
	Stories func(ctx context.Context, id string) ([]Story, error)
}

// limits bounds what clients can hold; tests shorten them.
type limits struct {
	readHeader, read, write, idle time.Duration
	source                        time.Duration // one call to Sources
	search                        time.Duration // the same, for Find and Stories
	tick                          time.Duration // least time between two renderings
	grace                         time.Duration // for answers under way at shutdown
	connections                   int
}

// Server is the admin server: New, Listen, then Run once.
type Server struct {
	cfg     Config
	src     Sources
	log     *zap.Logger
	limits  *limits
	page    *page
	finding chan struct{} // the one slot of a search, which reads whole streams
	ln      net.Listener
}

// New makes a server that doesn't listen yet.
func New(cfg Config, src Sources, log *zap.Logger) (*Server, error) {
	if _, _, err := net.SplitHostPort(cfg.Addr); err != nil {
		return nil, fmt.Errorf("admin address: %w", err)
	}
	if src.Alive == nil || src.Conditions == nil || src.Status == nil || src.Recent == nil || src.Find == nil || src.Stories == nil || cfg.Gatherer == nil {
		return nil, errors.New("admin server: every source and the gatherer are required")
	}
	l := &limits{
		readHeader: 5 * time.Second, read: 10 * time.Second, write: 30 * time.Second, idle: time.Minute,
		source: 3 * time.Second, search: 20 * time.Second, tick: time.Second, grace: 3 * time.Second,
		connections: 1024,
	}
	p, err := newPage(src, cfg.Level, l)
	if err != nil {
		return nil, fmt.Errorf("admin page: %w", err)
	}
	return &Server{cfg: cfg, src: src, log: log, limits: l, page: p, finding: make(chan struct{}, 1)}, nil
}

// Listen binds the address and returns it, with the real port. Run closes it.
func (s *Server) Listen() (net.Addr, error) {
	ln, err := net.Listen("tcp", s.cfg.Addr)
	if err != nil {
		return nil, err
	}
	s.ln = ln
	return ln.Addr(), nil
}

// Run serves until ctx is done, then waits a moment for answers under way and
// closes what is left. It listens first unless Listen was called.
func (s *Server) Run(ctx context.Context) error {
	if s.ln == nil {
		if _, err := s.Listen(); err != nil {
			return err
		}
	}
	server := &http.Server{
		Handler:           s.handler(),
		ReadHeaderTimeout: s.limits.readHeader,
		ReadTimeout:       s.limits.read,
		WriteTimeout:      s.limits.write,
		IdleTimeout:       s.limits.idle,
		MaxHeaderBytes:    16 << 10,
		ErrorLog:          zap.NewStdLog(s.log),
	}
	served := make(chan error, 1)
	// The limit leaves the broker and the API their file descriptors, however many connections a client opens.
	go func() { served <- server.Serve(netutil.LimitListener(s.ln, s.limits.connections)) }()
	select {
	case err := <-served:
		return fmt.Errorf("admin server: %w", err)
	case <-ctx.Done():
	}
	grace, cancel := context.WithTimeout(context.WithoutCancel(ctx), s.limits.grace)
	defer cancel()
	if server.Shutdown(grace) != nil {
		_ = server.Close() // a client that still reads is cut off; that is no failure of the worker
	}
	<-served //nolint:errcheck // http.ErrServerClosed
	return nil
}
