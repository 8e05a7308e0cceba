package consumer_test

import (
	"bufio"
	"context"
	"fmt"
	"net"
	"slices"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"go.uber.org/zap"

	"example.com/unrestrict-worker/internal/broker"
	"example.com/unrestrict-worker/internal/consumer"
	"example.com/unrestrict-worker/internal/message"
	"example.com/unrestrict-worker/internal/remediation"
)

// jetStreamHeaders are those that JetStream or the client library use for answers of their own.
func jetStreamHeaders() (all []nats.Header) {
	for _, answer := range [][2]string{
		{"404", "No Messages"},
		{"408", "Request Timeout"},
		{"409", "Consumer Deleted"},
		{"409", "Leadership Change"},
		{"503", ""},
		{"100", "Idle Heartbeat"},
		{"100", "FlowControl Request"},
		{"423", "Nats-Wrong-Pin-Id"},
		{"400", "Bad Request"},
	} {
		all = append(all, nats.Header{"Status": {answer[0]}, "Description": {answer[1]}})
	}
	for _, name := range []string{"Nats-Pin-Id", "Nats-Pending-Messages", "Nats-Last-Consumer", "Nats-Consumer-Stalled", "Nats-Sequence", "Reply-To", "status"} {
		all = append(all, nats.Header{name: {"1"}})
	}
	return all
}

// What a publisher writes into the headers is data: every message is handed over, once, and holds up no other.
func TestHeadersAreNoAnswersOfJetStream(t *testing.T) {
	for name, payload := range map[string]string{"empty": "", "with a payload": "{}"} {
		t.Run(name, func(t *testing.T) {
			inBench(t, func(b *bench) {
				var seqs []uint64
				for range 10 {
					for _, h := range jetStreamHeaders() {
						seqs = append(seqs, b.publish(payload, message.Header(h)))
					}
				}
				b.start(consumer.Config{Slots: 4}, b.handle(func(message.Delivery) message.Outcome { return message.Done() }))
				b.passes(time.Second)
				b.wantPending(0)
				var got []uint64
				for _, d := range b.deliveries() {
					got = append(got, d.Sequence)
				}
				slices.Sort(got)
				if !slices.Equal(got, seqs) {
					t.Errorf("%d deliveries of %d messages: %v", len(got), len(seqs), got)
				}
			})
		})
	}
}

// A message whose header block no client can read is handed over without headers, and one whose status stands in the
// block's first line as any other.
func TestUnreadableHeadersAreNone(t *testing.T) {
	opts := server.Options{Host: "127.0.0.1", Port: server.RANDOM_PORT, NoSigs: true, NoLog: true, JetStream: true, StoreDir: t.TempDir()}
	s, err := server.NewServer(&opts)
	must(t, err)
	s.Start()
	defer func() { s.Shutdown(); s.WaitForShutdown() }()
	b, err := broker.Open(t.Context(), broker.Config{URL: s.ClientURL(), Provision: true}, zap.NewNop())
	must(t, err)
	defer func() { must(t, b.Close(context.Background())) }()
	must(t, b.Provision(t.Context()))
	blocks := []string{"garbage!", "NATS/1.0 40\r\n\r\n", "NATS/1.0\r\nno colon\r\n\r\n", "NATS/1.0 409 Consumer Deleted\r\n\r\n", "NATS/1.0 404\r\n\r\nX: y\r\n\r\n"}
	for _, block := range blocks {
		publishRaw(t, s.Addr().String(), b.Names().Subject, block)
	}
	handled := make(chan message.Delivery)
	c := consumer.New(consumer.Config{
		Open: b.OpenRequests, Conn: b.Conn(), Breaker: remediation.NewBreaker(time.Second, time.Minute), Slots: 1, AckWait: ackWait, Grace: grace, Log: zap.NewNop(),
		Handler: func(_, _ context.Context, d message.Delivery) message.Outcome {
			handled <- d
			return message.Done()
		},
	})
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- c.Run(ctx) }()
	for i := range blocks {
		if d := <-handled; d.Sequence != uint64(i+1) || d.Attempt != 1 || len(d.Data) != 0 {
			t.Errorf("delivery %d: %+v", i, d)
		}
	}
	stop()
	must(t, <-ended)
}

// publishRaw publishes an empty message whose header block no client library would write.
func publishRaw(t *testing.T, addr, subject, block string) {
	t.Helper()
	conn, err := net.Dial("tcp", addr)
	must(t, err)
	defer func() { _ = conn.Close() }()
	_, err = fmt.Fprintf(conn, "CONNECT {\"verbose\":false,\"headers\":true}\r\nHPUB %s %d %d\r\n%s\r\nPING\r\n", subject, len(block), len(block), block)
	must(t, err)
	for lines := bufio.NewScanner(conn); lines.Scan(); {
		if lines.Text() == "PONG" {
			return
		}
	}
	t.Fatal("the broker did not take the message")
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
