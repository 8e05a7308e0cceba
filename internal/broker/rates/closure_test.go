package rates

import (
	"context"
	"errors"
	"math"
	"net"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/nats-io/nats.go"

	"example.com/unrestrict-worker/internal/budget"
	"example.com/unrestrict-worker/internal/ledger"
)

// closedFor expects the replica to know of a closure that lasts d more.
func (r *replica) closedFor(d time.Duration) {
	r.tb.Helper()
	if off := r.opensIn() - d; off < -100*time.Millisecond || off > 100*time.Millisecond {
		r.tb.Errorf("closed for %v, want %v", r.opensIn(), d)
	}
}

func (r *replica) close(d time.Duration) {
	r.tb.Helper()
	if err := r.Close(r.tb.Context(), d); err != nil {
		r.tb.Errorf("Close: %v", err)
	}
}

func TestRateClose(t *testing.T) {
	for name, windows := range map[string][]budget.Window{"limited": budget.Limits(50, 1500), "unlimited": budget.Limits(0, 0)} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T, w *world) {
				a, b := w.replica(windows), w.replica(windows)
				a.take(1)
				granted, err := b.Take(t.Context(), "lookup")
				if err != nil || !b.Fresh(granted) {
					t.Fatal("no fresh grant", err)
				}
				time.Sleep(time.Millisecond)
				a.close(90*time.Second + time.Millisecond)
				synctest.Wait()
				a.closedFor(90 * time.Second)
				b.closedFor(90 * time.Second)
				if b.Fresh(granted) {
					t.Error("a grant of before the closure is fresh")
				}
				var wait *budget.WaitError
				if _, err := b.Take(t.Context(), "lookup"); !errors.As(err, &wait) || !wait.Closed {
					t.Errorf("Take: %v, want closed", err)
				}
				b.close(10 * time.Second) // ends earlier
				time.Sleep(80 * time.Second)
				a.closedFor(10 * time.Second)
				b.closedFor(10 * time.Second)
				b.close(200 * time.Second)
				a.kill()
				time.Sleep(150 * time.Second)
				c := w.replica(windows) // that late
				time.Sleep(10 * time.Second)
				b.closedFor(40 * time.Second)
				c.closedFor(40 * time.Second)
				time.Sleep(40 * time.Second)
				b.take(1)
				c.take(1)
				d := w.replica(windows)
				d.take(1)
				time.Sleep(10 * time.Second)
				if r, err := b.store.state.Load(t.Context(), "closed"); err != nil || r.Value != nil {
					t.Errorf("the key of a closure that is over: %s, %v, want none", r.Value, err)
				}
				b.close(time.Minute) // after an expired one
				synctest.Wait()
				d.closedFor(time.Minute)
			})
		})
	}
}

func TestRateCloseHoweverLong(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		a, b := w.replica(budget.Limits(1, 0)), w.replica(budget.Limits(1, 0))
		for _, d := range []time.Duration{60 * time.Hour, 90 * 24 * time.Hour, math.MaxInt64} {
			a.close(d)
			synctest.Wait()
			a.closedFor(d)
			b.closedFor(d)
		}
		time.Sleep(time.Minute)
		b.closedFor(math.MaxInt64 - time.Minute)
		c := w.replica(budget.Limits(1, 0))
		synctest.Wait()
		c.closedFor(math.MaxInt64 - time.Minute)
	})
}

// Two replicas get a 429 at once: the longer one holds, though the other has read before it wrote.
func TestRateCloseRace(t *testing.T) {
	for name, before := range map[string]time.Duration{"first closure": 0, "another one": time.Minute} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T, w *world) {
				js := w.connect()
				bucket := &faultyBucket{State: w.bucket(js)}
				a, b := w.replicaWith(js, bucket, budget.Limits(1, 0)), w.replica(budget.Limits(1, 0))
				if before > 0 {
					b.close(before)
				}
				bucket.read = func() { b.close(2 * time.Hour) }
				a.close(time.Hour)
				synctest.Wait()
				a.closedFor(2 * time.Hour)
				c := w.replica(budget.Limits(1, 0))
				synctest.Wait()
				c.closedFor(2 * time.Hour)
			})
		})
	}
}

// faultyBucket is a bucket that fails to save or put keys, in one of two ways, and that others write to just when a key was read.
type faultyBucket struct {
	State
	fails, failsPut atomic.Bool
	lost            bool
	read            func() // once
}

func (b *faultyBucket) Load(ctx context.Context, key string) (ledger.Record, error) {
	r, err := b.State.Load(ctx, key)
	if f := b.read; f != nil {
		b.read = nil
		f()
	}
	return r, err
}

func (b *faultyBucket) Save(ctx context.Context, w ledger.Write) (uint64, error) {
	if b.fails.Load() && !b.lost {
		return 0, nats.ErrNoResponders
	}
	revision, err := b.State.Save(ctx, w)
	if b.fails.Load() && err == nil {
		return 0, nats.ErrTimeout
	}
	return revision, err
}

func (b *faultyBucket) Put(ctx context.Context, key string, value []byte, ttl time.Duration) error {
	if b.failsPut.Load() && !b.lost {
		return nats.ErrNoResponders
	}
	err := b.State.Put(ctx, key, value, ttl)
	if b.failsPut.Load() && err == nil {
		return nats.ErrTimeout
	}
	return err
}

func TestRateCloseNotWritten(t *testing.T) {
	for name, lost := range map[string]bool{"refused": false, "reply lost": true} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T, w *world) {
				js := w.connect()
				bucket := &faultyBucket{State: w.bucket(js), lost: lost}
				bucket.fails.Store(true)
				a, b := w.replicaWith(js, bucket, budget.Limits(5, 0)), w.replica(budget.Limits(5, 0))
				a.take(1)
				if err := a.Close(t.Context(), time.Minute); !errors.Is(err, nats.ErrNoResponders) && !errors.Is(err, nats.ErrTimeout) {
					t.Errorf("Close: %v, want the fault", err)
				}
				a.closedFor(time.Minute)
				if !lost && b.opensIn() != 0 {
					t.Error("how does the other know?")
				}
				time.Sleep(6 * time.Second) // and meanwhile it can't be written either
				bucket.fails.Store(false)
				time.Sleep(9 * time.Second)
				a.closedFor(45 * time.Second)
				b.closedFor(45 * time.Second)
				time.Sleep(46 * time.Second)
				a.take(1)
				b.take(1)
			})
		})
	}
}

// The server that had the watch's consumer went down, the connection did not.
func TestRateCloseWithoutWatch(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		a, b := w.replica(budget.Limits(0, 0)), w.replica(budget.Limits(0, 0))
		b.take(1)
		bucket, err := a.js.Stream(t.Context(), "KV_UNRESTRICT_STATE")
		if err != nil {
			t.Fatal(err)
		}
		for name := range bucket.ConsumerNames(t.Context()).Name() {
			if err := bucket.DeleteConsumer(t.Context(), name); err != nil {
				t.Fatal(err)
			}
		}
		a.close(time.Minute)
		time.Sleep(5500 * time.Millisecond)
		b.closedFor(54500 * time.Millisecond)
	})
}

// A closure made while a replica was cut off is known to it before it may call again.
func TestRateCloseWhileCutOff(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		line := &cable{provider: w.server}
		a, b := w.replica(budget.Limits(5, 0)), w.replicaOver(w.connect(nats.InProcessServer(line)), budget.Limits(5, 0))
		b.take(1)
		line.cut.Store(true)
		if err := b.js.Conn().ForceReconnect(); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		if _, _, known := b.store.Closed(); known || b.Fresh(time.Now()) {
			t.Error("cut off, and sure that nobody closes the budget")
		}
		a.close(time.Hour)
		line.cut.Store(false)
		for known := false; !known; time.Sleep(time.Millisecond) {
			var until time.Time
			if _, until, known = b.store.Closed(); known && time.Until(until) < 59*time.Minute {
				t.Errorf("in touch again, and closed for %v", time.Until(until))
			}
		}
	})
}

// cable is an in-process line that can be cut.
type cable struct {
	provider nats.InProcessConnProvider
	cut      atomic.Bool
}

func (l *cable) InProcessConn() (net.Conn, error) {
	if l.cut.Load() {
		return nil, errors.New("cut off")
	}
	return l.provider.InProcessConn()
}

// An operator lifts a closure, however long, once for all replicas. A 429 after that closes again, also while the key still
// says that it was lifted.
func TestRateLift(t *testing.T) {
	for name, d := range map[string]time.Duration{"an hour": time.Hour, "Retry-After is a time": 1_800_000_000 * time.Second, "the longest": math.MaxInt64} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T, w *world) {
				windows := budget.Limits(50, 1500)
				js := w.connect()
				bucket := &faultyBucket{State: w.bucket(js)}
				a, b := w.replicaWith(js, bucket, windows), w.replica(windows)
				granted, err := b.Take(t.Context(), "lookup")
				if err != nil {
					t.Fatal(err)
				}
				time.Sleep(time.Millisecond)
				a.close(d)
				synctest.Wait()
				b.closedFor(d)
				v, err := Visit(t.Context(), js, w.bucket(js), windows)
				if err != nil {
					t.Fatal(err)
				}
				if rest, err := v.Lift(t.Context()); err != nil || rest < d-time.Minute {
					t.Fatalf("lifted %v, %v; want %v", rest, err, d)
				}
				synctest.Wait()
				b.take(1)
				a.take(1)
				if b.Fresh(granted) {
					t.Error("a grant of before the closure is fresh")
				}
				c := w.replica(windows) // started later
				c.take(1)
				if rest, err := v.Lift(t.Context()); err != nil || rest != 0 {
					t.Errorf("lifted %v where nothing is closed, %v", rest, err)
				}
				bucket.fails.Store(true) // the key says lifted for longer than the 429 has come
				if err := a.Close(t.Context(), 30*time.Second); err == nil {
					t.Error("a closure that was not stored is no error")
				}
				time.Sleep(12 * time.Second)
				a.closedFor(18 * time.Second)
				bucket.fails.Store(false)
				time.Sleep(6 * time.Second)
				b.closedFor(12 * time.Second)
				time.Sleep(20 * time.Second)
				a.close(time.Minute)
				synctest.Wait()
				for _, r := range []*replica{a, b, c} {
					r.closedFor(time.Minute)
				}
				time.Sleep(50 * time.Second) // the key is read again
				b.closedFor(10 * time.Second)
			})
		})
	}
}
