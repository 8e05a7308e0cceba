package remediation_test

import (
	"fmt"
	"testing"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"example.com/unrestrict-worker/internal/defender/defendersim"
	"example.com/unrestrict-worker/internal/remediation"
	"example.com/unrestrict-worker/test/raced"
)

// Every fourth call of 2,000, with the race detector of 200, gets no clear answer, 16 are in flight, and each outcome takes longer to store than the next
// answers take to come. No two unclear answers come in a row, so nothing pauses.
func TestAnswersCountInTheOrderTheyArrive(t *testing.T) {
	requests := 2000
	if raced.On {
		requests = 200
	}
	faults, pauses := observer.New(zap.ErrorLevel)
	watched := setup{replicas: -1, free: true, rules: func(s *remediation.Submitter) { s.Breaker.Log = zap.New(faults) }}
	inWorld(t, watched, func(w *world) {
		for n := range requests {
			f := defendersim.Fault{Op: "unrestrict", Machine: machine(n), Latency: 100*time.Millisecond + time.Duration(n%16)*time.Millisecond, Times: 1}
			if n%4 == 3 {
				f.Status = 503
			}
			w.api.Inject(f)
			w.ask(fmt.Sprint("r", n), n)
		}
		w.faults.inject(fault{at: atUnknown, takes: 50 * time.Millisecond}, fault{at: atRecord, takes: 50 * time.Millisecond})
		w.start()
		w.settled(time.Hour)
		for _, pause := range pauses.All() {
			t.Error(pause.Message, pause.ContextMap())
		}
		unclear := 0
		for _, c := range w.called("unrestrict") {
			if c.Status == 503 {
				unclear++
			}
		}
		if unclear != requests/4 {
			t.Errorf("%d unclear answers", unclear)
		}
	})
}
