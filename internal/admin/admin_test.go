package admin

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/goleak"
	"go.uber.org/zap"

	"example.com/unrestrict-worker/internal/health"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// worker is what the sources tell of; tests change it while the server runs.
type worker struct {
	mu         sync.Mutex
	alive      error
	conditions []health.Condition
	status     Status
	statusErr  error
	recent     Recent
	found      map[string][]ResultRow
	findErr    error
	stories    map[string][]Story
}

func (w *worker) set(change func(*worker)) {
	w.mu.Lock()
	defer w.mu.Unlock()
	change(w)
}

func (w *worker) sources() Sources {
	return Sources{
		Alive:      func() error { w.mu.Lock(); defer w.mu.Unlock(); return w.alive },
		Conditions: func() []health.Condition { w.mu.Lock(); defer w.mu.Unlock(); return w.conditions },
		Status: func(context.Context) (Status, error) {
			w.mu.Lock()
			defer w.mu.Unlock()
			return w.status, w.statusErr
		},
		Recent: func(context.Context) (Recent, error) { w.mu.Lock(); defer w.mu.Unlock(); return w.recent, nil },
		Find: func(_ context.Context, what string) ([]ResultRow, error) {
			w.mu.Lock()
			defer w.mu.Unlock()
			return w.found[what], w.findErr
		},
		Stories: func(_ context.Context, id string) ([]Story, error) {
			w.mu.Lock()
			defer w.mu.Unlock()
			return w.stories[id], w.findErr
		},
	}
}

// stops and impairs are conditions that the table does not have.
func stops(code, message string) health.Condition {
	return health.Condition{Code: code, Message: message, Stops: true}
}

func impairs(code, message string) health.Condition {
	return health.Condition{Code: code, Message: message}
}

func healthy() *worker { return &worker{status: Status{Healthy: true, Version: "v1.2.3"}} }

// running is a server under test.
type running struct {
	*Server
	url  string
	stop func() error // ends Run and returns what it returned
}

// start runs a server on loopback unless cfg says else; edit changes its limits.
func start(t *testing.T, cfg Config, src Sources, edit func(*limits)) running {
	t.Helper()
	if cfg.Addr == "" {
		cfg.Addr = "127.0.0.1:0"
	}
	if cfg.Gatherer == nil {
		cfg.Gatherer = prometheus.NewRegistry()
	}
	s, err := New(cfg, src, zap.NewNop())
	if err != nil {
		t.Fatal(err)
	}
	s.limits.tick = 5 * time.Millisecond
	if edit != nil {
		edit(s.limits)
	}
	addr, err := s.Listen()
	if err != nil {
		t.Fatal(err)
	}
	_, port, _ := net.SplitHostPort(addr.String())
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	stop := sync.OnceValue(func() error { cancel(); return <-done })
	t.Cleanup(func() {
		if err := stop(); err != nil {
			t.Errorf("Run: %v", err)
		}
	})
	return running{Server: s, url: "http://127.0.0.1:" + port, stop: stop}
}

// ask sends one request over a connection of its own; edit changes it.
func (r running) ask(t *testing.T, method, path string, edit func(*http.Request)) (*http.Response, string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, r.url+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Close = true
	if edit != nil {
		edit(req)
	}
	resp, err := http.DefaultTransport.RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp, string(body)
}

func (r running) get(t *testing.T, path string) (int, string) {
	t.Helper()
	resp, body := r.ask(t, http.MethodGet, path, nil)
	return resp.StatusCode, body
}

func TestNewRefuses(t *testing.T) {
	src := healthy().sources()
	half := src
	half.Recent = nil
	for name, c := range map[string]struct {
		cfg Config
		src Sources
	}{
		"an address without a port": {Config{Addr: "localhost", Gatherer: prometheus.NewRegistry()}, src},
		"a missing source":          {Config{Addr: ":0", Gatherer: prometheus.NewRegistry()}, half},
		"a missing gatherer":        {Config{Addr: ":0"}, src},
	} {
		if _, err := New(c.cfg, c.src, zap.NewNop()); err == nil {
			t.Errorf("%s was taken", name)
		}
	}
}

func TestRunListensAndSaysWhenItCannot(t *testing.T) {
	taken := start(t, Config{}, healthy().sources(), nil)
	s, err := New(Config{Addr: strings.TrimPrefix(taken.url, "http://"), Gatherer: prometheus.NewRegistry()}, healthy().sources(), zap.NewNop())
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Run(t.Context()); err == nil || !strings.Contains(err.Error(), "address already in use") {
		t.Errorf("got %v", err)
	}
}

func TestShutdownLetsAnAnswerFinish(t *testing.T) {
	asked, release := make(chan struct{}), make(chan struct{})
	src := healthy().sources()
	src.Status = func(context.Context) (Status, error) { close(asked); <-release; return Status{Version: "late"}, nil }
	s := start(t, Config{}, src, func(l *limits) { l.grace = time.Minute })
	body := make(chan string, 1)
	go func() {
		_, text := s.ask(t, http.MethodGet, "/status", nil)
		body <- text
	}()
	<-asked
	stopped := make(chan error, 1)
	go func() { stopped <- s.stop() }()
	for { // until the shutdown has begun
		conn, err := net.Dial("tcp", strings.TrimPrefix(s.url, "http://"))
		if err != nil {
			break
		}
		conn.Close()
	}
	close(release)
	if got := <-body; !strings.Contains(got, "late") {
		t.Errorf("got %s", got)
	}
	if err := <-stopped; err != nil {
		t.Error(err)
	}
}

func TestShutdownCutsWhatOutlastsTheGrace(t *testing.T) {
	asked := make(chan struct{})
	src := healthy().sources()
	src.Status = func(ctx context.Context) (Status, error) { close(asked); <-ctx.Done(); return Status{}, ctx.Err() }
	s := start(t, Config{}, src, func(l *limits) { l.source, l.write, l.grace = time.Hour, time.Hour, time.Millisecond })
	conn := s.dial(t, "GET /status HTTP/1.1\r\nHost: localhost\r\n\r\n")
	<-asked
	if err := s.stop(); err != nil {
		t.Error(err)
	}
	if _, err := io.ReadAll(conn); isTimeout(err) {
		t.Error("the connection is still open")
	}
}

func TestTimeoutsCloseConnections(t *testing.T) {
	const soon = 20 * time.Millisecond
	for name, c := range map[string]struct {
		edit func(*limits)
		send string
	}{
		"a header that doesn't end": {func(l *limits) { l.readHeader = soon }, "GET /livez HTTP/1.1\r\nHost: localhost\r\n"},
		"a body that doesn't come":  {func(l *limits) { l.read = soon }, "GET /livez HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n\r\n"},
		"nothing more to ask":       {func(l *limits) { l.idle = soon }, "GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n"},
	} {
		t.Run(name, func(t *testing.T) {
			s := start(t, Config{}, healthy().sources(), func(l *limits) {
				l.readHeader, l.read, l.idle = time.Hour, time.Hour, time.Hour
				c.edit(l)
			})
			conn := s.dial(t, c.send)
			if _, err := io.ReadAll(conn); isTimeout(err) {
				t.Error("the connection is still open")
			}
		})
	}
}

func TestAnswerNobodyReadsIsCutOff(t *testing.T) {
	asked := make(chan struct{})
	src := healthy().sources()
	src.Status = func(context.Context) (Status, error) {
		close(asked)
		return Status{Version: strings.Repeat("v", 8<<20)}, nil // more than the sockets hold
	}
	s := start(t, Config{}, src, func(l *limits) { l.write, l.grace = 100*time.Millisecond, time.Hour })
	_ = s.dial(t, "GET /status HTTP/1.1\r\nHost: localhost\r\n\r\n").(*net.TCPConn).SetReadBuffer(4 << 10)
	<-asked
	if err := s.stop(); err != nil { // waits for the answer to end
		t.Error(err)
	}
}

// Twenty clients at once, and two connections: the others wait until one is free.
func TestConnectionsAreBounded(t *testing.T) {
	const most, clients = 2, 20
	var now, highest atomic.Int32
	asked, release := make(chan struct{}, clients), make(chan struct{})
	src := healthy().sources()
	src.Status = func(context.Context) (Status, error) {
		highest.Store(max(highest.Load(), now.Add(1)))
		asked <- struct{}{}
		<-release
		now.Add(-1)
		return Status{}, nil
	}
	s := start(t, Config{}, src, func(l *limits) { l.connections, l.source, l.write = most, time.Hour, time.Hour })
	conns := make([]net.Conn, clients)
	for i := range conns {
		conns[i] = s.dial(t, "GET /status HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
	}
	for range conns {
		<-asked
		release <- struct{}{}
	}
	for _, c := range conns {
		if answer, err := io.ReadAll(c); err != nil || !strings.HasPrefix(string(answer), "HTTP/1.1 200") {
			t.Errorf("%v %.40s", err, answer)
		}
	}
	if highest.Load() > most {
		t.Errorf("%d at once, want at most %d", highest.Load(), most)
	}
}

// dial opens a connection that can't block a test for good, and sends text.
func (r running) dial(t *testing.T, text string) net.Conn {
	t.Helper()
	conn, err := net.Dial("tcp", strings.TrimPrefix(r.url, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	_ = conn.SetDeadline(time.Now().Add(30 * time.Second))
	if _, err := io.WriteString(conn, text); err != nil {
		t.Fatal(err)
	}
	return conn
}

func isTimeout(err error) bool {
	var n net.Error
	return errors.As(err, &n) && n.Timeout()
}

func TestLargeHeaderIsRefused(t *testing.T) {
	s := start(t, Config{}, healthy().sources(), nil)
	conn := s.dial(t, "GET /livez HTTP/1.1\r\nHost: localhost\r\nX-Large: "+strings.Repeat("x", 20<<10))
	answer, err := io.ReadAll(conn) // without its end: the server need not read on to refuse it
	if !strings.HasPrefix(string(answer), "HTTP/1.1 431") {
		t.Errorf("%v, %.60q", err, answer)
	}
}
