// Package intake is the HTTP door for systems that can't speak NATS: it takes requests, judges them as the worker
// would, publishes them to the request stream byte for byte, and reports what becomes of them. It holds no Defender
// credential and keeps no state: any number of intakes may run. It answers 2xx only for what the broker has stored.
package intake

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/http"
	"sync"
	"syscall"
	"time"

	"go.uber.org/zap"
	"golang.org/x/net/netutil"
	"golang.org/x/sync/errgroup"

	"example.com/unrestrict-worker/internal/broker"
	"example.com/unrestrict-worker/internal/config"
	"example.com/unrestrict-worker/internal/intake/clients"
	"example.com/unrestrict-worker/internal/message"
	"example.com/unrestrict-worker/internal/service"
)

// Server is the intake: New, Listen, then Run once.
type Server struct {
	settings config.Settings
	clients  *clients.Set
	log      *zap.Logger
	rules    message.Rules
	link     *link
	waiting  *waiting
	lines    service.LineCache
	hub      hub
	bodies   chan struct{} // one for each body of a batch in memory
	metrics  *metrics
	handler  http.Handler
	caller   *http.Client // of callbacks
	stuck    sync.Map     // *target: callbacks that get no results
	ln       net.Listener
	draining chan struct{} // closed when the intake stops: handlers no longer wait
}

// New makes an intake that does not listen yet. An invalid clients file is bad input.
func New(s config.Settings, log *zap.Logger) (*Server, error) {
	log = log.Named("intake")
	set, err := loadClients(s, log)
	if err != nil {
		return nil, err
	}
	names := broker.Names(s.Names)
	server := &Server{
		settings: s, clients: set, log: log, draining: make(chan struct{}), waiting: newWaiting(), bodies: make(chan struct{}, batchBodies),
		rules: message.Rules{Stream: names.Stream, OwnSubjects: names.OwnSubjects(), Signers: s.Accept.Signers},
	}
	cfg := config.BrokerConfig(s)
	cfg.ClientName = "unrestrict-worker intake"
	server.link = &link{cfg: cfg, log: log}
	server.metrics = newMetrics(s.Tenant, server.conditions)
	server.caller = newCaller()
	server.handler = server.routes()
	return server, nil
}

// loadClients reads the clients file, or makes the client local if there is none.
func loadClients(s config.Settings, log *zap.Logger) (*clients.Set, error) {
	if s.Intake.ClientsFile == "" {
		set, file, err := clients.Local(s.DataDir, log)
		if err != nil {
			return nil, fmt.Errorf("the token of the client local (WORKER_DATA_DIR, or give WORKER_INTAKE_CLIENTS_FILE): %w", err)
		}
		log.Info("without WORKER_INTAKE_CLIENTS_FILE one client may ask, local; its token is in a file", zap.String("file", file))
		return set, nil
	}
	set, err := clients.Load(s.Intake.ClientsFile, log)
	if unread, ok := errors.AsType[*fs.PathError](err); ok {
		err = unread.Err // the path is named here
	}
	if err != nil {
		return nil, config.BadInput("WORKER_INTAKE_CLIENTS_FILE (--intake-clients-file) %s:\n%w", s.Intake.ClientsFile, err)
	}
	return set, nil
}

// Limits of what clients can occupy.
const (
	readHeader  = 10 * time.Second
	readWhole   = 30 * time.Second // a request that is not complete by then is ended (docs/intake.md)
	writeWithin = maxPrefer + 30*time.Second
	idle        = 2 * time.Minute
	maxHeaders  = 32 << 10
	connections = 4096
	grace       = 10 * time.Second // for answers under way at the end
)

// Listen binds the address and returns it, with the real port. Run closes it.
func (s *Server) Listen() (net.Addr, error) {
	ln, err := net.Listen("tcp", s.settings.Intake.Addr)
	if err != nil {
		if errors.Is(err, syscall.EADDRINUSE) {
			err = fmt.Errorf("%w: end what listens there (worker demo --stay does), or give another address", err)
		}
		return nil, fmt.Errorf("WORKER_INTAKE_ADDR: %w", err)
	}
	s.ln = netutil.LimitListener(ln, connections)
	if s.settings.Intake.TLSCert != "" {
		cfg, err := tlsConfig(s.settings.Intake)
		if err != nil {
			return nil, errors.Join(err, ln.Close())
		}
		s.ln = tls.NewListener(s.ln, cfg)
	}
	s.log.Info("the intake listens", zap.String("addr", ln.Addr().String()), zap.Bool("tls", s.settings.Intake.TLSCert != ""))
	return ln.Addr(), nil
}

// Run serves until ctx is done, and then answers the requests being handled. It calls Listen, unless that was done. A
// broker that can't be reached is no error; one that refuses the sign-in is.
func (s *Server) Run(ctx context.Context) error {
	if s.ln == nil {
		if _, err := s.Listen(); err != nil {
			return err
		}
	}
	group, running := errgroup.WithContext(ctx)
	linked, unlink := context.WithCancel(context.WithoutCancel(ctx)) // requests being handled still need the broker
	group.Go(func() error {
		defer unlink()
		return s.serve(running)
	})
	group.Go(func() error { return s.link.run(linked) })
	group.Go(func() error { s.clients.Watch(running); return nil })
	group.Go(func() error { s.callBack(running); s.caller.CloseIdleConnections(); return nil })
	return group.Wait()
}

func (s *Server) serve(ctx context.Context) error {
	server := &http.Server{
		Handler: s.handler, ReadHeaderTimeout: readHeader, ReadTimeout: readWhole, WriteTimeout: writeWithin, IdleTimeout: idle, MaxHeaderBytes: maxHeaders,
	}
	if debug, err := zap.NewStdLogAt(s.log, zap.DebugLevel); err == nil { // strangers can cause connection errors at will
		server.ErrorLog = debug
	}
	served := make(chan error, 1)
	go func() { served <- server.Serve(s.ln) }()
	select {
	case err := <-served:
		return fmt.Errorf("serve: %w", err)
	case <-ctx.Done():
	}
	close(s.draining)
	last, cancel := context.WithTimeout(context.WithoutCancel(ctx), grace)
	defer cancel()
	if server.Shutdown(last) != nil {
		_ = server.Close() // requests not answered by then are cut off
	}
	<-served //nolint:errcheck // http.ErrServerClosed
	return nil
}
