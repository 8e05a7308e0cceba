package remediation_test

import (
	"strings"
	"testing"
	"time"

	"example.com/unrestrict-worker/internal/remediation"
)

// Two thousand hostile messages over the real broker: as many rejections and dead letters, nothing written to the ledger,
// and no call of any kind. A good request among them is carried out.
func TestHostileMessagesCallNothing(t *testing.T) {
	inWorld(t, setup{}, func(w *world) {
		const n = 2000
		kinds := map[string]string{}
		for kind, d := range remediation.HostileMessages(n) {
			if len(d.Data) > 1<<20-4096 {
				d.Data = d.Data[:1<<20-4096] // what the broker takes
			}
			h := remediation.Header{}
			for name, values := range d.Header {
				if strings.EqualFold(name, "Nats-Msg-Id") {
					name = "nats-msg-id" // which the worker reads, and the broker does not drop duplicates by
				}
				h[name] = values
			}
			kinds[w.ref(w.publish("", h, d.Data))] = kind
		}
		w.settled(10 * time.Minute)
		if len(kinds) != n || len(w.told) != n || len(w.letters) != n || len(w.entries()) != 0 || len(w.api.Calls()) != 0 {
			t.Fatalf("%d messages: %d results, %d dead letters, %d entries, %d calls", len(kinds), len(w.told), len(w.letters), len(w.entries()), len(w.api.Calls()))
		}
		for _, r := range w.told {
			if r.Outcome != remediation.Rejected || !r.Final || r.Error == nil || r.Error.Code != "malformed" && r.Error.Code != "tooLarge" {
				t.Errorf("%s: %s, %v", kinds[r.RequestID], r.Outcome, r.Error)
			}
			delete(kinds, r.RequestID)
		}
		if len(kinds) != 0 {
			t.Errorf("not answered: %v", kinds)
		}
		w.ask("mine", 1) // the id that they all claimed
		w.settled(time.Minute)
		w.wantFinal("mine", "succeeded")
		w.wantPosts(1, 1)
	})
}
