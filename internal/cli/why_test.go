package cli

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"example.com/unrestrict-worker/internal/broker"
	"example.com/unrestrict-worker/internal/defender/defendersim"
)

// TestWhyOfAPurgedRequest: without its message nobody takes a request up, so why promises nothing; published again it goes on.
func TestWhyOfAPurgedRequest(t *testing.T) {
	t.Parallel()
	p := newConditionPlace(t, situation{})
	p.sim.Inject(defendersim.Fault{Op: "unrestrict", Status: 404, Code: "ResourceNotFound", Message: "no"})
	p.publish(t, "purged", 1)
	p.saysWhy(t, "purged", "its next attempt", "an end of this fault: ResourceNotFound")
	p.command(t, "pause", "--reason", "purge")
	p.saysWhy(t, "purged", "paused: ")
	stream, err := p.js.Stream(t.Context(), "REMEDIATION")
	if err == nil {
		err = stream.Purge(t.Context())
	}
	if err != nil {
		t.Fatal(err)
	}
	p.saysWhy(t, "purged", "nothing that will come: its message is gone from its stream")
	p.sim.ClearFaults()
	p.command(t, "resume")
	p.publish(t, "purged", 1)
	p.saysWhy(t, "purged", "ended: succeeded", "nothing: it has ended")
}

// TestWhyTellsOfLooks: that a 429 was no call, that an answer was lost, and that the call was looked up before the next.
func TestWhyTellsOfLooks(t *testing.T) {
	t.Parallel()
	p := newConditionPlace(t, situation{})
	p.sim.Inject(defendersim.Fault{Op: "unrestrict", Status: 429, Code: "TooManyRequests", Message: "later", RetryAfter: time.Second, Times: 1})
	p.sim.Inject(defendersim.Fault{Op: "unrestrict", CarriedOut: true, Cut: "before", Times: 1})
	p.publish(t, "told", 1)
	p.saysWhy(t, "told", "ended: succeeded", "the API answered HTTP 429 (TooManyRequests): it did not take the call",
		"whether it took place is looked up", "the API was asked for the actions on record", "the API was called, the latest of 2 times", "accepted as action ")
}

// TestWhyOfAMachineThatAPurgedRequestHolds: the request that waits for it names the one that will not come, and no call that was
// never made.
func TestWhyOfAMachineThatAPurgedRequestHolds(t *testing.T) {
	t.Parallel()
	p := newConditionPlace(t, situation{})
	p.sim.Inject(defendersim.Fault{Op: "unrestrict", Cut: "before", Times: 1})
	p.sim.Inject(defendersim.Fault{Op: "list", Status: 503, Code: "ServiceUnavailable", Message: "later"})
	p.publish(t, "purged", 1)
	p.saysWhy(t, "purged", "a look-up of whether the call of")
	stream, err := p.js.Stream(t.Context(), "REMEDIATION")
	if err == nil {
		err = stream.Purge(t.Context())
	}
	if err != nil {
		t.Fatal(err)
	}
	p.publish(t, "waits", 1)
	p.saysWhy(t, "waits", "machineBusy: ", "the machine is held by the request purged, called", "whose message is gone from its stream")
	if _, out := p.command(t, "why", "waits"); strings.Contains(out, "the API was called") {
		t.Error(out)
	}
}

// TestWhyOfALostEntry: of an accepted request whose entry somebody has deleted nobody learns the end.
func TestWhyOfALostEntry(t *testing.T) {
	t.Parallel()
	p := newConditionPlace(t, situation{})
	p.sim.Inject(defendersim.Fault{Op: "list", Status: 503, Code: "ServiceUnavailable", Message: "later"})
	p.publish(t, "lost", 1)
	p.saysWhy(t, "lost", "accepted by the API", "the end of action ")
	p.eventually(t, "its message to be acknowledged", func() string {
		if stream, err := p.js.Stream(t.Context(), "REMEDIATION"); err != nil || stream.CachedInfo().State.Msgs > 0 {
			return fmt.Sprint("it is in the stream ", err)
		}
		return ""
	})
	kv, err := p.js.KeyValue(t.Context(), broker.LedgerBucket)
	if err != nil {
		t.Fatal(err)
	}
	keys, err := kv.Keys(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, key := range keys {
		if err := kv.Purge(t.Context(), key); err != nil {
			t.Fatal(err)
		}
	}
	p.saysWhy(t, "lost", "accepted; the ledger has lost it before its end", "nothing that will come: it was accepted")
	p.sim.ClearFaults()
}

// saysWhy waits until `worker why` says all of that.
func (p *conditionPlace) saysWhy(t *testing.T, id string, all ...string) {
	t.Helper()
	p.eventually(t, fmt.Sprintf("worker why %s to say %q", id, all), func() string {
		_, out := p.command(t, "why", id)
		for _, text := range all {
			if !strings.Contains(strings.Join(strings.Fields(out), " "), strings.Join(strings.Fields(text), " ")) {
				return out
			}
		}
		return ""
	})
}
