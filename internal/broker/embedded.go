package broker

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/gofrs/flock"
	"github.com/nats-io/nats-server/v2/server"
	"go.uber.org/zap"
)

// embedded is a NATS server in this process, with the lock on its store. The server is restarted when its store has failed
// and can be written again (store.go).
type embedded struct {
	opts      *server.Options
	log       *zap.Logger
	url       string
	token     string // what its clients sign in with; "": it does not listen
	tokenFile string // the file that has the token; "": WORKER_EMBEDDED_TOKEN
	lock      *flock.Flock
	faults    chan string // log lines of the server about a store that failed
	stopped   func()      // stops watchStore, and returns when it has stopped

	mu     sync.Mutex
	server *server.Server // nil during a restart
	fault  StoreFault
}

// startEmbedded returns when the server accepts connections. failed is called if the server can't be restarted later.
func startEmbedded(ctx context.Context, cfg Config, log *zap.Logger, failed func(error)) (_ *embedded, err error) {
	opts := &server.Options{
		ServerName: "unrestrict-worker", NoSigs: true, DontListen: cfg.EmbeddedAddr == "",
		JetStream: true, StoreDir: cfg.DataDir, JetStreamMaxStore: embeddedMaxStore, JetStreamMaxMemory: embeddedMaxMemory,
		// Without it a power cut loses up to two minutes of acknowledged
		// messages, including write-ahead intents.
		SyncAlways:             !cfg.SyncInterval,
		DisableJetStreamBanner: true,
	}
	if !opts.DontListen {
		if opts.Host, opts.Port, err = listenAddr(cfg.EmbeddedAddr, cfg.EmbeddedToken); err != nil {
			return nil, err
		}
		if ip := net.ParseIP(opts.Host); !ip.IsLoopback() {
			log.Warn("the embedded broker has no TLS: its token and all requests cross the network in clear; use a NATS server of your own", zap.String("addr", cfg.EmbeddedAddr))
		}
	}
	lock, err := lockStore(cfg.DataDir)
	if err != nil {
		return nil, err
	}
	e := &embedded{opts: opts, log: log, lock: lock, faults: make(chan string, 1), stopped: func() {}}
	defer func() {
		if err != nil {
			e.stop()
		}
	}()
	if !opts.DontListen {
		if e.token, e.tokenFile, err = embeddedToken(cfg); err != nil {
			return nil, err
		}
	}
	opts.Authorization = e.token
	if err := e.start(); err != nil {
		return nil, err
	}
	if addr, ok := e.server.Addr().(*net.TCPAddr); ok && !opts.DontListen {
		opts.Port = addr.Port // a restarted server listens on the same port
		e.url = "nats://" + Dialable(net.JoinHostPort(opts.Host, strconv.Itoa(addr.Port)))
	}
	e.watchStore(ctx, failed)
	log.Info("embedded broker started", zap.String("url", e.url), zap.String("store", cfg.DataDir), zap.Bool("syncAlways", opts.SyncAlways))
	if e.url != "" {
		log.Info("clients of the embedded broker sign in with its token", zap.String("how", e.signIn()))
	}
	return e, nil
}

// start starts a server, and returns when it accepts connections.
func (e *embedded) start() error {
	s, err := server.NewServer(e.opts.Clone())
	if err != nil {
		return fmt.Errorf("embedded broker: %w", err)
	}
	out := &serverLog{log: e.log.Named("server"), faults: e.faults}
	s.SetLoggerV2(out, false, false, false)
	// When Start returns, the server has recovered its store and listens; or it
	// has failed, and only its log has the reason.
	s.Start()
	err = nil
	if fatal := out.fatal.Swap(new(string)); fatal != nil {
		err = fmt.Errorf("embedded broker: %s", *fatal)
	} else if !s.ReadyForConnections(apiTimeout) {
		err = errors.New("embedded broker: started but takes no connections")
	}
	if err != nil {
		s.Shutdown()
		s.WaitForShutdown()
		return err
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	e.server = s
	return nil
}

// InProcessConn connects to the server that is running now.
func (e *embedded) InProcessConn() (net.Conn, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.server == nil {
		return nil, errors.New("the embedded broker is being restarted")
	}
	return e.server.InProcessConn()
}

// signIn is the line of shell that other terminals need; it never contains the token itself.
func (e *embedded) signIn() string {
	if e.tokenFile == "" {
		return "export NATS_URL=" + e.url + " NATS_TOKEN=...  # what WORKER_EMBEDDED_TOKEN is"
	}
	return "export NATS_URL=" + e.url + " NATS_TOKEN=\"$(cat '" + strings.ReplaceAll(e.tokenFile, "'", `'\''`) + "')\""
}

// stop shuts the server down, if there is one, then unlocks the store.
func (e *embedded) stop() {
	e.stopped()
	if e.server != nil {
		e.server.Shutdown()
		e.server.WaitForShutdown()
	}
	_ = e.lock.Close()
}

// listenAddr splits addr into the server's host, as an IP address, and port, and
// checks that the port is free: the server reports a taken port only in its log.
// It resolves a host name once, so that the address that is checked to be
// loopback is the one that the server listens on.
func listenAddr(addr, token string) (host string, port int, err error) {
	l, err := net.Listen("tcp", addr)
	if err != nil {
		return "", 0, fmt.Errorf("the embedded broker can't listen (WORKER_EMBEDDED_ADDR; NATS_URL for a broker that is there): %w", err)
	}
	defer func() { _ = l.Close() }()
	host, digits, err := net.SplitHostPort(addr)
	if err != nil {
		return "", 0, fmt.Errorf("WORKER_EMBEDDED_ADDR: %w", err)
	}
	switch at, ok := l.Addr().(*net.TCPAddr); {
	case host == "":
		host = "0.0.0.0"
	case ok && !at.IP.IsUnspecified():
		host = at.IP.String()
	}
	if token == "" && !net.ParseIP(host).IsLoopback() {
		return "", 0, fmt.Errorf("WORKER_EMBEDDED_ADDR: %s is not loopback: set WORKER_EMBEDDED_TOKEN, so that clients must sign in, or listen at 127.0.0.1", addr)
	}
	if port, err = strconv.Atoi(digits); err != nil {
		return "", 0, fmt.Errorf("WORKER_EMBEDDED_ADDR: %w", err)
	}
	if port == 0 {
		port = server.RANDOM_PORT
	}
	return host, port, nil
}

// Dialable turns a listen address into one that clients on this machine can connect to.
func Dialable(addr string) string {
	host, port, _ := net.SplitHostPort(addr)
	switch host {
	case "", "0.0.0.0":
		host = "127.0.0.1"
	case "::":
		host = "::1"
	}
	return net.JoinHostPort(host, port)
}

// serverLog is the server's log. Only the log has the reason if the server can't
// start, so the first fatal message is kept for start to return.
type serverLog struct {
	log    *zap.Logger
	fatal  atomic.Pointer[string] // nil: none yet, and the server is starting
	faults chan<- string
}

func (l *serverLog) Noticef(format string, v ...any) { l.log.Debug(fmt.Sprintf(format, v...)) }
func (l *serverLog) Debugf(format string, v ...any)  { l.log.Debug(fmt.Sprintf(format, v...)) }
func (l *serverLog) Tracef(format string, v ...any)  { l.log.Debug(fmt.Sprintf(format, v...)) }
func (l *serverLog) Warnf(format string, v ...any)   { l.log.Warn(fmt.Sprintf(format, v...)) }

// Errorf is called with locks of the server held.
func (l *serverLog) Errorf(format string, v ...any) {
	text := fmt.Sprintf(format, v...)
	l.log.Warn(text)
	if storeFailed.MatchString(text) {
		select {
		case l.faults <- text:
		default: // one pending fault is enough
		}
	}
}

func (l *serverLog) Fatalf(format string, v ...any) {
	reason := fmt.Sprintf(format, v...)
	if !l.fatal.CompareAndSwap(nil, &reason) {
		l.log.Error(reason)
	}
}

var _ server.Logger = (*serverLog)(nil)
