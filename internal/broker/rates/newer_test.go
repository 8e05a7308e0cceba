package rates

import (
	"testing"
	"testing/synctest"
	"time"

	"example.com/unrestrict-worker/internal/budget"
)

// A closure that a newer version wrote closes as long as it is there, and is not replaced by one that may end earlier.
// What this version has to tell waits until then.
func TestRateClosureNotUnderstood(t *testing.T) {
	const newer = `{"ends":[2000,1,1,0,1,0]}`
	for name, value := range map[string]string{"another form": newer, "another unit": `{"until":"2000-01-01T00:01:00Z","for":60}`} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T, w *world) {
				a := w.replica(budget.Limits(5, 0))
				a.take(1)
				if err := a.store.state.Put(t.Context(), closedKey, []byte(value), time.Minute); err != nil {
					t.Fatal(err)
				}
				time.Sleep(58 * time.Second)
				if a.opensIn() <= 0 {
					t.Error("open while the closure is there")
				}
				if err := a.Close(t.Context(), 3*time.Minute); err == nil {
					t.Error("a closure was written over one that is not understood")
				}
				if r, err := a.store.state.Load(t.Context(), closedKey); err != nil || string(r.Value) != value {
					t.Errorf("the closure is now %s, %v", r.Value, err)
				}
				time.Sleep(10 * time.Second) // it has expired, and ours is told
				b := w.replica(budget.Limits(5, 0))
				synctest.Wait()
				b.closedFor(3*time.Minute - 10*time.Second)
				time.Sleep(3 * time.Minute)
				a.take(1)
			})
		})
	}
}

// While a replica says what is not understood nobody who does not understand it makes the stream's larger.
func TestRateLimitsNotUnderstood(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		newer, older := w.replica(budget.Limits(20, 0)), w.replica(budget.Limits(50, 0))
		newer.take(1)
		newer.kill()
		w.neighbours.understand(false)
		time.Sleep(20 * time.Second)
		older.want(19, 40*time.Second)
		if got, err := older.Remaining(t.Context()); err != nil || got[0].Limit != 20 {
			t.Errorf("Remaining: %+v, %v", got, err)
		}
		w.neighbours.understand(true)
		time.Sleep(time.Second)
		older.want(30, 39*time.Second)
	})
}
