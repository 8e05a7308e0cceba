package budget

import (
	"context"
	"errors"
	"fmt"
	"math"
	"testing"
	"testing/synctest"
	"time"
	"unsafe"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"example.com/unrestrict-worker/internal/message"
)

const (
	minuteLasts = time.Minute + StartLimit
	hourLasts   = time.Hour + StartLimit
)

// in runs f in a bubble of fake time with a budget over a store in memory.
func in(t *testing.T, windows []Window, f func(t *testing.T, b *Budget, m *memory)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		m := newMemory(windows)
		f(t, New(m, windows, zap.NewNop(), nil), m)
	})
}

func mustTake(t *testing.T, b *Budget, use string, n int) (last time.Time) {
	t.Helper()
	for i := range n {
		var err error
		if last, err = b.Take(t.Context(), use); err != nil {
			t.Fatalf("call %d of %d: %v", i+1, n, err)
		}
	}
	return last
}

// opensIn is how long until a call of the most urgent lane can be had.
func opensIn(b *Budget) time.Duration {
	d, _ := b.OpensIn(message.LaneUrgent)
	return d
}

// mustWait expects a *WaitError and returns it.
func mustWait(t *testing.T, b *Budget, use string) *WaitError {
	t.Helper()
	var wait *WaitError
	if _, err := b.Take(t.Context(), use); !errors.As(err, &wait) {
		t.Fatalf("Take: %v, want a WaitError", err)
	}
	return wait
}

func TestTakeExhaustedWindow(t *testing.T) {
	in(t, Limits(50, 1500), func(t *testing.T, b *Budget, m *memory) {
		start := time.Now()
		mustTake(t, b, "urgent", 50)
		if d := opensIn(b); d != minuteLasts {
			t.Errorf("OpenIn after the last call: %v, want %v", d, minuteLasts)
		}
		time.Sleep(20 * time.Second)
		wait := mustWait(t, b, "urgent")
		if wait.Closed || wait.Wait() != minuteLasts-20*time.Second {
			t.Errorf("got %+v, want the rest of the window", wait)
		}
		if d := time.Since(start); d != 20*time.Second {
			t.Errorf("a long wait was held for %v", d-20*time.Second)
		}
		if m.taken["minute"] != 50 || m.taken["hour"] != 50 {
			t.Errorf("taken %v, want 50 each", m.taken)
		}
		time.Sleep(minuteLasts - 20*time.Second - 4500*time.Millisecond) // 4.5 s before it opens: held
		mustTake(t, b, "urgent", 1)
		if d := time.Since(start); d != minuteLasts {
			t.Errorf("the 51st call came at %v, want %v", d, minuteLasts)
		}
	})
}

func TestTakeLooksAtTheHourFirst(t *testing.T) {
	in(t, Limits(2, 3), func(t *testing.T, b *Budget, m *memory) {
		mustTake(t, b, "urgent", 2)
		time.Sleep(minuteLasts)
		mustTake(t, b, "urgent", 1)
		if w := mustWait(t, b, "urgent").Wait(); w != hourLasts-minuteLasts {
			t.Errorf("wait %v, want until the hour's first grant ages out", w)
		}
		if m.taken["minute"] != 3 {
			t.Errorf("%d of the minute spent for 3 calls", m.taken["minute"])
		}
	})
}

// The broker lets go of a grant when its timer fires, a little after its time.
func TestTakeWaitsForALateStore(t *testing.T) {
	in(t, Limits(10, 1), func(t *testing.T, b *Budget, m *memory) {
		m.late = 300 * time.Millisecond
		start := time.Now()
		mustTake(t, b, "urgent", 1)
		time.Sleep(opensIn(b) - time.Second)
		mustTake(t, b, "urgent", 1)
		if d := time.Since(start) - hourLasts; d < m.late || d > m.late+pollInterval {
			t.Errorf("the second call came %v after the first had aged out, want 300ms", d)
		}
		if m.taken["minute"] != 2 {
			t.Errorf("%d of the minute spent for 2 calls", m.taken["minute"])
		}
	})
}

func TestTakeServesInOrderAndSendsAllAway(t *testing.T) {
	in(t, Limits(3, 0), func(t *testing.T, b *Budget, _ *memory) {
		type served struct {
			Caller int
			At     time.Duration
			Err    string
		}
		start, results := time.Now(), make(chan served, 6)
		for i := range 6 {
			go func() {
				_, err := b.Take(t.Context(), "urgent")
				s := served{Caller: i, At: time.Since(start)}
				if err != nil {
					s.Err = err.Error()
				}
				results <- s
			}()
			synctest.Wait() // so that they queue in this order
		}
		var got []served
		for range 6 {
			got = append(got, <-results)
		}
		wait := (&WaitError{For: minuteLasts}).Error()
		want := []served{{Caller: 0}, {Caller: 1}, {Caller: 2}, {Caller: 3, Err: wait}, {Caller: 4, Err: wait}, {Caller: 5, Err: wait}}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("served (-want +got):\n%s", diff)
		}
	})
}

// A queue that moves too slowly holds nobody for longer than MaxHold.
func TestTakeHoldsNobodyForLong(t *testing.T) {
	in(t, Limits(100, 0)[:1], func(t *testing.T, b *Budget, m *memory) {
		m.delay = 3 * time.Second
		start, results := time.Now(), make(chan error, 10)
		for range 10 {
			go func() {
				_, err := b.Take(t.Context(), "urgent")
				results <- err
			}()
		}
		granted, late := 0, 0
		for range 10 {
			var wait *WaitError
			switch err := <-results; {
			case err == nil:
				granted++
			case !errors.As(err, &wait) || wait.Wait() <= 0:
				t.Errorf("got %v, want a WaitError with a wait", err)
			case time.Since(start) != 5*time.Second:
				late++
			}
		}
		if granted != 2 || late != 0 {
			t.Errorf("%d calls, want 2 (at 3 and 6 s); %d of the rest not sent away at 5 s", granted, late)
		}
	})
}

// Short waits that add up are not short.
func TestTakeAddsUpWaits(t *testing.T) {
	in(t, []Window{{Name: "minute", Per: 0, Limit: 1}}, func(t *testing.T, b *Budget, _ *memory) { // one lasts for StartLimit
		start, results := time.Now(), make(chan error, 10)
		for range 10 {
			go func() {
				_, err := b.Take(t.Context(), "urgent")
				results <- err
			}()
		}
		granted := 0
		for range 10 {
			if <-results == nil {
				granted++
			}
		}
		if granted != 3 || time.Since(start) != 4*time.Second {
			t.Errorf("%d calls in %v, want 3 (at 0, 2 and 4 s) and the rest sent away at 4 s", granted, time.Since(start))
		}
	})
}

func TestClose(t *testing.T) {
	core, logs := observer.New(zap.WarnLevel)
	synctest.Test(t, func(t *testing.T) {
		m := newMemory(Limits(0, 0))
		b, other := New(m, Limits(0, 0), zap.New(core), nil), New(m, Limits(0, 0), zap.NewNop(), nil)
		granted := mustTake(t, other, "follow", 1)
		time.Sleep(time.Millisecond)
		if !other.Fresh(granted) {
			t.Fatal("a grant is not fresh while nothing closed the budget")
		}
		for _, d := range []time.Duration{0, -time.Second} {
			if err := b.Close(t.Context(), d); err != nil || opensIn(b) != 0 {
				t.Fatalf("closed for %v: %v, open in %v", d, err, opensIn(b))
			}
		}
		if err := b.Close(t.Context(), 30*time.Hour); err != nil {
			t.Fatal(err)
		}
		if wait := mustWait(t, other, "follow"); !wait.Closed || wait.Wait() != 30*time.Hour {
			t.Errorf("got %+v, want closed for 30h", wait)
		}
		if other.Fresh(granted) || opensIn(other) != 30*time.Hour {
			t.Error("the closure stops no call that was granted before it")
		}
		time.Sleep(30*time.Hour - 3*time.Second)
		start := time.Now()
		if after := mustTake(t, other, "urgent", 1); !other.Fresh(after) || time.Since(start) != 3*time.Second {
			t.Errorf("after a held wait of %v the grant is fresh: %v", time.Since(start), other.Fresh(after))
		}
		if other.Fresh(granted) {
			t.Error("a grant from before the closure is fresh again when it is over")
		}
	})
	if logs.Len() != 1 {
		t.Errorf("%d warnings, want 1", logs.Len())
	}
}

func TestCloseError(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMemory(nil)
		b := New(failingClose{m}, nil, zap.NewNop(), nil)
		if err := b.Close(t.Context(), time.Minute); !errors.Is(err, errStore) {
			t.Errorf("Close: %v, want the store's error", err)
		}
	})
}

type failingClose struct{ *memory }

func (failingClose) Close(context.Context, time.Duration) error { return errStore }

func TestFresh(t *testing.T) {
	for _, test := range []struct {
		name         string
		minute, hour int
		age          time.Duration
		want         bool
	}{
		{"minute, in time", 1, 0, StartLimit, true},
		{"minute, late", 1, 0, StartLimit + 1, false},
		{"hour, in time", 0, 1, StartLimit, true},
		{"hour, late", 0, 1, StartLimit + 1, false},
		{"no limit, late", 0, 0, StartLimit + 1, false},
	} {
		t.Run(test.name, func(t *testing.T) {
			in(t, Limits(test.minute, test.hour), func(t *testing.T, b *Budget, _ *memory) {
				granted := mustTake(t, b, "urgent", 1)
				time.Sleep(test.age)
				if got := b.Fresh(granted); got != test.want {
					t.Errorf("after %v: %v", test.age, got)
				}
			})
		})
	}
	t.Run("given before a closure that is over", func(t *testing.T) {
		in(t, Limits(2, 0), func(t *testing.T, b *Budget, _ *memory) {
			granted := mustTake(t, b, "urgent", 1)
			time.Sleep(StartLimit / 8)
			if err := b.Close(t.Context(), StartLimit/4); err != nil {
				t.Fatal(err)
			}
			time.Sleep(StartLimit / 2)
			if later := mustTake(t, b, "urgent", 1); b.Fresh(granted) || !b.Fresh(later) {
				t.Errorf("of before: %v, of behind it: %v", b.Fresh(granted), b.Fresh(later))
			}
		})
	})
	t.Run("store out of touch", func(t *testing.T) {
		in(t, Limits(1, 1), func(t *testing.T, b *Budget, m *memory) {
			granted := mustTake(t, b, "urgent", 1)
			m.set(func() { m.unknown = true })
			if b.Fresh(granted) {
				t.Error("fresh while nobody knows whether the budget is closed")
			}
		})
	})
}

// Not in a bubble: its times have no monotonic reading.
func TestFreshOnBothClocks(t *testing.T) {
	const day = 24 * 60 * 60
	for _, test := range []struct {
		name            string
		wall, monotonic int // seconds that passed on one clock alone
		want            bool
	}{
		{"the machine was frozen", day, 0, false},
		{"the wall clock was set back meanwhile", -day, 3, false},
		{"the wall clock was set back, else at once", -day, 0, true},
	} {
		t.Run(test.name, func(t *testing.T) {
			windows := []Window{{Name: "minute", Per: time.Minute, Limit: 2}}
			b := New(newMemory(windows), windows, zap.NewNop(), nil)
			granted := mustTake(t, b, "urgent", 1)
			if !b.Fresh(granted) {
				t.Fatal("not fresh at once")
			}
			// There is no API for a time.Time of such a process: the wall's seconds stand above 30 bits of nanoseconds,
			// then comes the monotonic reading.
			parts := (*[2]int64)(unsafe.Pointer(&granted))
			parts[0] -= int64(test.wall) << 30
			parts[1] -= int64(test.monotonic) * int64(time.Second)
			moved := time.Now().Round(0).Sub(granted.Round(0)) - time.Since(granted)
			if moved.Round(time.Minute) != (time.Duration(test.wall-test.monotonic) * time.Second).Round(time.Minute) {
				t.Fatal("the layout of time.Time has changed")
			}
			if b.Fresh(granted) != test.want {
				t.Errorf("fresh: %v", !test.want)
			}
		})
	}
}

func TestReserve(t *testing.T) {
	for _, test := range []struct{ limit, reserve int }{{1, 0}, {2, 1}, {3, 1}, {50, 1}, {100, 2}, {1500, 30}} {
		for _, on := range []bool{false, true} {
			t.Run(fmt.Sprintf("limit %d, on %v", test.limit, on), func(t *testing.T) {
				in(t, Limits(test.limit, 0), func(t *testing.T, b *Budget, _ *memory) {
					b.SetReserve(on)
					reserve := 0
					if on {
						reserve = test.reserve
					}
					mustTake(t, b, "urgent", test.limit-reserve)
					if mustWait(t, b, "urgent"); opensIn(b) == 0 {
						t.Error("open, with nothing left but the reserve")
					}
					for range reserve {
						mustTake(t, b, "follow", 1)
					}
					mustWait(t, b, "lookup")
					time.Sleep(opensIn(b))
					mustTake(t, b, "urgent", test.limit-reserve) // and so on
				})
			})
		}
	}
}

// Calls that come free one by one are waited for until there are enough, or as many as there ever are, or long enough.
func TestGather(t *testing.T) {
	for _, test := range []struct {
		name         string
		limit, taken int // evenly over the last minute
		n            int
		d, want      time.Duration
		wait         time.Duration // of the error
	}{
		{"plenty", 100, 0, 20, time.Minute, 0, 0},
		{"no limit", 0, 0, 20, time.Minute, 0, 0},
		{"as many as there are", 10, 0, 20, time.Minute, 0, 0},
		{"until they are there", 60, 60, 20, time.Minute, 21 * time.Second, 0},
		{"no longer than d", 60, 60, 60, 30 * time.Second, 30 * time.Second, 0},
		{"none by then", 60, 60, 20, time.Second, time.Second, time.Second},
	} {
		t.Run(test.name, func(t *testing.T) {
			in(t, Limits(test.limit, 0), func(t *testing.T, b *Budget, m *memory) {
				for range test.taken {
					mustTake(t, b, "urgent", 1)
					time.Sleep(time.Second)
				}
				start := time.Now()
				err := b.Gather(t.Context(), message.LaneUrgent, test.n, test.d)
				if d := time.Since(start); d != test.want {
					t.Errorf("returned after %v, want %v", d, test.want)
				}
				if wait, is := errors.AsType[*WaitError](err); (err != nil) != (test.wait > 0) || is && wait.For > test.wait {
					t.Errorf("error %v, want a wait of %v", err, test.wait)
				}
				if m.taken["minute"] != test.taken {
					t.Error("it took calls")
				}
			})
		})
	}
	t.Run("closed", func(t *testing.T) {
		in(t, Limits(10, 0), func(t *testing.T, b *Budget, _ *memory) {
			if err := b.Close(t.Context(), time.Hour); err != nil {
				t.Fatal(err)
			}
			var wait *WaitError
			if err := b.Gather(t.Context(), message.LaneUrgent, 1, time.Minute); !errors.As(err, &wait) || !wait.Closed || wait.For != time.Hour {
				t.Errorf("%v, want the closure", err)
			}
		})
	})
}

// The store's clock jumps an hour ahead and lets go of every grant: this process still does not
// call more often than the API allows.
func TestTakeAfterTheStoresClockJumped(t *testing.T) {
	in(t, Limits(10, 100), func(t *testing.T, b *Budget, m *memory) {
		start := time.Now()
		mustTake(t, b, "urgent", 10)
		time.Sleep(time.Second)
		m.set(func() { m.jump += 2 * time.Hour })
		if w := mustWait(t, b, "urgent").Wait(); w != minuteLasts-time.Second {
			t.Errorf("wait %v, want %v", w, minuteLasts-time.Second)
		}
		time.Sleep(opensIn(b))
		mustTake(t, b, "urgent", 10)
		if d := time.Since(start); d != minuteLasts {
			t.Errorf("20 calls in %v", d)
		}
		m.set(func() { m.jump -= 2 * time.Hour }) // and back: blocked for a while, not for ever
		for {
			_, err := b.Take(t.Context(), "urgent")
			if err == nil {
				break
			}
			if time.Since(start) > 3*time.Hour {
				t.Fatalf("still %v", err)
			}
			time.Sleep(opensIn(b))
		}
	})
}

func TestTakeStoreFaults(t *testing.T) {
	for _, test := range []struct {
		name         string
		window       string
		carriedOut   bool
		minute, hour int // taken in the store by the failed Take
	}{
		{"minute refused", "minute", false, 0, 0},
		{"minute, reply lost", "minute", true, 1, 0},
		{"hour refused", "hour", false, 1, 0},
		{"hour, reply lost", "hour", true, 1, 1},
	} {
		t.Run(test.name, func(t *testing.T) {
			in(t, Limits(5, 100), func(t *testing.T, b *Budget, m *memory) {
				m.fault = func(window string) (bool, error) {
					if window == test.window {
						return test.carriedOut, errStore
					}
					return true, nil
				}
				if _, err := b.Take(t.Context(), "urgent"); !errors.Is(err, errStore) {
					t.Errorf("Take: %v, want the store's error", err)
				}
				if m.taken["minute"] != test.minute || m.taken["hour"] != test.hour {
					t.Errorf("taken %v: it must not try again", m.taken)
				}
				m.set(func() { m.fault = nil })
				mustTake(t, b, "urgent", 5-test.minute)
				mustWait(t, b, "urgent")
			})
		})
	}
}

func TestTakeOutOfTouch(t *testing.T) {
	in(t, Limits(0, 0), func(t *testing.T, b *Budget, m *memory) {
		m.set(func() { m.unknown = true })
		if _, err := b.Take(t.Context(), "urgent"); !errors.Is(err, ErrOutOfTouch) {
			t.Errorf("Take: %v, want ErrOutOfTouch", err)
		}
		m.set(func() { m.unknown = false })
		mustTake(t, b, "urgent", 1)
	})
}

// A store that times out fails everybody who waits, once.
func TestTakeSharesFailure(t *testing.T) {
	in(t, Limits(5, 0), func(t *testing.T, b *Budget, m *memory) {
		m.lookFault, m.delay = errStore, 2*time.Second
		start, results := time.Now(), make(chan error, 8)
		for range 8 {
			go func() {
				_, err := b.Take(t.Context(), "urgent")
				results <- err
			}()
		}
		for range 8 {
			if err := <-results; !errors.Is(err, errStore) {
				t.Errorf("Take: %v, want the store's error", err)
			}
		}
		if d := time.Since(start); d != 2*time.Second {
			t.Errorf("8 callers waited %v for a store that fails in 2 s", d)
		}
		m.set(func() { m.lookFault = nil })
		mustTake(t, b, "urgent", 1)
	})
}

// Whoever gives up fails nobody but itself, and takes nothing.
func TestTakeCancelled(t *testing.T) {
	in(t, Limits(1, 0), func(t *testing.T, b *Budget, m *memory) {
		m.delay = time.Second
		ctx, cancel := context.WithCancel(t.Context())
		cancelled, patient := make(chan error, 2), make(chan error, 1)
		for range 2 {
			go func() {
				_, err := b.Take(ctx, "urgent")
				cancelled <- err
			}()
		}
		synctest.Wait()
		go func() {
			_, err := b.Take(t.Context(), "urgent")
			patient <- err
		}()
		time.Sleep(time.Second / 2)
		cancel()
		for range 2 {
			if err := <-cancelled; !errors.Is(err, context.Canceled) {
				t.Errorf("Take: %v, want canceled", err)
			}
		}
		if err := <-patient; err != nil || m.taken["minute"] != 1 {
			t.Errorf("the next caller got %v with %v taken", err, m.taken)
		}
		// Held, not queued.
		time.Sleep(minuteLasts - 4500*time.Millisecond)
		ctx, cancel = context.WithTimeout(t.Context(), 2*time.Second)
		defer cancel()
		if _, err := b.Take(ctx, "urgent"); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("Take: %v, want its deadline", err)
		}
	})
}

func TestRemaining(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		windows, reg := Limits(0, 100), prometheus.NewPedanticRegistry()
		m := newMemory(windows)
		b := New(m, windows, zap.NewNop(), reg)
		mustTake(t, b, "urgent", 3)
		got, err := b.Remaining(t.Context())
		want := []WindowStatus{{Window: "minute"}, {Window: "hour", Limit: 100, Remaining: 97}}
		if diff := cmp.Diff(want, got); err != nil || diff != "" {
			t.Errorf("Remaining: %v (-want +got):\n%s", err, diff)
		}
		// Other replicas take, grants age out: Run sees it.
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error)
		go func() { done <- b.Run(ctx) }()
		synctest.Wait()
		m.set(func() {
			for range 97 {
				m.grants["hour"] = append(m.grants["hour"], time.Now())
			}
		})
		time.Sleep(refreshStill + time.Second)
		if left := testutil.ToFloat64(b.left.WithLabelValues("hour")); left != 0 || opensIn(b) == 0 {
			t.Errorf("hour: %v left, open in %v, after others took the rest", left, opensIn(b))
		}
		time.Sleep(hourLasts)
		if left := testutil.ToFloat64(b.left.WithLabelValues("hour")); left != 100 || opensIn(b) != 0 {
			t.Errorf("hour: %v left, open in %v, an hour later", left, opensIn(b))
		}
		if left := testutil.ToFloat64(b.left.WithLabelValues("minute")); !math.IsInf(left, 1) {
			t.Errorf("minute: %v left, want +Inf without a limit", left)
		}
		for window, want := range map[string]float64{"hour": 100, "minute": math.Inf(1)} {
			if limit := testutil.ToFloat64(b.limit.WithLabelValues(window)); limit != want {
				t.Errorf("%s: limit %v, want %v", window, limit, want)
			}
		}
		if problems, err := testutil.GatherAndLint(reg); err != nil || len(problems) > 0 {
			t.Errorf("lint: %v %v", problems, err)
		}
		m.set(func() { m.lookFault = errStore })
		if _, err := b.Remaining(t.Context()); !errors.Is(err, errStore) {
			t.Errorf("Remaining: %v, want the store's error", err)
		}
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run: %v", err)
		}
	})
}
