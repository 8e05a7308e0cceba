package crash_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"example.com/unrestrict-worker/internal/defender/defendersim"
)

// A replica is killed amid its calls, with the time-outs as they are by default. The calls that took effect are found as
// soon as their messages are redelivered; nobody waits until they must have ended, as the others must.
func TestRecoveryAfterKill(t *testing.T) {
	t.Parallel()
	for _, ackWait := range []time.Duration{5 * time.Second, 20 * time.Second} {
		t.Run(ackWait.String(), func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, options{
				ackWait: ackWait, api: defendersim.Config{Latency: 500 * time.Millisecond},
				env: []string{"DEFENDER_TIMEOUT=30s", "WORKER_RECONCILE_DELAY=5s", "WORKER_POLL_INTERVAL=1s"},
			})
			w.readiness("")
			const slow = 2 * time.Second // an answer
			killed, effect := map[string]time.Time{}, map[string]bool{}
			for round := range rounds {
				var ids []string
				for n := range 24 {
					id := fmt.Sprintf("recovery-%d-%d", round, n)
					if ids = append(ids, id); n%2 == 0 { // carried out at once
						w.api.Inject(defendersim.Fault{Op: "unrestrict", Machine: machineOf(id), Times: 1, Latency: slow, Status: 201, CarriedOut: true})
					}
					sane(w, id)
				}
				until(t, time.Minute, func() string {
					if n := len(w.api.Actions()); n < (round+1)*len(ids)/2 {
						return fmt.Sprint(n, " calls were carried out")
					}
					return ""
				})
				victim, at := w.replicas[round%len(w.replicas)], time.Now()
				victim.kill()
				for _, id := range ids {
					killed[id] = at
				}
				victim.start()
				w.finish()
				w.readiness("")
			}
			for _, a := range w.api.Actions() {
				id := strings.TrimPrefix(a.Comment, "crash ")
				effect[id] = a.Created.Add(-w.options.api.ClockOffset).Before(killed[id])
			}
			for _, took := range []bool{true, false} {
				var all []time.Duration
				for id, at := range killed {
					for _, r := range w.results[id] {
						if late := r.FinishedAt.Sub(at); !r.Final && effect[id] == took && late > 2*slow {
							all = append(all, late.Round(100*time.Millisecond))
						}
					}
				}
				slices.Sort(all)
				if len(all) == 0 {
					t.Logf("effect %t: no call was interrupted", took)
					continue
				}
				t.Logf("effect %t: %d calls were interrupted, and accepted %v after the kill in the middle, %v at the longest", took, len(all), all[len(all)/2], all[len(all)-1])
			}
		})
	}
}
