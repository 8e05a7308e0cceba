package broker_test

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go/jetstream"

	"example.com/unrestrict-worker/internal/broker"
	"example.com/unrestrict-worker/internal/message"
	"example.com/unrestrict-worker/internal/remediation"
)

// controlStream is the control stream as others made it.
func controlStream(t *testing.T, b *broker.Broker, change func(*jetstream.StreamConfig)) jetstream.Stream {
	t.Helper()
	cfg := jetstream.StreamConfig{Name: b.Names().ControlStream, Subjects: []string{b.Names().ControlSubject}}
	change(&cfg)
	if err := b.JS().DeleteStream(within(t), cfg.Name); err != nil {
		t.Fatal(err)
	}
	s, err := b.JS().CreateStream(within(t), cfg)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// TestOrdersLost: orders that vanish before their time are missed by whoever starts later, until somebody answers that; those that
// have aged out are not.
func TestOrdersLost(t *testing.T) {
	for _, c := range []struct {
		name string
		set  func(*jetstream.StreamConfig)
		lose func(*testing.T, *broker.Broker, jetstream.Stream)
		want string // "": none are lost
	}{
		{"nothing", func(*jetstream.StreamConfig) {}, func(*testing.T, *broker.Broker, jetstream.Stream) {}, ""},
		{"made anew", func(*jetstream.StreamConfig) {}, func(t *testing.T, b *broker.Broker, _ jetstream.Stream) {
			controlStream(t, b, func(*jetstream.StreamConfig) {})
		}, "was deleted and recreated"},
		{"purged", func(*jetstream.StreamConfig) {}, func(t *testing.T, _ *broker.Broker, s jetstream.Stream) {
			if err := s.Purge(within(t)); err != nil {
				t.Fatal(err)
			}
		}, "taken out"},
		{"purged but for the latest", func(*jetstream.StreamConfig) {}, func(t *testing.T, _ *broker.Broker, s jetstream.Stream) {
			if err := s.Purge(within(t), jetstream.WithPurgeKeep(1)); err != nil {
				t.Fatal(err)
			}
		}, "taken out"},
		{"pushed out by a limit", func(c *jetstream.StreamConfig) { c.MaxMsgs = 2 }, func(t *testing.T, b *broker.Broker, _ jetstream.Stream) {
			order(t, b, `{"verb":"cancel","batch":"third"}`)
		}, "taken out"},
		{"aged out", func(c *jetstream.StreamConfig) { c.MaxAge = time.Second }, func(t *testing.T, _ *broker.Broker, s jetstream.Stream) {
			eventually(t, "its age", func() bool {
				info, err := s.Info(within(t))
				return err == nil && info.State.Msgs == 0
			})
		}, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			b, _ := provisioned(t, server.Options{JetStream: true})
			s := controlStream(t, b, c.set)
			order(t, b, `{"verb":"cancel","batch":"first"}`)
			order(t, b, `{"verb":"cancel","batch":"second"}`)
			recorded := make(chan string, 100)
			record := func(ctx context.Context, d message.Delivery) error {
				recorded <- string(d.Data)
				return ctx.Err()
			}
			lead := func() (stop func()) {
				control := b.NewControl(&remediation.Orders{})
				return running(t, recording(control, record))
			}
			stop := lead()
			<-recorded
			<-recorded
			stop()
			c.lose(t, b, s)

			orders := &remediation.Orders{}
			control := b.NewControl(orders)
			read := func() {
				t.Helper()
				if err := control.Read(within(t)); err != nil {
					t.Fatal(err)
				}
			}
			read()
			if got := orders.Lost(); (got == "") != (c.want == "") || !strings.Contains(got, c.want) || orders.Current(0) != (c.want == "") {
				t.Fatalf("lost: %q, current %t", got, orders.Current(0))
			}
			if c.want == "" {
				return
			}
			stop = lead() // whoever leads does not take the loss for the truth
			order(t, b, `{"verb":"cancel","batch":"again"}`)
			read()
			if orders.Lost() == "" || !cancelled(orders, "again") {
				t.Error("an order that is given again is not heard, or is taken for an answer")
			}
			if err := b.AcceptLostOrders(within(t)); err != nil {
				t.Fatal(err)
			}
			read()
			if orders.Lost() != "" || !orders.Current(0) {
				t.Errorf("it is answered, and lost: %q", orders.Lost())
			}
			for got := ""; !strings.Contains(got, "again"); {
				got = <-recorded // or the test's time is over
			}
			stop()
			later := &remediation.Orders{}
			if err := b.NewControl(later).Read(within(t)); err != nil || later.Lost() != "" || !cancelled(later, "again") {
				t.Errorf("who starts later: %v, %q", err, later.Lost())
			}
			controlStream(t, b, func(*jetstream.StreamConfig) {}) // one more loss is another
			if read(); orders.Lost() == "" {
				t.Error("an answer counts for a later loss")
			}
		})
	}
}
