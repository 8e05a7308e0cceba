package broker

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	mathrand "math/rand/v2"
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

	"example.com/unrestrict-worker/internal/budget"
)

// rateWorld is a broker with a state bucket. In a bubble it keeps everything in memory: the file
// store compares the age of messages, which is fake, with a clock that is not.
type rateWorld struct {
	tb      testing.TB
	dir     string
	port    int // server.RANDOM_PORT at first; 0: no listener
	storage jetstream.StorageType
	server  *server.Server

	replicas int // of streams; 0: 1
}

func rateBubble(t *testing.T, f func(t *testing.T, w *rateWorld)) {
	dir := t.TempDir()
	emptyPools()
	defer emptyPools()
	synctest.Test(t, func(t *testing.T) {
		w := &rateWorld{tb: t, dir: dir, storage: jetstream.MemoryStorage}
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

func (w *rateWorld) start() {
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

func (w *rateWorld) stop(srv *server.Server) {
	srv.Shutdown()
	srv.WaitForShutdown()
}

func (w *rateWorld) connect(opts ...nats.Option) jetstream.JetStream {
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

// rateReplica is what one process of the worker has.
type rateReplica struct {
	*budget.Budget
	tb    testing.TB
	js    jetstream.JetStream
	store *RateStore
	kill  func() // SIGKILL: nothing is told to anybody
	stop  func() // SIGTERM
}

func (w *rateWorld) replica(windows []budget.Window) *rateReplica {
	return w.replicaOver(w.connect(), windows)
}

func (w *rateWorld) bucket(js jetstream.JetStream) jetstream.KeyValue {
	w.tb.Helper()
	state, err := js.CreateOrUpdateKeyValue(w.tb.Context(), jetstream.KeyValueConfig{
		Bucket: StateBucket, History: 1, Storage: w.storage, LimitMarkerTTL: time.Hour, Replicas: max(1, w.replicas),
	})
	if err != nil {
		w.tb.Fatal(err)
	}
	return state
}

func (w *rateWorld) peers(js jetstream.JetStream, state jetstream.KeyValue) *Replicas {
	w.tb.Helper()
	store := newBucketStore(js, StateBucket)
	stream, err := js.Stream(w.tb.Context(), "KV_"+StateBucket)
	if err != nil {
		w.tb.Fatal(err)
	}
	return &Replicas{store: store, kv: state, state: stream, id: rand.Text(), keys: Names{}.stateKeys(), log: zap.NewNop(), changed: make(chan struct{})}
}

func (w *rateWorld) replicaOver(js jetstream.JetStream, windows []budget.Window) *rateReplica {
	w.tb.Helper()
	return w.replicaWith(js, w.bucket(js), windows)
}

func (w *rateWorld) replicaWith(js jetstream.JetStream, state jetstream.KeyValue, windows []budget.Window) *rateReplica {
	w.tb.Helper()
	peers := w.peers(js, state)
	store, err := NewRateStore(w.tb.Context(), js, state, windows, max(1, w.replicas), peers)
	if err != nil {
		w.tb.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		var there sync.WaitGroup
		there.Go(func() { _ = peers.Run(ctx, func() Presence { return Presence{Limits: RateLimits(windows)} }) })
		if err := store.Run(ctx); err != nil {
			w.tb.Errorf("Run: %v", err)
		}
		there.Wait()
	}()
	r := &rateReplica{Budget: budget.New(store, windows, zap.NewNop(), nil), tb: w.tb, js: js, store: store}
	r.stop = sync.OnceFunc(func() { cancel(); <-done })
	if err := peers.Unpaused(w.tb.Context()); err != nil { // as nothing is taken before
		w.tb.Fatal(err)
	}
	r.kill = func() { js.Conn().Close(); r.stop() }
	w.tb.Cleanup(r.stop)
	return r
}

func (r *rateReplica) take(n int) {
	r.tb.Helper()
	for i := range n {
		if _, err := r.Take(r.tb.Context(), "unrestrict"); err != nil {
			r.tb.Fatalf("call %d of %d: %v", i+1, n, err)
		}
	}
}

// exhaust takes until there is a long wait, and returns how many calls there were and the wait.
func (r *rateReplica) exhaust() (int, *budget.WaitError) {
	r.tb.Helper()
	for n := range 5000 {
		_, err := r.Take(r.tb.Context(), "unrestrict")
		if wait, ok := errors.AsType[*budget.WaitError](err); ok {
			return n, wait
		} else if err != nil {
			r.tb.Fatalf("call %d: %v", n+1, err)
		}
	}
	r.tb.Fatal("no end of calls")
	return 0, nil
}

// rateMost is the oracle: the most calls in any span of per, a call at each end of it included.
func rateMost(calls []time.Time, per time.Duration) int {
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

// Three replicas call whenever they may, for hours, at random within their grants' margin.
func TestRateSlidingWindow(t *testing.T) {
	for _, test := range []struct {
		minute, hour int
		during       time.Duration
	}{{20, 100, 130 * time.Minute}, {3, 0, 15 * time.Minute}, {0, 40, 70 * time.Minute}, {1, 1, 65 * time.Minute}} {
		t.Run(fmt.Sprint(test.minute, test.hour), func(t *testing.T) {
			rateBubble(t, func(t *testing.T, w *rateWorld) {
				windows, start := budget.Limits(test.minute, test.hour), time.Now()
				var mu sync.Mutex
				var calls []time.Time
				var workers sync.WaitGroup
				for i := range 3 {
					r, random := w.replica(windows), mathrand.New(mathrand.NewPCG(1, uint64(i)))
					workers.Go(func() {
						for time.Since(start) < test.during {
							granted, err := r.Take(t.Context(), "unrestrict")
							var wait *budget.WaitError
							switch {
							case errors.As(err, &wait):
								time.Sleep(wait.Wait() - time.Duration(random.Int64N(int64(time.Second))))
							case err != nil:
								t.Error(err)
								return
							default:
								time.Sleep(time.Duration(random.Int64N(int64(600 * time.Millisecond))))
								if r.Fresh(granted) {
									mu.Lock()
									calls = append(calls, time.Now())
									mu.Unlock()
								}
								if random.IntN(20) == 0 {
									time.Sleep(time.Duration(random.Int64N(int64(3 * time.Minute))))
								}
							}
						}
					})
				}
				workers.Wait()
				least := 0
				for _, w := range windows {
					if w.Limit == 0 {
						continue
					}
					if most := rateMost(calls, w.Per); most > w.Limit {
						t.Errorf("%d calls in one %s, want at most %d", most, w.Name, w.Limit)
					}
					use := int(test.during/w.Lasts()) * w.Limit
					if least == 0 || use < least {
						least = use
					}
				}
				if len(calls) < least*6/10 {
					t.Errorf("%d calls in %v, of %d to be had", len(calls), test.during, least)
				}
			})
		})
	}
}

// 75 calls at 50 a minute take a minute and what the margin and the broker's timer add.
func TestRateFullUse(t *testing.T) {
	rateBubble(t, func(t *testing.T, w *rateWorld) {
		start := time.Now()
		calls := make(chan time.Time, 75)
		var workers sync.WaitGroup
		for range 3 {
			r := w.replica(budget.Limits(50, 1500))
			workers.Go(func() {
				for range 25 {
					for {
						_, err := r.Take(t.Context(), "unrestrict")
						if wait, ok := errors.AsType[*budget.WaitError](err); ok {
							time.Sleep(wait.Wait())
							continue
						} else if err != nil {
							t.Error(err)
						}
						calls <- time.Now()
						break
					}
				}
			})
		}
		workers.Wait()
		close(calls)
		var all []time.Time
		for c := range calls {
			all = append(all, c)
		}
		if most := rateMost(all, time.Minute); len(all) != 75 || most != 50 {
			t.Errorf("%d calls, %d in one minute, want 75 and 50", len(all), most)
		}
		if took := time.Since(start); took > time.Minute+budget.StartLimit+500*time.Millisecond {
			t.Errorf("75 calls took %v, want %v and the broker's 250 ms", took, time.Minute+budget.StartLimit)
		}
	})
}

func TestRateRestartForgetsNothing(t *testing.T) {
	w := &rateWorld{tb: t, dir: t.TempDir(), port: server.RANDOM_PORT, storage: jetstream.FileStorage}
	w.start()
	first := w.replica(budget.Limits(100, 1500))
	first.take(60)
	if err := first.Close(t.Context(), time.Hour); err != nil {
		t.Fatal(err)
	}
	w.stop(w.server)
	if _, err := first.Take(t.Context(), "unrestrict"); err == nil {
		t.Fatal("a call without a broker")
	}
	rateEventually(t, func() error {
		if _, _, known := first.store.Closed(); known {
			return errors.New("whether the budget is closed is known without a broker")
		}
		return nil
	})
	w.start()
	other := w.replica(budget.Limits(100, 1500))
	rateEventually(t, func() error {
		for _, r := range []*rateReplica{first, other} {
			if _, until, known := r.store.Closed(); !known || time.Until(until) < 59*time.Minute || time.Until(until) > time.Hour {
				return fmt.Errorf("closed until %v, known: %v", until, known)
			}
		}
		return nil
	})
	// The closure stands in the way of counting with Take.
	for _, window := range []string{"minute", "hour"} {
		n := 0
		for ; n < 2000; n++ {
			if ok, err := []*rateReplica{first, other}[n%2].store.Take(t.Context(), window); err != nil {
				t.Fatal(err)
			} else if !ok {
				break
			}
		}
		if want := map[string]int{"minute": 40, "hour": 1440}[window]; n != want {
			t.Errorf("%d more in the %s after 60 and a restart, want %d", n, window, want)
		}
	}
}

func rateEventually(t *testing.T, f func() error) {
	t.Helper()
	var err error
	for end := time.Now().Add(30 * time.Second); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
		if err = f(); err == nil {
			return
		}
	}
	t.Fatal(err)
}

// rateFaults is a connection on which publishing to a subject fails, in one of two ways.
type rateFaults struct {
	jetstream.JetStream
	mu      sync.Mutex
	subject string // none: ""
	lost    bool   // carried out, and the reply lost
}

func (f *rateFaults) set(subject string, lost bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.subject, f.lost = subject, lost
}

func (f *rateFaults) PublishMsg(ctx context.Context, m *nats.Msg, opts ...jetstream.PublishOpt) (*jetstream.PubAck, error) {
	f.mu.Lock()
	hit, lost := m.Subject == f.subject, f.lost
	f.mu.Unlock()
	if hit && !lost {
		return nil, nats.ErrNoResponders
	}
	ack, err := f.JetStream.PublishMsg(ctx, m, opts...)
	if hit && err == nil {
		return nil, nats.ErrTimeout
	}
	return ack, err
}

func TestRateStoreUnreachable(t *testing.T) {
	for _, test := range []struct {
		subject string
		lost    bool
		want    int // of 10 calls are left
	}{
		{"unrestrict.rate.minute", false, 10},
		{"unrestrict.rate.minute", true, 9},
		{"unrestrict.rate.hour", false, 9},
		{"unrestrict.rate.hour", true, 9},
	} {
		t.Run(fmt.Sprint(test.subject, ", lost ", test.lost), func(t *testing.T) {
			rateBubble(t, func(t *testing.T, w *rateWorld) {
				faults := &rateFaults{JetStream: w.connect()}
				r, other := w.replicaOver(faults, budget.Limits(10, 100)), w.replica(budget.Limits(10, 100))
				faults.set(test.subject, test.lost)
				if _, err := r.Take(t.Context(), "unrestrict"); !errors.Is(err, nats.ErrNoResponders) && !errors.Is(err, nats.ErrTimeout) {
					t.Fatalf("Take: %v, want the fault", err)
				}
				faults.set("", false)
				r.take(1)
				if n, wait := other.exhaust(); n != test.want-1 || wait.Closed {
					t.Errorf("%d more and then %v, want %d", n, wait, test.want-1)
				}
			})
		})
	}
}

func TestRateLook(t *testing.T) {
	rateBubble(t, func(t *testing.T, w *rateWorld) {
		store := w.replica(budget.Limits(2, 0)).store
		look := func(want budget.State) {
			t.Helper()
			got, err := store.Look(t.Context(), "minute")
			if got.NextIn = got.NextIn.Round(time.Second / 2); err != nil || got != want {
				t.Errorf("Look: %+v, %v, want %+v", got, err, want)
			}
		}
		look(budget.State{Limit: 2, Left: 2})
		for range 3 {
			if _, err := store.Take(t.Context(), "minute"); err != nil {
				t.Fatal(err)
			}
			time.Sleep(20 * time.Second)
		}
		look(budget.State{Limit: 2, Left: 0, NextIn: budget.StartLimit})
		time.Sleep(budget.StartLimit + time.Second)
		look(budget.State{Limit: 2, Left: 1, NextIn: 19 * time.Second})
		if got, err := store.Look(t.Context(), "hour"); err != nil || got != (budget.State{}) {
			t.Errorf("Look without a limit: %+v, %v", got, err)
		}
	})
}

// Without Run nobody knows of a closure: no call.
func TestRateOutOfTouch(t *testing.T) {
	rateBubble(t, func(t *testing.T, w *rateWorld) {
		js := w.connect()
		state := w.bucket(js)
		store, err := NewRateStore(t.Context(), js, state, budget.Limits(10, 0), 1, w.peers(js, state))
		if err != nil {
			t.Fatal(err)
		}
		start := time.Now()
		b := budget.New(store, budget.Limits(10, 0), zap.NewNop(), nil)
		if _, err := b.Take(t.Context(), "unrestrict"); !errors.Is(err, budget.ErrOutOfTouch) || time.Since(start) != 2*time.Second {
			t.Errorf("Take: %v after %v, want ErrOutOfTouch after 2s", err, time.Since(start))
		}
	})
}

func BenchmarkRateTake(b *testing.B) {
	for name, limits := range map[string][2]int{"limited": {1 << 30, 1 << 30}, "unlimited": {0, 0}} {
		b.Run(name, func(b *testing.B) {
			w := &rateWorld{tb: b, dir: b.TempDir(), storage: jetstream.FileStorage}
			w.start()
			r := w.replica(budget.Limits(limits[0], limits[1]))
			r.take(1)
			for b.Loop() {
				r.take(1)
			}
		})
	}
}
