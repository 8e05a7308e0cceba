package rates

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"example.com/unrestrict-worker/internal/budget"
	"example.com/unrestrict-worker/internal/message"
)

// forecast is what is known of the calls to come, from the stored grants.
func (w *world) forecast(js jetstream.JetStream, waiting budget.ByLane) budget.Forecast {
	w.tb.Helper()
	f := budget.Forecast{Waiting: waiting}
	for _, window := range budget.Limits(100, 1500) {
		used := budget.Used{Window: window}.Leaving(5, 0)
		stream, err := js.Stream(w.tb.Context(), StreamName(window.Name))
		if err != nil {
			w.tb.Fatal(err)
		}
		for seq := stream.CachedInfo().State.FirstSeq; seq <= stream.CachedInfo().State.LastSeq; seq++ {
			m, err := stream.GetMsg(w.tb.Context(), seq)
			if err != nil {
				w.tb.Fatal(err)
			}
			used.Grants = append(used.Grants, m.Time)
		}
		f.Windows = append(f.Windows, used)
	}
	return f
}

// last is when the last call is expected.
func last(f budget.Forecast, now time.Time) (end time.Time) {
	for _, at := range f.Calls(now) {
		end = at
	}
	return end
}

// Without other traffic each of 5,000 requests has its call when the stored grants say, wherever it stands; and in the order
// that they say, where lanes wait beside each other.
func TestForecastIsWhatHappens(t *testing.T) {
	for _, waiting := range []budget.ByLane{{0, 0, manyCalls()}, {0, manyCalls(), 0}, {40, 1200, 600}} {
		t.Run(fmt.Sprint(waiting), func(t *testing.T) {
			bubble(t, func(t *testing.T, w *world) {
				r := w.replica(budget.Limits(100, 1500))
				r.UrgentReserve = 5
				for _, some := range []int{60, 30} { // of before
					for range some {
						visit(t, r, "normal")
					}
					time.Sleep(7 * time.Minute)
				}
				begun, n, all := time.Now(), 0, waiting[0]+waiting[1]+waiting[2]
				end := last(w.forecast(r.js, waiting), begun)
				for l, at := range w.forecast(r.js, waiting).Calls(begun) {
					visit(t, r, string(l)) // in the order that is expected: nobody has his call earlier than he asks
					if off := time.Since(at); off.Abs() > 5*time.Second {
						t.Fatalf("call %d, of lane %s, came %v after it was expected, %v from the beginning", n, l, off, at.Sub(begun))
					}
					n++
					waiting[slices.Index(message.Lanes(), l)]--
					if n%1000 == 0 && n < all { // the end stays what it was said to be
						if now := last(w.forecast(r.js, waiting), time.Now()); now.Sub(end).Abs() > 5*time.Second {
							t.Errorf("after %d calls the end is expected %v later than at first", n, now.Sub(end))
						}
					}
				}
				if n != all {
					t.Errorf("%d calls, want %d", n, all)
				}
			})
		})
	}
}

// No call comes later than the latest time that was said for it, while others use no more than what its lane leaves to them.
func TestLatestHoldsBesideUrgentOnes(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		r := w.replica(budget.Limits(100, 1500))
		r.UrgentReserve = 5
		visit(t, r, "bulk")
		chance := rand.New(rand.NewPCG(1, 2))
		over := make(chan struct{})
		var urgent sync.WaitGroup
		urgent.Go(func() {
			for {
				select {
				case <-over:
					return
				case <-time.After(time.Duration(chance.ExpFloat64() * float64(time.Minute))):
				}
				urgent.Go(func() { visit(t, r, "urgent") })
			}
		})
		var latest []time.Time
		for _, at := range w.forecast(r.js, budget.ByLane{0, 0, manyCalls()}).Latest().Calls(time.Now()) {
			latest = append(latest, at)
		}
		for n, at := range latest {
			visit(t, r, string(message.LaneBulk))
			if late := time.Since(at); late > 5*time.Second {
				t.Fatalf("call %d came %v later than the latest time", n, late)
			}
		}
		close(over)
		urgent.Wait()
		synctest.Wait()
	})
}
