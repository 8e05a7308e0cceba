package rates

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"go.uber.org/zap"

	"example.com/unrestrict-worker/internal/broker/stream"
	"example.com/unrestrict-worker/internal/budget"
	"example.com/unrestrict-worker/internal/message"
)

// world is a broker with a state bucket. In a bubble it keeps everything in memory: the file
// store compares the age of messages, which is fake, with a clock that is not.
type world struct {
	tb      testing.TB
	dir     string
	port    int // server.RANDOM_PORT at first; 0: no listener
	storage jetstream.StorageType
	server  *server.Server

	replicas int // of streams; 0: 1

	neighbours neighbours
}

func bubble(t *testing.T, f func(t *testing.T, w *world)) {
	dir := t.TempDir()
	emptyPools()
	defer emptyPools()
	synctest.Test(t, func(t *testing.T) {
		w := &world{tb: t, dir: dir, storage: jetstream.MemoryStorage}
		w.start()
		f(t, w)
	})
}

// emptyPools takes the timers away that nats.go keeps in a sync.Pool: none may come into a bubble or leave it. Two
// collections empty every pool.
func emptyPools() {
	runtime.GC()
	runtime.GC()
}

func (w *world) start() {
	w.tb.Helper()
	srv, err := server.NewServer(&server.Options{
		ServerName: "rate", JetStream: true, StoreDir: w.dir, NoSigs: true, NoLog: true,
		DontListen: w.port == 0, Host: "127.0.0.1", Port: w.port,
	})
	if err != nil {
		w.tb.Fatal(err)
	}
	srv.Start()
	if !srv.ReadyForConnections(20 * time.Second) {
		w.tb.Fatal("the broker is not ready")
	}
	if addr := srv.ClientURL(); w.port < 0 {
		if _, err := fmt.Sscanf(addr, "nats://127.0.0.1:%d", &w.port); err != nil {
			w.tb.Fatalf("%s: %v", addr, err)
		}
	}
	w.server = srv
	w.tb.Cleanup(func() { w.stop(srv) })
}

func (w *world) stop(srv *server.Server) {
	srv.Shutdown()
	srv.WaitForShutdown()
}

func (w *world) connect(opts ...nats.Option) jetstream.JetStream {
	w.tb.Helper()
	if w.port == 0 {
		opts = append([]nats.Option{nats.InProcessServer(w.server)}, opts...)
	}
	opts = append(opts,
		nats.MaxReconnects(-1), nats.ReconnectBufSize(-1), nats.ReconnectWait(20*time.Millisecond),
		nats.ReconnectJitter(0, 0), nats.ErrorHandler(func(*nats.Conn, *nats.Subscription, error) {}),
	)
	nc, err := nats.Connect(w.server.ClientURL(), opts...)
	if err != nil {
		w.tb.Fatal(err)
	}
	w.tb.Cleanup(nc.Close)
	js, err := jetstream.New(nc)
	if err != nil {
		w.tb.Fatal(err)
	}
	return js
}

// replica is what one process of the worker has.
type replica struct {
	*budget.Budget
	tb    testing.TB
	js    jetstream.JetStream
	store *Store
	kill  func() // SIGKILL: nothing is told to anybody
	stop  func() // SIGTERM
}

func (w *world) replica(windows []budget.Window) *replica {
	return w.replicaOver(w.connect(), windows)
}

// opensIn is how long until a call of the most urgent lane can be had.
func (r *replica) opensIn() time.Duration {
	d, _ := r.OpensIn(message.LaneUrgent)
	return d
}

func (w *world) bucket(js jetstream.JetStream) State {
	w.tb.Helper()
	_, err := js.CreateOrUpdateKeyValue(w.tb.Context(), jetstream.KeyValueConfig{
		Bucket: "UNRESTRICT_STATE", History: 1, Storage: w.storage, LimitMarkerTTL: time.Hour, Replicas: max(1, w.replicas),
	})
	if err != nil {
		w.tb.Fatal(err)
	}
	return stream.NewBucket(js, "UNRESTRICT_STATE")
}

// neighbours are the limits of the replicas of a test, as broker.Replicas brings them to each: at once, and those of one
// that was killed until its word expires.
type neighbours struct {
	mu         sync.Mutex
	limits     map[*seat]map[string]int
	dead       map[*seat]time.Time // until when its word counts
	unreadable bool                // one of them says what is not understood
}

func (n *neighbours) understand(all bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.unreadable = !all
}

// seat is what one replica hears of the others.
type seat struct{ all *neighbours }

func (n *neighbours) join(windows []budget.Window) *seat {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.limits == nil {
		n.limits, n.dead = map[*seat]map[string]int{}, map[*seat]time.Time{}
	}
	s := &seat{n}
	n.limits[s] = Limits(windows)
	return s
}

// die leaves the word of a replica that was killed.
func (s *seat) die() {
	s.all.mu.Lock()
	defer s.all.mu.Unlock()
	s.all.dead[s] = time.Now().Add(15 * time.Second)
}

func (s *seat) leave() {
	s.all.mu.Lock()
	defer s.all.mu.Unlock()
	if _, killed := s.all.dead[s]; !killed {
		delete(s.all.limits, s)
	}
}

func (s *seat) Limits() (all []map[string]int, known bool) {
	s.all.mu.Lock()
	defer s.all.mu.Unlock()
	for other, limits := range s.all.limits {
		until, killed := s.all.dead[other]
		if other != s && len(limits) > 0 && (!killed || time.Now().Before(until)) {
			all = append(all, limits)
		}
	}
	return all, !s.all.unreadable
}

func (w *world) replicaOver(js jetstream.JetStream, windows []budget.Window) *replica {
	w.tb.Helper()
	return w.replicaWith(js, w.bucket(js), windows)
}

func (w *world) replicaWith(js jetstream.JetStream, state State, windows []budget.Window) *replica {
	w.tb.Helper()
	peers := w.neighbours.join(windows)
	store, err := New(w.tb.Context(), js, state, windows, max(1, w.replicas), peers)
	if err != nil {
		w.tb.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		if err := store.Run(ctx); err != nil {
			w.tb.Errorf("Run: %v", err)
		}
	}()
	r := &replica{Budget: budget.New(store, windows, zap.NewNop(), nil), tb: w.tb, js: js, store: store}
	r.stop = sync.OnceFunc(func() { cancel(); <-done; peers.leave() })
	r.kill = func() { peers.die(); js.Conn().Close(); r.stop() }
	w.tb.Cleanup(r.stop)
	return r
}

func (r *replica) take(n int) {
	r.tb.Helper()
	for i := range n {
		if _, err := r.Take(r.tb.Context(), "urgent"); err != nil {
			r.tb.Fatalf("call %d of %d: %v", i+1, n, err)
		}
	}
}

// exhaust takes until there is a long wait, and returns how many calls there were and the wait.
func (r *replica) exhaust() (int, *budget.WaitError) {
	r.tb.Helper()
	for n := range 5000 {
		_, err := r.Take(r.tb.Context(), "urgent")
		if wait, ok := errors.AsType[*budget.WaitError](err); ok {
			return n, wait
		} else if err != nil {
			r.tb.Fatalf("call %d: %v", n+1, err)
		}
	}
	r.tb.Fatal("no end of calls")
	return 0, nil
}

// mostWithin is the oracle: the most calls in any span of per, a call at each end of it included.
func mostWithin(calls []time.Time, per time.Duration) int {
	slices.SortFunc(calls, time.Time.Compare)
	most, first := 0, 0
	for i, c := range calls {
		for c.Sub(calls[first]) > per {
			first++
		}
		most = max(most, i-first+1)
	}
	return most
}

func eventually(t *testing.T, f func() error) {
	t.Helper()
	var err error
	for end := time.Now().Add(30 * time.Second); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
		if err = f(); err == nil {
			return
		}
	}
	t.Fatal(err)
}

func (w *world) dial(srv *server.Server) jetstream.JetStream {
	w.tb.Helper()
	w.server = srv
	js := w.connect(nats.Name(srv.Name()))
	for end := time.Now().Add(30 * time.Second); ; time.Sleep(50 * time.Millisecond) {
		if _, err := js.AccountInfo(w.tb.Context()); err == nil {
			return js
		} else if time.Now().After(end) {
			w.tb.Fatal(err)
		}
	}
}
