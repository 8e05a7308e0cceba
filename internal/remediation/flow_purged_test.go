package remediation_test

import (
	"strings"
	"testing"
	"time"

	"example.com/unrestrict-worker/internal/defender/defendersim"
	"example.com/unrestrict-worker/internal/ledger"
)

// A request whose message was purged amid its call holds its machine for minutes, not for a day. Published again it still
// looks for that call, though another request has had its machine since.
func TestMachineOfAPurgedRequest(t *testing.T) {
	for name, c := range map[string]struct {
		state   ledger.State
		carried bool // the API carried the lost call out
		posts   int  // that the API saw, of both requests
	}{
		"called, and carried out":     {ledger.StateCalled, true, 2},
		"called, and not carried out": {ledger.StateCalled, false, 2},
		"unknown, and carried out":    {ledger.StateUnknown, true, 2},
	} {
		t.Run(name, func(t *testing.T) {
			inWorld(t, setup{}, func(w *world) {
				first := w.replicas[0]
				if c.state == ledger.StateCalled {
					w.faults.inject(fault{at: atPost, done: c.carried, dies: true, times: 1})
				} else {
					w.api.Inject(defendersim.Fault{Op: "unrestrict", Cut: "before", CarriedOut: c.carried, Times: 1})
					w.api.Inject(defendersim.Fault{Op: "list", Status: 503})
				}
				w.ask("purged", 1)
				w.passes(3 * time.Second)
				if e := w.entry("purged"); e.State != c.state {
					t.Fatalf("it is %s", e.State)
				}
				w.must(w.requests.Purge(w.ctx))
				w.published = nil
				if c.state == ledger.StateCalled {
					first.wait()
					w.start()
				}
				w.passes(40 * time.Second) // whoever had it in hand has it no more
				w.api.ClearFaults()
				w.ask("other", 1)
				w.passes(2 * time.Minute)
				if e := w.entry("other"); e.LastError == nil || e.LastError.Code != "machineBusy" {
					t.Errorf("the other does not wait for the machine: %+v", e.LastError)
				}
				w.until("the end of the other", 12*time.Minute, func() bool { _, ended := w.final("other"); return ended })
				w.wantFinal("other", "succeeded")
				w.ask("purged", 1)
				w.settled(5 * time.Minute)
				w.wantFinal("purged", "succeeded")
				w.wantPosts(1, c.posts)
			})
		})
	}
}

// What makes no sense of a machine holds up its requests alone, which say which key it is, and go on once it is gone.
func TestGarbledMachineHoldsUpItsRequestsAlone(t *testing.T) {
	inWorld(t, setup{}, func(w *world) {
		key := "m." + ledger.DeploymentDigest(w.broker.Names().Stream) + "." + machine(1)
		_, err := w.ledgerBucket().Put(w.ctx, key, []byte(garbled))
		w.must(err)
		w.ask("waits", 1)
		w.ask("other", 2)
		w.ends("other")
		w.passes(3 * time.Minute)
		if e := w.entry("waits"); e.State != ledger.StateWaiting || e.LastError == nil || e.LastError.Code != "garbled" || !strings.Contains(e.LastError.Message, key) {
			t.Errorf("%s: %+v", e.State, e.LastError)
		}
		w.wantPosts(1, 0)
		w.must(w.ledgerBucket().Purge(w.ctx, key)) // as it says
		w.settled(5 * time.Minute)
		w.wantFinal("waits", "succeeded")
		w.wantPosts(1, 1)
	})
}
