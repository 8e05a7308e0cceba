package rates

import (
	"context"
	"errors"
	"fmt"
	mathrand "math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"go.uber.org/zap"

	"example.com/unrestrict-worker/internal/budget"
)

// Three replicas call whenever they may, for hours, at random within their grants' margin.
func TestRateSlidingWindow(t *testing.T) {
	for _, test := range []struct {
		minute, hour int
		during       time.Duration
	}{{20, 100, 130 * time.Minute}, {3, 0, 15 * time.Minute}, {0, 40, 70 * time.Minute}, {1, 1, 65 * time.Minute}} {
		t.Run(fmt.Sprint(test.minute, test.hour), func(t *testing.T) {
			bubble(t, func(t *testing.T, w *world) {
				windows, start := budget.Limits(test.minute, test.hour), time.Now()
				var mu sync.Mutex
				var calls []time.Time
				var workers sync.WaitGroup
				for i := range 3 {
					r, random := w.replica(windows), mathrand.New(mathrand.NewPCG(1, uint64(i)))
					workers.Go(func() {
						for time.Since(start) < test.during {
							granted, err := r.Take(t.Context(), "urgent")
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
					if most := mostWithin(calls, w.Per); most > w.Limit {
						t.Errorf("%d calls in one %s, want at most %d", most, w.Name, w.Limit)
					}
					use := int(test.during/w.Span()) * w.Limit
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
	bubble(t, func(t *testing.T, w *world) {
		start := time.Now()
		calls := make(chan time.Time, 75)
		var workers sync.WaitGroup
		for range 3 {
			r := w.replica(budget.Limits(50, 1500))
			workers.Go(func() {
				for range 25 {
					for {
						_, err := r.Take(t.Context(), "urgent")
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
		if most := mostWithin(all, time.Minute); len(all) != 75 || most != 50 {
			t.Errorf("%d calls, %d in one minute, want 75 and 50", len(all), most)
		}
		if took := time.Since(start); took > time.Minute+budget.StartLimit+500*time.Millisecond {
			t.Errorf("75 calls took %v, want %v and the broker's 250 ms", took, time.Minute+budget.StartLimit)
		}
	})
}

func TestRateRestartForgetsNothing(t *testing.T) {
	w := &world{tb: t, dir: t.TempDir(), port: server.RANDOM_PORT, storage: jetstream.FileStorage}
	w.start()
	first := w.replica(budget.Limits(100, 1500))
	first.take(60)
	if err := first.Close(t.Context(), time.Hour); err != nil {
		t.Fatal(err)
	}
	w.stop(w.server)
	if _, err := first.Take(t.Context(), "urgent"); err == nil {
		t.Fatal("a call without a broker")
	}
	eventually(t, func() error {
		if _, _, known := first.store.Closed(); known {
			return errors.New("whether the budget is closed is known without a broker")
		}
		return nil
	})
	w.start()
	other := w.replica(budget.Limits(100, 1500))
	eventually(t, func() error {
		for _, r := range []*replica{first, other} {
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
			if ok, err := []*replica{first, other}[n%2].store.Take(t.Context(), window, nil); err != nil {
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

// faultyStream is a connection on which publishing to a subject fails, in one of two ways.
type faultyStream struct {
	jetstream.JetStream
	mu      sync.Mutex
	subject string // none: ""
	lost    bool   // carried out, and the reply lost
}

func (f *faultyStream) set(subject string, lost bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.subject, f.lost = subject, lost
}

func (f *faultyStream) PublishMsg(ctx context.Context, m *nats.Msg, opts ...jetstream.PublishOpt) (*jetstream.PubAck, error) {
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
			bubble(t, func(t *testing.T, w *world) {
				faults := &faultyStream{JetStream: w.connect()}
				r, other := w.replicaOver(faults, budget.Limits(10, 100)), w.replica(budget.Limits(10, 100))
				faults.set(test.subject, test.lost)
				if _, err := r.Take(t.Context(), "urgent"); !errors.Is(err, nats.ErrNoResponders) && !errors.Is(err, nats.ErrTimeout) {
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
	bubble(t, func(t *testing.T, w *world) {
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
			if _, err := store.Take(t.Context(), "minute", nil); err != nil {
				t.Fatal(err)
			}
			time.Sleep(20 * time.Second)
		}
		look(budget.State{Limit: 2, Left: 0, NextIn: budget.StartLimit, Last: 2})
		time.Sleep(budget.StartLimit + time.Second)
		look(budget.State{Limit: 2, Left: 1, NextIn: 19 * time.Second, Last: 2})
		if got, err := store.Look(t.Context(), "hour"); err != nil || got != (budget.State{}) {
			t.Errorf("Look without a limit: %+v, %v", got, err)
		}
	})
}

// Without Run nobody knows of a closure: no call.
func TestRateOutOfTouch(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		js := w.connect()
		state := w.bucket(js)
		store, err := New(t.Context(), js, state, budget.Limits(10, 0), 1, w.neighbours.join(nil))
		if err != nil {
			t.Fatal(err)
		}
		start := time.Now()
		b := budget.New(store, budget.Limits(10, 0), zap.NewNop(), nil)
		if _, err := b.Take(t.Context(), "urgent"); !errors.Is(err, budget.ErrOutOfTouch) || time.Since(start) != 2*time.Second {
			t.Errorf("Take: %v after %v, want ErrOutOfTouch after 2s", err, time.Since(start))
		}
	})
}

func BenchmarkRateTake(b *testing.B) {
	for name, limits := range map[string][2]int{"limited": {1 << 30, 1 << 30}, "unlimited": {0, 0}} {
		b.Run(name, func(b *testing.B) {
			w := &world{tb: b, dir: b.TempDir(), storage: jetstream.FileStorage}
			w.start()
			r := w.replica(budget.Limits(limits[0], limits[1]))
			r.take(1)
			for b.Loop() {
				r.take(1)
			}
		})
	}
}
