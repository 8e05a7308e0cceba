package cli

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"example.com/unrestrict-worker/internal/health"
	"example.com/unrestrict-worker/internal/ledger"
	"example.com/unrestrict-worker/internal/message"
)

// A broker that takes small messages alone: what does not fit is refused before anything is called for it, and holds up
// nobody; a result that its stream will never take is its request's own affair.
func TestSmallMaxPayload(t *testing.T) {
	opts := &server.Options{Host: "127.0.0.1", Port: server.RANDOM_PORT, NoSigs: true, NoLog: true, JetStream: true, StoreDir: t.TempDir(), MaxPayload: 100_000}
	broker, err := server.NewServer(opts)
	if err != nil {
		t.Fatal(err)
	}
	broker.Start()
	t.Cleanup(func() { broker.Shutdown(); broker.WaitForShutdown() })
	nc, err := nats.Connect(broker.ClientURL())
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	js, err := jetstream.New(nc)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := js.CreateStream(t.Context(), jetstream.StreamConfig{Name: "REMEDIATION_RESULTS", Subjects: []string{"remediation.results"}, MaxMsgSize: 4096}); err != nil {
		t.Fatal(err)
	}
	s := runSystem(t, map[string]string{"NATS_URL": broker.ClientURL()})
	publish := func(id string, n int, more string) {
		t.Helper()
		payload := fmt.Sprintf(`{"id":%q,"machineId":%q,"comment":"c"%s}`, id, MachineOf(n), more)
		if _, err := js.Publish(t.Context(), "remediation.unrestrict", []byte(payload)); err != nil {
			t.Fatal(err)
		}
	}
	publish("large", 1, `,"ticket":"`+strings.Repeat("t", 60<<10)+`"`)
	publish("never told", 2, `,"ticket":"`+strings.Repeat("t", 5<<10)+`"`)
	publish("metadata", 3, `,"metadata":{"a":"`+strings.Repeat("m", 5<<10)+`"}`)
	publish("usual", 4, "")

	if r := finalResult(t, js, "REMEDIATION:1", 1); r.Outcome != message.Rejected || r.Error.Code != message.CodeTooLarge || r.ClaimedID != "large" {
		t.Errorf("the large request: %+v", r)
	}
	if r := finalResult(t, js, "metadata", 1); r.Outcome != message.Succeeded || !r.MetadataTruncated || !r.MachineActionTruncated {
		t.Errorf("metadata that do not fit: %+v", r)
	}
	if r := finalResult(t, js, "usual", 1); r.Outcome != message.Succeeded || r.MachineAction == nil {
		t.Errorf("the usual request: %+v", r)
	}
	publish("behind", 5, "")
	finalResult(t, js, "behind", 1)
	if reasons, details := health.Stopping(s.work.Conditions()); len(reasons) > 0 || !strings.Contains(fmt.Sprint(details), fmt.Sprint(ledger.LeastMaxPayload)) {
		t.Errorf("not ready for %v; details %v", reasons, details)
	}
	calls := map[string]int{}
	for _, c := range s.sim.Calls() {
		if c.Op == "unrestrict" {
			calls[c.Machine]++
		}
	}
	want := map[string]int{MachineOf(2): 1, MachineOf(3): 1, MachineOf(4): 1, MachineOf(5): 1}
	if got, wanted := encoded(t, calls), encoded(t, want); got != wanted {
		t.Errorf("called %s, want %s", got, wanted)
	}
	status, out, stderr := command(t, map[string]string{"NATS_URL": broker.ClientURL(), "DEFENDER_API_URL": s.api.URL, "DEFENDER_AUTH": "token-file", "DEFENDER_TOKEN_FILE": s.dir + "/token"}, "check")
	if !strings.Contains(out, fmt.Sprint(ledger.LeastMaxPayload)) {
		t.Errorf("worker check, %d, names no max_payload: %s%s", status, out, stderr)
	}
}

func encoded(t *testing.T, v any) string {
	t.Helper()
	text, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}
