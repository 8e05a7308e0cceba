package remediation_test

import (
	"cmp"
	"context"
	"fmt"
	"net/http"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"github.com/prometheus/client_golang/prometheus"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
	"go.opentelemetry.io/otel/trace"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest"

	"example.com/unrestrict-worker/internal/broker"
	"example.com/unrestrict-worker/internal/budget"
	"example.com/unrestrict-worker/internal/defender/defendersim"
	"example.com/unrestrict-worker/internal/ledger"
	"example.com/unrestrict-worker/internal/message"
	"example.com/unrestrict-worker/internal/remediation"
)

// setup is how a world begins. The zero value: one replica, no limits, the defaults of docs/configuration.md.
type setup struct {
	api      defendersim.Config              // every machine exists; no limits unless given
	replicas int                             // 0: 1; negative: none
	limits   []budget.Window                 // of every replica; nil: none
	grants   func(budget.Store) budget.Store // what stands before the budget's store; nil: nothing
	free     bool                            // calls cost nothing and nothing closes them: for days of fake time
	slots    int                             // 0: 16
	lanes    []message.Lane                  // that are pulled; nil: all
	urgent   int                             // percent that is left to urgent
	ownSlots int                             // urgent's own
	untended bool                            // nobody follows actions or sweeps
	ackWait  time.Duration                   // 0: 20 s
	traced   bool                            // spans are recorded
	ordered  bool                            // the control stream is read: each second, which takes its time in days of it
	newer    dialect                         // of the replicas that startNewer starts

	submit func(*remediation.SubmitConfig)
	follow func(*remediation.TrackConfig)
	rules  func(*remediation.Submitter)
}

// world is a whole deployment in one bubble of fake time: the real broker, a simulated Defender behind pipes, and
// replicas of the worker that can be stopped and killed.
type world struct {
	t      *testing.T
	set    setup
	ctx    context.Context // ends with the world
	end    context.CancelFunc
	api    *defendersim.Server
	net    *network
	broker *broker.Broker
	shared *broker.Replicas // of no replica
	log    *zap.Logger
	faults faults
	tokens tokenSource
	spans  *tracetest.SpanRecorder // nil: not traced

	registry *prometheus.Registry
	metrics  *remediation.Metrics // of all replicas together

	requests, results, letterbox jetstream.Stream
	trail                        auditTrail

	published []request
	signed    []signed
	told      []message.Result // of the results stream, in order
	letters   []letter         // of the dead-letter stream, in order, those dropped included
	nextTold  uint64           // sequences read so far
	nextDead  uint64
	watched   sync.WaitGroup
	sharing   map[string]int // how many requests have a comment, where more than one

	mu       sync.Mutex // guards what the goroutines of the world share
	replicas []*replica
	ledger   map[string]ledger.Entry // by request id
}

// request is one message that the broker has acknowledged.
type request struct {
	seq uint64
	id  string // "" if it has no claim on one
}

// signed is a signed request that was published.
type signed struct {
	id     string
	header message.Header
	data   []byte
}

// letter is a dead letter as the stream had it.
type letter struct {
	seq     uint64
	header  message.Header
	payload []byte
}

// inWorld runs a test in fake time and checks the whole state at its end.
func inWorld(t *testing.T, set setup, test func(w *world)) {
	t.Helper()
	dir := t.TempDir()
	// nats.go keeps timers in a sync.Pool, and a timer must not leave its bubble: two collections empty every pool.
	runtime.GC()
	runtime.GC()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, set, dir)
		defer w.close()
		for range max(set.replicas, 1) {
			if set.replicas >= 0 {
				w.start()
			}
		}
		test(w)
		w.check()
	})
}

func newWorld(t *testing.T, set setup, dir string) *world {
	t.Helper()
	set.api.AllowUnknownMachines = true
	if set.api.Limits == nil {
		set.api.Limits = []defendersim.Limit{}
	}
	w := &world{t: t, set: set, api: defendersim.New(set.api), log: zap.NewNop(), ledger: map[string]ledger.Entry{}, registry: prometheus.NewRegistry()}
	w.metrics = remediation.NewMetrics(w.registry)
	if testing.Verbose() {
		w.log = zaptest.NewLogger(t, zaptest.Level(zap.DebugLevel), zaptest.WrapOptions(zap.AddStacktrace(zap.DPanicLevel)))
	}
	w.tokens.api = w.api
	w.net = serve(http.HandlerFunc(w.serveAPI))
	w.ctx, w.end = context.WithCancel(t.Context())
	var err error
	w.broker, err = broker.Open(w.ctx, broker.Config{
		DataDir: dir, SyncInterval: true, Provision: true, AckWait: cmp.Or(w.set.ackWait, 20*time.Second), TracerProvider: w.provider(),
	}, zap.NewNop())
	w.must(err)
	w.must(w.broker.Provision(w.ctx))
	w.shared = w.broker.NewReplicas("operator")
	names := w.broker.Names()
	for name, s := range map[string]*jetstream.Stream{names.Stream: &w.requests, names.ResultsStream: &w.results, names.DeadletterStream: &w.letterbox} {
		*s, err = w.broker.JS().Stream(w.ctx, name)
		w.must(err)
	}
	w.openTrail()
	w.watch()
	return w
}

// provider records the spans of all replicas, if the world is traced.
func (w *world) provider() trace.TracerProvider {
	if !w.set.traced {
		return nil
	}
	if w.spans == nil {
		w.spans = tracetest.NewSpanRecorder()
	}
	return sdktrace.NewTracerProvider(sdktrace.WithSpanProcessor(w.spans))
}

func (w *world) must(err error) {
	w.t.Helper()
	if err != nil {
		w.t.Fatal(err)
	}
}

// close ends everything, the replicas without a drain.
func (w *world) close() {
	for _, r := range w.replicas {
		r.kill()
	}
	for _, r := range w.replicas {
		r.wait()
	}
	w.net.close(w.api)
	w.end()
	w.watched.Wait()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(w.ctx), time.Minute)
	defer cancel()
	if err := w.broker.Close(ctx); err != nil {
		w.t.Error(err)
	}
}

func (w *world) start() *replica {
	w.t.Helper()
	return w.launch(func(*replica) {})
}

// launch starts a replica, changed before.
func (w *world) launch(change func(*replica)) *replica {
	w.t.Helper()
	r := w.newReplica(fmt.Sprintf("replica-%d", len(w.replicas)))
	w.mu.Lock()
	w.replicas = append(w.replicas, r)
	w.mu.Unlock()
	change(r)
	r.run()
	return r
}

// machine is the id of machine n.
func machine(n int) string { return fmt.Sprintf("%040x", n) }

// field changes a request's payload.
type field struct {
	name  string
	value string // JSON
}

// payload is a request for machine n; its comment tells whose an action is.
func payload(id string, n int, more ...field) []byte {
	fields := []string{fmt.Sprintf(`"machineId":%q`, machine(n)), fmt.Sprintf(`"comment":%q`, commentOf(id))}
	if id != "" {
		fields = append(fields, fmt.Sprintf(`"id":%q`, id))
	}
	for _, f := range more {
		fields = slices.DeleteFunc(fields, func(s string) bool { return strings.HasPrefix(s, fmt.Sprintf("%q:", f.name)) })
		fields = append(fields, fmt.Sprintf("%q:%s", f.name, f.value))
	}
	return []byte("{" + strings.Join(fields, ",") + "}")
}

func commentOf(id string) string { return "release for " + id }

// ask publishes a request for machine n under an id.
func (w *world) ask(id string, n int, more ...field) uint64 {
	w.t.Helper()
	return w.publish(id, nil, payload(id, n, more...))
}

// publish puts any message on the request subject; id is the one that it is known by afterwards, "" for STREAM:SEQ.
func (w *world) publish(id string, h message.Header, data []byte) uint64 {
	w.t.Helper()
	stored, err := w.broker.Publish(w.ctx, message.LaneNormal, h, data)
	w.must(err)
	seq := stored.Sequence
	if id == "" {
		id = w.ref(seq)
	}
	w.published = append(w.published, request{seq, id})
	return seq
}

func (w *world) ref(seq uint64) string { return fmt.Sprintf("%s:%d", w.broker.Names().Stream, seq) }

// until lets time pass until ok, and checks the state after each step.
func (w *world) until(what string, limit time.Duration, ok func() bool) {
	w.t.Helper()
	for deadline := time.Now().Add(limit); ; {
		w.check()
		if ok() {
			return
		}
		if !time.Now().Before(deadline) {
			w.t.Fatalf("still waiting for %s after %v\n%s", what, limit, w.dump())
		}
		time.Sleep(min(max(limit/60, time.Second), time.Hour))
	}
}

// settled waits until every message is acknowledged and every run has ended and been told.
func (w *world) settled(limit time.Duration) {
	w.t.Helper()
	w.until("every request to end", limit, func() bool {
		for _, e := range w.entries() {
			if e.State != ledger.StateFinal || !e.Published {
				return false
			}
		}
		return len(w.pending()) == 0
	})
}

// passes lets fake time pass.
func (w *world) passes(d time.Duration) {
	w.t.Helper()
	time.Sleep(d)
	synctest.Wait()
	w.check()
}

// posts are the calls for a machine that arrived, and what they were answered.
func (w *world) posts(n int) (calls []defendersim.Call) {
	for _, c := range w.api.Calls() {
		if c.Op == "unrestrict" && c.Machine == machine(n) {
			calls = append(calls, c)
		}
	}
	return calls
}

// called are the calls of one operation.
func (w *world) called(op string) (calls []defendersim.Call) {
	for _, c := range w.api.Calls() {
		if c.Op == op {
			calls = append(calls, c)
		}
	}
	return calls
}

func (w *world) wantPosts(n, want int) {
	w.t.Helper()
	if got := len(w.posts(n)); got != want {
		w.t.Errorf("%d calls for machine %d, want %d", got, n, want)
	}
}
