package crash_test

import (
	"cmp"
	"context"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/zap"

	"example.com/unrestrict-worker/internal/broker"
	"example.com/unrestrict-worker/internal/defender/defendersim"
)

// options say how a world differs from three replicas at one broker, without limits.
type options struct {
	brokers  int
	maxStore int64
	env      []string
	api      defendersim.Config
	late     bool // the brokers are started by the test
	ackWait  time.Duration
}

// world is a whole deployment, and what was asked of it.
type world struct {
	t        *testing.T
	options  options
	api      *defendersim.Server
	brokers  []*brokerProcess
	replicas []*replica
	own      *broker.Broker // our connection, past the proxies
	trap     atomic.Pointer[trap]
	deaths   atomic.Int64 // of replicas
	oracle
}

func newWorld(t *testing.T, o options) *world {
	t.Helper()
	o.brokers, o.ackWait = max(o.brokers, 1), cmp.Or(o.ackWait, 3*time.Second)
	if o.api.Limits == nil {
		o.api.Limits = []defendersim.Limit{}
	}
	// Clocks differ, and what was done is not listed at once.
	o.api.ClockOffset, o.api.ListLag = -37*time.Second, 500*time.Millisecond
	o.api.Lifecycle = defendersim.Lifecycle{Pending: 200 * time.Millisecond, InProgress: 200 * time.Millisecond}
	w := &world{t: t, options: o, api: defendersim.New(o.api), brokers: newBrokers(t, o.brokers, o.maxStore)}
	w.oracle = oracle{world: w, asked: map[string]*request{}}
	t.Cleanup(w.api.Close)
	token := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(token, []byte(w.api.IssueToken(24*time.Hour)), 0o600); err != nil {
		t.Fatal(err)
	}
	for i := range 3 {
		w.replicas = append(w.replicas, w.newReplica(i, token))
	}
	t.Cleanup(w.complain)
	if !o.late {
		w.runBrokers()
		w.connect()
		w.startAll()
	}
	return w
}

func (w *world) runBrokers() {
	for _, b := range w.brokers {
		b.start()
	}
	for _, b := range w.brokers {
		b.run()
	}
}

func (w *world) addrs() (all []string) {
	for _, b := range w.brokers {
		all = append(all, "nats://"+b.addr)
	}
	return all
}

// connect gives us a connection, and makes what a replica would make.
func (w *world) connect() {
	w.t.Helper()
	ctx, cancel := context.WithTimeout(w.t.Context(), time.Minute)
	defer cancel()
	b, err := broker.Open(ctx, broker.Config{
		URL: strings.Join(w.addrs(), ","), Provision: true, Replicas: w.options.brokers, AckWait: w.options.ackWait,
	}, zap.NewNop())
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() { b.Conn().Close() })
	if err := b.Provision(ctx); err != nil {
		w.t.Fatal(err)
	}
	w.own = b
}

func (w *world) newReplica(i int, token string) *replica {
	r := &replica{admin: freeAddr(w.t), deaths: &w.deaths}
	url := strings.Join(w.addrs(), ",")
	if w.options.brokers == 1 {
		r.broker = newProxy(w.t, w.brokers[0].addr, func(f frame) *trap { return w.sprung(r, f) })
		url = "nats://" + r.broker.addr
	}
	api := w.serve(r)
	r.process = process{
		t: w.t, name: fmt.Sprint("replica ", i), log: filepath.Join(w.t.TempDir(), "log"), argv: []string{worker, "run"},
		env: append([]string{
			"HOME=" + w.t.TempDir(), "NATS_URL=" + url, "DEFENDER_API_URL=" + api, "DEFENDER_AUTH=token-file", "DEFENDER_TOKEN_FILE=" + token,
			"DEFENDER_TIMEOUT=2s", "WORKER_ADMIN_ADDR=" + r.admin, "WORKER_ACK_WAIT=" + w.options.ackWait.String(), "WORKER_REPLICAS=" + fmt.Sprint(w.options.brokers),
			"WORKER_RECONCILE_DELAY=300ms", "WORKER_POLL_INTERVAL=300ms", "WORKER_BACKOFF_MAX=2s",
			"WORKER_RATE_PER_MINUTE=0", "WORKER_RATE_PER_HOUR=0", "LOG_LEVEL=debug", "LOG_FORMAT=json", "WORKER_SHUTDOWN_TIMEOUT=10s",
			"GORACE=atexit_sleep_ms=0", // a program with the race detector sleeps for a second before it ends, otherwise
		}, w.options.env...),
	}
	w.t.Cleanup(r.kill)
	return r
}

// serve is the API as one replica reaches it.
func (w *world) serve(r *replica) (url string) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		w.t.Fatal(err)
	}
	r.api.Handler = http.HandlerFunc(func(rw http.ResponseWriter, q *http.Request) { w.answer(r, rw, q) })
	go func() { _ = r.api.Serve(l) }()
	w.t.Cleanup(func() { r.api.Close() })
	return "http://" + l.Addr().String()
}

// answer is a trap on the way to the API, else the API.
func (w *world) answer(r *replica, rw http.ResponseWriter, q *http.Request) {
	t := w.sprung(r, frame{subject: q.Method + " " + q.URL.Path})
	switch {
	case t == nil:
		w.api.ServeHTTP(rw, q)
		return
	case t.when == replyLost:
		w.api.ServeHTTP(httptest.NewRecorder(), q)
	case t.when == after:
		w.api.ServeHTTP(rw, q)
		_ = http.NewResponseController(rw).Flush()
	}
	t.spring()
	panic(http.ErrAbortHandler)
}

func (w *world) startAll() {
	for _, r := range w.replicas {
		r.start()
	}
}

// readiness waits until all replicas are ready, or for the reason why they aren't.
func (w *world) readiness(want string) {
	w.t.Helper()
	for _, r := range w.replicas {
		until(w.t, time.Minute, func() string {
			if got := r.readiness(); got != want {
				return fmt.Sprintf("%s: readiness %q, want %q\n%s", r.name, got, want, r.lines("", 10))
			}
			return ""
		})
	}
}

// complain fails a test in which a process showed a bug, whatever the state says.
func (w *world) complain() {
	for _, r := range w.replicas {
		for _, c := range r.complaints() {
			w.t.Error(c)
		}
	}
}
