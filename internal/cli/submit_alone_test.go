package cli

import (
	"context"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go/jetstream"

	"example.com/unrestrict-worker/internal/cli/session"
	"example.com/unrestrict-worker/internal/cli/submit"
	"example.com/unrestrict-worker/internal/config"
	"example.com/unrestrict-worker/internal/message"
	"example.com/unrestrict-worker/internal/rows"
)

// runBrokerAlone is a broker with the streams that somebody made for a worker, and no worker.
func runBrokerAlone(t *testing.T) (env map[string]string) {
	t.Helper()
	s, err := server.NewServer(&server.Options{Host: "127.0.0.1", Port: server.RANDOM_PORT, NoSigs: true, NoLog: true, JetStream: true, StoreDir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	s.Start()
	t.Cleanup(func() { s.Shutdown(); s.WaitForShutdown() })
	if !s.ReadyForConnections(10 * time.Second) {
		t.Fatal("the broker takes no connections")
	}
	js := jetStream(t, []string{"NATS_URL=" + s.ClientURL()})
	for _, cfg := range []jetstream.StreamConfig{
		{Name: "REMEDIATION", Subjects: []string{"remediation.unrestrict"}},
		{Name: "REMEDIATION_RESULTS", Subjects: []string{"remediation.results"}},
	} {
		if _, err := js.CreateStream(t.Context(), cfg); err != nil {
			t.Fatal(err)
		}
	}
	return map[string]string{"NATS_URL": s.ClientURL()}
}

// TestSubmitSaysThatNoWorkerRuns: of one request, and of those of a file.
func TestSubmitSaysThatNoWorkerRuns(t *testing.T) {
	env := runBrokerAlone(t)
	for _, args := range [][]string{
		{"submit", "--machine", MachineOf(1), "--comment", "c", "--wait"},
		{"submit", "--file", WriteTestFile(t, "machines.csv", csvOf(2)), "--wait"},
	} {
		var out watched
		said := &waitFor{text: "no worker is running: start `worker run`", seen: make(chan struct{})}
		ctx, cancel := context.WithCancel(t.Context())
		status := make(chan int, 1)
		go func() { status <- Run(ctx, args, environOf(env), strings.NewReader(""), &out, said) }()
		select {
		case <-said.seen:
		case got := <-status:
			t.Errorf("%v: ended with %d: %s", args, got, said.all.String())
		}
		cancel()
		if got := <-status; got != 1 || !strings.Contains(said.all.String(), "interrupted while") {
			t.Errorf("%v: exit status %d, %s", args, got, said.all.String())
		}
	}
}

// waitFor tells when a text was written to it.
type waitFor struct {
	text string
	all  watched
	seen chan struct{}
	once sync.Once
}

func (w *waitFor) Write(p []byte) (int, error) {
	n, err := w.all.Write(p)
	if strings.Contains(w.all.String(), w.text) {
		w.once.Do(func() { close(w.seen) })
	}
	return n, err
}

// TestSubmitOneRequest: every flag becomes a field.
func TestSubmitOneRequest(t *testing.T) {
	env := &session.Env{Settings: config.Settings{Names: config.Names{Subject: "remediation.unrestrict", Stream: "REMEDIATION"}}}
	c := &submit.Cmd{
		Machine: MachineOf(1), Comment: "c", ID: "INC-7", Ticket: "T-7", RequestedBy: "ann@contoso.com",
		ExpiresAt: "2999-01-01T00:00:00Z", ReplyTo: "team.answers", Batch: "monday",
	}
	s, done, err := c.Prepare(t.Context(), env)
	if err != nil {
		t.Fatal(err)
	}
	defer done()
	want := `{"machineId":"` + MachineOf(1) + `","comment":"c","id":"INC-7","requestedBy":"ann@contoso.com","ticket":"T-7","batch":"monday","expiresAt":"2999-01-01T00:00:00Z","replyTo":"team.answers"}`
	for p := range s.Bulk.Requests() {
		if string(p.Payload) != want {
			t.Errorf("got %s", p.Payload)
		}
	}
}

// TestMessageIDs: a row has the same whenever the same command publishes it, and another one for all that tells it from
// others; a single request has a new one each time. Nothing but the whole row gives it away.
func TestMessageIDs(t *testing.T) {
	seed := filepath.Join(t.TempDir(), "ann.nk")
	if _, err := writeSeed(seed); err != nil {
		t.Fatal(err)
	}
	again := 0
	of := func(change func(*submit.Bulk, *submit.Prepared)) string {
		t.Helper()
		b := &submit.Bulk{Batch: "monday", Lane: message.LaneBulk}
		p := submit.Prepared{Line: 2, Message: rows.Message{ID: "row", MachineID: MachineOf(1), Comment: "c"}}
		change(b, &p)
		if err := b.Complete(&p); err != nil {
			t.Fatal(err)
		}
		return b.Outgoing(p, again).MessageID
	}
	signed := func(expires string) func(*submit.Bulk, *submit.Prepared) {
		return func(b *submit.Bulk, _ *submit.Prepared) {
			if err := (&submit.Cmd{SignWith: seed}).ReadSeed(b); err != nil {
				t.Fatal(err)
			}
			b.Expires = expires
		}
	}
	plainRow := func(*submit.Bulk, *submit.Prepared) {}
	if first, again := of(plainRow), of(plainRow); first != again {
		t.Error("the same row has two message ids")
	}
	if of(signed("2026-11-24T18:00:00Z")) != of(signed("2026-11-25T18:00:00Z")) {
		t.Error("the same row, signed a day later, has two message ids")
	}
	seen := map[string]string{of(plainRow): "the row"}
	for what, change := range map[string]func(*submit.Bulk, *submit.Prepared){
		"lane":    func(b *submit.Bulk, _ *submit.Prepared) { b.Lane = message.LaneUrgent },
		"batch":   func(b *submit.Bulk, _ *submit.Prepared) { b.Batch = "tuesday" },
		"line":    func(_ *submit.Bulk, p *submit.Prepared) { p.Line = 3 },
		"id":      func(_ *submit.Bulk, p *submit.Prepared) { p.Message.ID = "other" },
		"machine": func(_ *submit.Bulk, p *submit.Prepared) { p.Message.MachineID = MachineOf(2) },
		"comment": func(_ *submit.Bulk, p *submit.Prepared) { p.Message.Comment = "other" },
		"ticket":  func(_ *submit.Bulk, p *submit.Prepared) { p.Message.Ticket = "T-1" },
		"signer":  signed("2026-11-24T18:00:00Z"),
		"rerun":   func(*submit.Bulk, *submit.Prepared) { again = 2 },
		"single":  func(b *submit.Bulk, _ *submit.Prepared) { b.Single = "row" },
		"another": func(b *submit.Bulk, _ *submit.Prepared) { b.Single = "row" },
	} {
		again = 0
		id := of(change)
		if other, twice := seen[id]; twice || len(id) != 32 {
			t.Errorf("another %s has the message id %q of %s", what, id, other)
		}
		seen[id] = what
	}
}
