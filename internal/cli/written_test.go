package cli

import (
	"fmt"
	"net/http"
	"testing"
	"time"

	"example.com/unrestrict-worker/internal/broker"
	"example.com/unrestrict-worker/internal/defender/defendersim"
	"example.com/unrestrict-worker/internal/message"
	"example.com/unrestrict-worker/internal/service"
)

// TestAsManyMessagesAsSaid holds the numbers of ARCHITECTURE.md (What is written when) against what the streams got.
func TestAsManyMessagesAsSaid(t *testing.T) {
	t.Parallel()
	const requests = 8
	for name, c := range map[string]struct {
		settings map[string]string
		answer   defendersim.Fault
		each     [4]uint64 // of a request: ledger, audit trail, dead letters, results
	}{
		"followed":             {each: [4]uint64{3 + 2, 1 + 1, 0, 1 + 1}},
		"not followed":         {settings: map[string]string{"WORKER_TRACK": "false"}, each: [4]uint64{4, 1, 0, 1}},
		"rejected":             {answer: defendersim.Fault{Op: "unrestrict", Status: http.StatusBadRequest, Code: "InvalidInput"}, each: [4]uint64{4, 1, 1, 1}},
		"ended without a call": {settings: map[string]string{"WORKER_DRY_RUN": "true"}, each: [4]uint64{2, 1, 0, 1}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := runSystem(t, c.settings)
			if c.answer.Op != "" {
				s.sim.Inject(c.answer)
			}
			b := s.work.Broker
			written := func() (last [4]uint64) {
				for i, stream := range []string{"KV_" + broker.LedgerBucket, broker.AuditStream, b.Names().DeadletterStream, b.Names().ResultsStream} {
					last[i] = lastSequence(t, b, stream)
				}
				return last
			}
			publish := func(from int) {
				for n := range requests {
					if _, err := b.Publish(t.Context(), message.LaneNormal, nil, fmt.Appendf(nil, `{"id":"r%d","machineId":%q,"comment":"c"}`, from+n, MachineOf(from+n))); err != nil {
						t.Fatal(err)
					}
				}
			}
			var before, got [4]uint64
			for round := range 2 { // the first ones bring what is written once
				before = written()
				publish(round * requests)
				for enough := false; !enough; {
					if !service.Pause(t.Context(), 20*time.Millisecond) {
						t.Fatal(got)
					}
					enough = s.work.Parts.Consumer.InFlight() == 0
					for i, now := range written() {
						got[i] = now - before[i]
						enough = enough && got[i] >= c.each[i]*requests
					}
				}
			}
			for i := range got {
				if got[i] != c.each[i]*requests {
					t.Errorf("ledger, audit trail, dead letters and results got %v messages for %d requests, want %v for each", got, requests, c.each)
				}
			}
		})
	}
}
