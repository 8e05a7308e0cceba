package broker_test

import (
	"bufio"
	"fmt"
	"net"
	"slices"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go/jetstream"

	"example.com/unrestrict-worker/internal/broker"
	"example.com/unrestrict-worker/internal/broker/trail"
	"example.com/unrestrict-worker/internal/ledger"
	"example.com/unrestrict-worker/internal/message"
)

// publishRaw stores an empty message whose header block no client library would write.
func publishRaw(t *testing.T, s *server.Server, subject, block string) {
	t.Helper()
	conn, err := net.Dial("tcp", s.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	if _, err := fmt.Fprintf(conn, "CONNECT {\"verbose\":false,\"headers\":true}\r\nHPUB %s %d %d\r\n%s\r\nPING\r\n", subject, len(block), len(block), block); err != nil {
		t.Fatal(err)
	}
	for lines := bufio.NewScanner(conn); lines.Scan(); {
		if lines.Text() == "PONG" {
			return
		}
	}
	t.Fatal("the broker did not take the message")
}

// hostileBlocks look like answers of JetStream, name places that are not theirs, or can't be read.
func hostileBlocks(subject string) (blocks []string) {
	for _, answer := range []string{"404 No Messages", "408 Request Timeout", "204 EOB", "503", "409 Consumer Deleted", "100 Idle Heartbeat", "413 Too Many"} {
		blocks = append(blocks, "NATS/1.0 "+answer+"\r\n\r\n", "NATS/1.0 "+answer+"\r\n\r\nX: y\r\n\r\n",
			fmt.Sprintf("NATS/1.0\r\nStatus: %.3s\r\nDescription: %s\r\n\r\n", answer, answer), fmt.Sprintf("NATS/1.0\r\nstatus: %.3s\r\nSTATUS: %.3s\r\n\r\n", answer, answer))
	}
	place := "\r\nNats-Stream: REMEDIATION\r\nNats-Subject: " + subject + "\r\nNats-Time-Stamp: 2026-11-01T00:00:00Z\r\n\r\n"
	for _, later := range []string{"1", "1000", "18446744073709551615", "x"} {
		blocks = append(blocks, "NATS/1.0\r\nNats-Sequence: "+later+"\r\n\r\n", "NATS/1.0\r\nNats-Sequence: "+later+place+"X: y\r\n\r\n",
			"NATS/1.0\r\nNats-Sequence: "+later+place+"X: y\r\n\r\n", "NATS/1.0 204 EOB\r\nNats-Num-Pending: 0\r\nNats-Last-Sequence: "+later+"\r\n\r\nX: y\r\n\r\n")
	}
	return append(blocks, "garbage!", "NATS/1.0 4\r\n\r\n", "NATS/1.0\r\nno colon\r\n\r\n", "NATS/1.0\r\n\r\n", "NATS/1.0\r\nNats-Pin-Id: x\r\nNats-Num-Pending: 7\r\n\r\n")
}

// What publishers write into headers hides no message from those who read: neither the message itself nor one behind it.
func TestHostileHeadersHideNothing(t *testing.T) {
	for _, direct := range []bool{true, false} {
		t.Run(fmt.Sprint("direct=", direct), func(t *testing.T) {
			s := runJetStream(t)
			b := open(t, broker.Config{URL: s.ClientURL(), Provision: true})
			for _, name := range []string{"REMEDIATION", "REMEDIATION_DEADLETTER"} {
				subject := map[string]string{"REMEDIATION": b.Names().Subject, "REMEDIATION_DEADLETTER": b.Names().DeadletterSubject}[name]
				cfg := jetstream.StreamConfig{Name: name, Subjects: []string{subject}, AllowDirect: direct}
				if name == "REMEDIATION" {
					cfg.Retention = jetstream.WorkQueuePolicy
				}
				if _, err := b.JS().CreateStream(within(t), cfg); err != nil {
					t.Fatal(err)
				}
				for _, block := range hostileBlocks(subject) {
					publishRaw(t, s, subject, block)
				}
				if _, err := b.JS().Publish(within(t), subject, []byte("last")); err != nil {
					t.Fatal(err)
				}
			}
			if err := b.Provision(within(t)); err != nil {
				t.Fatal(err)
			}
			seesAll(t, b, uint64(len(hostileBlocks(""))+1))
		})
	}
}

func seesAll(t *testing.T, b *broker.Broker, n uint64) {
	t.Helper()
	var want, queued, followed, latest []uint64
	for seq := uint64(1); seq <= n; seq++ {
		want = append(want, seq)
	}
	for m, err := range b.Queue(within(t)) {
		if err != nil {
			t.Fatal(err)
		}
		queued = append(queued, m.Sequence)
	}
	since := broker.FollowOptions{ToPresent: true, Since: time.Now().Add(-time.Hour)}
	if err := b.Follow(within(t), "REMEDIATION_DEADLETTER", since, func(m broker.Message) error {
		followed = append(followed, m.Sequence)
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	messages, err := b.Latest(within(t), "REMEDIATION_DEADLETTER", int(n))
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range messages {
		latest = append(latest, m.Sequence)
	}
	slices.Reverse(latest)
	for how, got := range map[string][]uint64{"queued": queued, "followed": followed, "latest": latest} {
		if !slices.Equal(got, want) {
			t.Errorf("%s: %v, want 1 to %d", how, got, n)
		}
	}
	p := b.NewPublisher()
	for _, seq := range want {
		if _, _, found, err := p.Load(within(t), seq); err != nil || !found {
			t.Errorf("dead letter %d: found %v, %v", seq, found, err)
		}
		if waits, err := p.Unacked(within(t), fmt.Sprint("REMEDIATION:", seq)); err != nil || !waits {
			t.Errorf("request %d waits: %v, %v", seq, waits, err)
		}
	}
	if _, _, found, err := p.Load(within(t), n+1); err != nil || found {
		t.Errorf("a dead letter that is not there: %v, %v", found, err)
	}
	if waits, err := p.Unacked(within(t), "NONE:1"); err != nil || waits {
		t.Errorf("a message of no stream: %v, %v", waits, err)
	}
}

// Records are written and read behind messages that look like answers of JetStream.
func TestHostileHeadersStopNoRecord(t *testing.T) {
	s := runJetStream(t)
	b := open(t, broker.Config{URL: s.ClientURL(), Provision: true})
	if err := b.Provision(within(t)); err != nil {
		t.Fatal(err)
	}
	var seen []uint64
	for i, block := range hostileBlocks(broker.AuditSubject) {
		publishRaw(t, s, broker.AuditSubject, block)
		if err := b.NewAuditor(fmt.Sprint(i)).Record(within(t), ledger.AuditRecord{Kind: ledger.AuditRefused}); err != nil {
			t.Fatalf("behind %q: %v", block, err)
		}
	}
	stream, err := b.OpenAuditTrail(within(t))
	if err != nil {
		t.Fatal(err)
	}
	if err := stream.Each(within(t), time.Time{}, func(m trail.Message) error {
		seen = append(seen, m.Sequence)
		data, err := stream.Payload(within(t), m.Sequence)
		if string(data) != string(m.Data) {
			t.Errorf("record %d: %q, by itself %q", m.Sequence, m.Data, data)
		}
		return err
	}); err != nil {
		t.Fatal(err)
	}
	if want := 3 * len(hostileBlocks("")); len(seen) != want { // each with a record, and one before it that opens its chain
		t.Errorf("%d of %d messages of the trail were read: %v", len(seen), want, seen)
	}
}

// A result whose headers look like an answer of JetStream is found past the stream's duplicate window.
func TestSearchPassesHostileHeaders(t *testing.T) {
	s := runJetStream(t)
	b := open(t, broker.Config{URL: s.ClientURL(), Provision: true})
	const window = 100 * time.Millisecond
	if _, err := b.JS().CreateStream(within(t), jetstream.StreamConfig{Name: "REMEDIATION_RESULTS", Subjects: []string{"remediation.results"}, AllowDirect: true, Duplicates: window}); err != nil {
		t.Fatal(err)
	}
	if err := b.Provision(within(t)); err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	for _, block := range hostileBlocks("remediation.results") {
		publishRaw(t, s, "remediation.results", block)
	}
	p := b.NewPublisher()
	for range 2 {
		if err := p.Result(within(t), result("r"), message.Trace{}, "", began); err != nil {
			t.Fatal(err)
		}
		time.Sleep(2 * window)
	}
	stream, err := b.JS().Stream(within(t), "REMEDIATION_RESULTS")
	if err != nil {
		t.Fatal(err)
	}
	if got, want := stream.CachedInfo().State.Msgs, uint64(len(hostileBlocks(""))+1); got != want {
		t.Errorf("%d results, want %d: the last one once", got, want)
	}
}
