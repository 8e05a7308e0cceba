package remediation_test

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"example.com/unrestrict-worker/internal/defender/defendersim"
	"example.com/unrestrict-worker/internal/message"
	"example.com/unrestrict-worker/internal/message/messagetest"
)

// Two hundred hostile messages over the real broker: as many rejections and dead letters, nothing written to the ledger,
// and no call of any kind. A good request among them is carried out.
func TestHostileMessagesCallNothing(t *testing.T) {
	inWorld(t, setup{}, func(w *world) {
		const n = 200
		kinds := map[string]string{}
		for kind, d := range messagetest.Hostile(n, nil) {
			if len(d.Data) > 1<<20-4096 {
				d.Data = d.Data[:1<<20-4096] // what the broker takes
			}
			h := message.Header{}
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
			if r.Outcome != message.Rejected || !r.Final || r.Error == nil || r.Error.Code != "malformed" && r.Error.Code != "tooLarge" {
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

// An action whose id can be none is no action: the call is looked for, the slot is free for others, and nothing of the id is
// kept. One that is too large to publish is marked.
func TestHostileActions(t *testing.T) {
	for name, id := range map[string]string{"2 MB": strings.Repeat("a", 2<<20), "lines": "x\r\nNats-Rollup: all", "NUL": "x\x00", "escape": "x\x1b[2J"} {
		t.Run(name, func(t *testing.T) {
			inWorld(t, setup{untended: true, submit: untracked}, func(w *world) {
				body, err := json.Marshal(map[string]string{"id": id, "machineId": machine(1)})
				w.must(err)
				w.api.Inject(defendersim.Fault{Op: "unrestrict", Times: 1, Body: body, CarriedOut: true})
				w.ask("r1", 1)
				w.ask("r2", 2)
				w.settled(5 * time.Minute)
				w.wantFinal("r2", "submitted")
				w.wantFinal("r1", "submitted")
				w.wantPosts(1, 1)
				if e := w.entry("r1"); e.ActionID != w.api.Actions()[0].ID && e.ActionID != w.api.Actions()[1].ID {
					t.Errorf("%.100q is not what the list shows", e.ActionID)
				}
			})
		})
	}
	inWorld(t, setup{untended: true, submit: untracked}, func(w *world) {
		body, err := json.Marshal(map[string]string{"id": "6e5b6c1e-0000-4000-8000-000000000000", "machineId": machine(1), "x": strings.Repeat("x", 3<<20)})
		w.must(err)
		w.api.Inject(defendersim.Fault{Op: "unrestrict", Times: 1, Body: body, CarriedOut: true})
		w.ask("r1", 1)
		w.settled(5 * time.Minute)
		if r := w.wantFinal("r1", "submitted"); !r.MachineActionTruncated || r.MachineAction != nil {
			t.Errorf("truncated %t, %d bytes", r.MachineActionTruncated, len(r.MachineAction))
		}
		w.wantPosts(1, 1)
	})
}
