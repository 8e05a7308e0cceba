package crash_test

import (
	"context"
	"fmt"
	"slices"
	"testing"
	"time"

	"example.com/unrestrict-worker/internal/defender/defendersim"
	"example.com/unrestrict-worker/internal/message"
)

// An upgrade: one replica after another is asked to end and replaced, again and again, while requests keep coming.
// Nothing is lost, nothing is called twice, and each process ends as it was asked to.
func TestRollingRestart(t *testing.T) {
	t.Parallel()
	const perSecond = 20
	w := newWorld(t, options{api: defendersim.Config{Latency: 100 * time.Millisecond}})
	var all []*request
	for n := range requests / 2 {
		r := &request{id: fmt.Sprint("rolling-", n), machine: machineOf(fmt.Sprint("rolling-", n)), want: message.Succeeded}
		w.api.AddMachine(r.machine, defendersim.Machine{})
		r.comment = "crash " + r.id
		r.payload = fmt.Appendf(nil, `{"id":%q,"machineId":%q,"comment":%q}`, r.id, r.machine, r.comment)
		w.asked[r.id] = r
		all = append(all, r)
	}
	w.readiness("")

	asked, done := map[string]time.Time{}, make(chan error, 1)
	go func() {
		tick := time.NewTicker(time.Second / perSecond)
		defer tick.Stop()
		for _, r := range all {
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			_, err := w.own.Publish(ctx, message.LaneNormal, nil, r.payload)
			cancel()
			if err != nil {
				done <- err
				return
			}
			asked[r.id] = time.Now()
			<-tick.C
		}
		done <- nil
	}()
	rounds := 0
	for busy := true; busy; rounds++ {
		for _, r := range w.replicas {
			if status := r.stop(); status != 0 {
				t.Errorf("%s ended with %d\n%s", r.name, status, r.lines("", 20))
			}
			r.start()
			w.readiness("")
		}
		select {
		case err := <-done:
			if err != nil {
				t.Fatal(err)
			}
			busy = false
		default:
		}
	}
	w.finish()
	if n := w.posts(); n != len(all) {
		t.Errorf("%d calls for %d requests", n, len(all))
	}
	t.Log(rounds, "rounds;", w.waits(asked))
}

// waits says how long requests took from their publication to their acceptance by the API.
func (w *world) waits(asked map[string]time.Time) string {
	var all []time.Duration
	for id, at := range asked {
		for _, r := range w.results[id] {
			if !r.Final {
				all = append(all, r.FinishedAt.Sub(at).Round(time.Millisecond))
			}
		}
	}
	slices.Sort(all)
	if len(all) == 0 {
		return "no request was accepted"
	}
	return fmt.Sprintf("%d requests waited %v in the middle, %v at the longest", len(all), all[len(all)/2], all[len(all)-1])
}
