package cli

import (
	"fmt"
	"testing"
	"time"

	"example.com/unrestrict-worker/internal/broker"
	"example.com/unrestrict-worker/internal/service"
)

// TestAsManyMessagesAsSaid holds the numbers of ARCHITECTURE.md (What is written when) against what the streams got.
func TestAsManyMessagesAsSaid(t *testing.T) {
	t.Parallel()
	const requests = 8
	for name, c := range map[string]struct {
		settings               map[string]string
		ledger, audit, results uint64 // of a request
	}{
		"followed":         {ledger: 3 + 2, audit: 1 + 1, results: 1 + 1},
		"not followed":     {map[string]string{"WORKER_TRACK": "false"}, 4, 1, 1},
		"ended without a call": {map[string]string{"WORKER_DRY_RUN": "true"}, 2, 1, 1},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := runSystem(t, c.settings)
			b := s.work.Broker
			written := func() [3]uint64 {
				return [3]uint64{lastSequence(t, b, "KV_"+broker.LedgerBucket), lastSequence(t, b, broker.AuditStream), lastSequence(t, b, b.Names().ResultsStream)}
			}
			publish := func(from int) {
				for n := range requests {
					if _, err := b.Publish(t.Context(), nil, fmt.Appendf(nil, `{"id":"r%d","machineId":%q,"comment":"c"}`, from+n, MachineOf(from+n))); err != nil {
						t.Fatal(err)
					}
				}
			}
			each := [3]uint64{c.ledger, c.audit, c.results}
			var before, got [3]uint64
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
						enough = enough && got[i] >= each[i]*requests
					}
				}
			}
			for i := range each {
				if got[i] != each[i]*requests {
					t.Errorf("ledger, audit trail and results got %v messages for %d requests, want %v for each", got, requests, each)
				}
			}
		})
	}
}
