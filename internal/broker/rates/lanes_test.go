package rates

import (
	"errors"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"example.com/unrestrict-worker/internal/budget"
	"example.com/unrestrict-worker/test/raced"
)

// Three replicas that take all they may, at once, leave what one would: the floors hold over all of them, where 5 % of a
// minute is one call.
func TestFloorsHoldOverReplicas(t *testing.T) {
	for _, limit := range []int{20, 55} {
		bubble(t, func(t *testing.T, w *world) {
			windows := budget.Limits(limit, 0)
			replicas := []*replica{w.replica(windows), w.replica(windows), w.replica(windows)}
			for _, r := range replicas {
				r.UrgentReserve = 5
			}
			left := limit
			for _, use := range []string{"bulk", "normal", "urgent"} {
				floor := map[string]int{"bulk": (limit + 9) / 10, "normal": (limit + 19) / 20}[use]
				var takers sync.WaitGroup
				var mu sync.Mutex
				got := 0
				for _, r := range replicas {
					for range 8 {
						takers.Go(func() {
							for {
								if _, err := r.Take(t.Context(), use); err != nil {
									return
								}
								mu.Lock()
								got++
								mu.Unlock()
							}
						})
					}
				}
				takers.Wait()
				if left -= got; left != floor {
					t.Errorf("of %d calls %s took %d and left %d, want %d left", limit, use, got, left, floor)
				}
			}
		})
	}
}

// manyCalls are more than an hour has; a bulk of 5,000 is too many for the race detector.
func manyCalls() int {
	if raced.On {
		return 1700
	}
	return 5000
}

// visit is what a lane's requests do: they ask when a call may be had, and wait.
func visit(t *testing.T, r *replica, use string) (waited time.Duration) {
	for began := time.Now(); ; {
		_, err := r.Take(t.Context(), use)
		if err == nil {
			return time.Since(began)
		}
		wait, is := errors.AsType[*budget.WaitError](err)
		if !is {
			t.Error(err)
			return 0
		}
		time.Sleep(min(wait.For, time.Second))
	}
}

// A bulk of 5,000 with urgent requests at random, over the windows of the API: 95 of 100 urgent ones have their call within
// 5 s, and the bulk ends within 5 % of the least that the windows allow.
func TestUrgentBesideABulk(t *testing.T) {
	rows := manyCalls()
	for _, perHour := range []float64{6, 60} {
		bubble(t, func(t *testing.T, w *world) {
			windows := budget.Limits(100, 1500)
			r := w.replica(windows)
			r.UrgentReserve = 5
			began, chance := time.Now(), rand.New(rand.NewPCG(1, uint64(perHour)))
			var urgent sync.WaitGroup
			var mu sync.Mutex
			var waits []time.Duration
			over := make(chan struct{})
			urgent.Go(func() {
				for {
					select {
					case <-over:
						return
					case <-time.After(time.Duration(chance.ExpFloat64() * float64(time.Hour) / perHour)):
					}
					urgent.Go(func() {
						waited := visit(t, r, "urgent")
						mu.Lock()
						defer mu.Unlock()
						waits = append(waits, waited)
					})
				}
			})
			for range rows {
				visit(t, r, "bulk")
			}
			took := time.Since(began)
			close(over)
			urgent.Wait()
			synctest.Wait()
			slices.Sort(waits)
			p95 := waits[len(waits)*95/100]
			least := time.Duration(0)
			for _, at := range (budget.Forecast{Windows: []budget.Used{{Window: windows[0]}, {Window: windows[1]}}, Waiting: budget.ByLane{rows + len(waits)}}).Calls(began) {
				least = at.Sub(began)
			}
			t.Logf("%v urgent an hour: %d of them, 95 of 100 within %v, the last within %v; the bulk took %v of %v", perHour, len(waits), p95, waits[len(waits)-1], took, least)
			if p95 > 5*time.Second || took > least+least/20 || len(waits) < rows/2500*int(perHour) {
				t.Errorf("%d urgent ones, 95 of 100 within %v; the bulk took %v, and %v is the least", len(waits), p95, took, least)
			}
		})
	}
}
