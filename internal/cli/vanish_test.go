package cli

import (
	"context"
	"fmt"
	"net/http"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"example.com/unrestrict-worker/internal/broker"
	"example.com/unrestrict-worker/internal/defender/defendersim"
	"example.com/unrestrict-worker/internal/health"
	"example.com/unrestrict-worker/internal/message"
	"example.com/unrestrict-worker/internal/service"
)

// until waits for a condition of the system.
func (s *system) until(t *testing.T, what string, is func() bool) {
	t.Helper()
	for !is() {
		if !service.Pause(t.Context(), 20*time.Millisecond) {
			t.Fatal(what)
		}
	}
}

// TestLedgerLostUnderAWorker: a request whose call got no answer waits for its look-ups when the ledger is deleted, with the
// shared state or without. The one that waits is found, and not called for again; what is published later is called for.
func TestLedgerLostUnderAWorker(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		lost   []string
		byHand bool
		purged bool // not deleted
	}{
		"purged":               {lost: []string{"KV_UNRESTRICT_LEDGER"}, purged: true},
		"purged, state too":    {lost: []string{"KV_UNRESTRICT_STATE", "KV_UNRESTRICT_LEDGER"}, purged: true},
		"deleted":              {lost: []string{"KV_UNRESTRICT_LEDGER"}, byHand: false},
		"deleted and made":     {lost: []string{"KV_UNRESTRICT_LEDGER"}, byHand: true},
		"deleted, state too":   {lost: []string{"KV_UNRESTRICT_STATE", "KV_UNRESTRICT_LEDGER"}, byHand: false},
		"deleted, trail too":   {lost: []string{"REMEDIATION_AUDIT", "KV_UNRESTRICT_LEDGER"}, byHand: false},
		"all three made anew":  {lost: []string{"REMEDIATION_AUDIT", "KV_UNRESTRICT_STATE", "KV_UNRESTRICT_LEDGER"}, byHand: true},
		"deleted, results too": {lost: []string{"REMEDIATION_RESULTS", "KV_UNRESTRICT_LEDGER"}, byHand: false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := runSystem(t, map[string]string{"WORKER_RECONCILE_DELAY": "200ms", "DEFENDER_TIMEOUT": "1s"})
			js, calls := s.work.Broker.JS(), func() int { return len(s.sim.Actions()) }
			publish := func(n int) {
				t.Helper()
				if _, err := s.work.Broker.Publish(t.Context(), message.LaneNormal, nil, fmt.Appendf(nil, `{"id":"r%d","machineId":%q,"comment":"c"}`, n, MachineOf(n))); err != nil {
					t.Fatal(err)
				}
			}
			publish(1)
			s.until(t, "the first to end", func() bool { return s.succeeded(t, 1) })
			s.sim.Inject(defendersim.Fault{Op: "unrestrict", Machine: MachineOf(2), Status: http.StatusServiceUnavailable, CarriedOut: true})
			s.sim.Inject(defendersim.Fault{Op: "list", Status: http.StatusServiceUnavailable}) // it is not found before the ledger is gone
			publish(2)
			s.until(t, "the second to be called for", func() bool { return calls() == 2 })
			time.Sleep(time.Second) // its entry is written
			for _, name := range c.lost {
				old, err := js.Stream(t.Context(), name)
				if err != nil {
					t.Fatal(err)
				}
				if c.purged {
					if err := old.Purge(t.Context()); err != nil {
						t.Fatal(err)
					}
					continue
				}
				if err := js.DeleteStream(t.Context(), name); err != nil {
					t.Fatal(err)
				}
				if c.byHand {
					if _, err := js.CreateStream(t.Context(), old.CachedInfo().Config); err != nil {
						t.Fatal(err)
					}
				}
			}
			s.sim.ClearFaults()
			publish(3)
			s.until(t, "ledgerLost to be said", func() bool {
				_, lost := health.Has(s.work.Conditions(), health.LedgerLost)
				return lost
			})
			publish(4)
			s.until(t, "the others to end", func() bool { return s.succeeded(t, 2) && s.succeeded(t, 3) && s.succeeded(t, 4) })
			if n := calls(); n != 4 {
				t.Errorf("%d calls were accepted, want one for each of four requests", n)
			}
			s.until(t, "all to be acknowledged", func() bool {
				_, n, err := s.work.Broker.Pending(t.Context())
				return err == nil && n == 0
			})
		})
	}
}

// TestFollowedIsRecovered: the ledger is lost while an action is followed whose message was acknowledged long ago. The audit
// trail knows of it, so it is followed to its end all the same, by a worker that went on or by one that starts.
func TestFollowedIsRecovered(t *testing.T) {
	t.Parallel()
	for name, restart := range map[string]bool{"under a worker": false, "while none ran": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := runSystem(t, nil)
			s.sim.AddMachine(MachineOf(1), defendersim.Machine{Offline: true})
			for n := range 3 {
				if _, err := s.work.Broker.Publish(t.Context(), message.LaneNormal, nil, fmt.Appendf(nil, `{"id":"r%d","machineId":%q,"comment":"c"}`, n, MachineOf(n))); err != nil {
					t.Fatal(err)
				}
			}
			s.until(t, "the others to end, and one to be followed", func() bool {
				_, n, err := s.work.Broker.Pending(t.Context())
				return s.succeeded(t, 0) && s.succeeded(t, 2) && s.work.Parts.Tracker.Following() == 1 && n == 0 && err == nil
			})
			if err := s.work.Broker.JS().DeleteStream(t.Context(), "KV_UNRESTRICT_LEDGER"); err != nil {
				t.Fatal(err)
			}
			if restart {
				s.stop()
				if err := s.start(context.WithoutCancel(t.Context()), nil); err != nil {
					t.Fatal(err)
				}
			}
			s.until(t, "ledgerLost to be said", func() bool {
				_, lost := health.Has(s.work.Conditions(), health.LedgerLost)
				return lost
			})
			s.until(t, "it to be followed again", func() bool { return s.work.Parts.Tracker.Following() == 1 })
			s.sim.AddMachine(MachineOf(1), defendersim.Machine{})
			s.until(t, "it to end", func() bool { return s.succeeded(t, 1) })
			if n := len(s.sim.Actions()); n != 3 {
				t.Errorf("%d calls were accepted", n)
			}
		})
	}
}

// succeeded says whether the stream of results has the request's final one.
func (s *system) succeeded(t *testing.T, n int) bool {
	t.Helper()
	ended := false
	err := s.work.Broker.Follow(t.Context(), s.work.Broker.Names().ResultsStream, broker.FollowOptions{ToPresent: true}, func(m broker.Message) error {
		ended = ended || m.Header.Get(jetstream.MsgIDHeader) == fmt.Sprintf("r%d:final:1", n)
		return nil
	})
	return ended && err == nil
}
