package broker_test

import (
	"context"
	"fmt"
	"sync"
	"testing"

	"github.com/nats-io/nats-server/v2/server"
	"golang.org/x/sync/errgroup"

	"example.com/unrestrict-worker/internal/broker"
	"example.com/unrestrict-worker/internal/message"
	"example.com/unrestrict-worker/internal/remediation"
)

func order(t *testing.T, b *broker.Broker, payload string) {
	t.Helper()
	if _, err := b.JS().Publish(within(t), b.Names().ControlSubject, []byte(payload)); err != nil {
		t.Fatal(err)
	}
}

func cancelled(o *remediation.Orders, batch string) bool { return o.Batch(batch).Cancelled != nil }

// running runs something until the returned function is called, or the test ends.
func running(t *testing.T, run func(context.Context) error) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- run(ctx) }()
	stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(stop)
	return stop
}

// recording is what the replica that leads runs for orders.
func recording(c *broker.Control, record func(context.Context, message.Delivery) error) func(context.Context) error {
	return func(ctx context.Context) error {
		g, ctx := errgroup.WithContext(ctx)
		g.Go(func() error { return c.Run(ctx) })
		g.Go(func() error { return c.Record(ctx, record) })
		return g.Wait()
	}
}

// TestControlUnreadable: a replica knows at its start what was ordered, hears what comes, and knows when it does not.
func TestControlUnreadable(t *testing.T) {
	store := t.TempDir()
	b, s := provisioned(t, server.Options{JetStream: true, StoreDir: store})
	for n := range 600 { // more than one read takes
		order(t, b, fmt.Sprintf(`{"verb":"cancel","batch":"old%d"}`, n))
	}
	orders := &remediation.Orders{}
	control := b.NewControl(orders)
	if orders.Current(0) {
		t.Error("nothing is known before it is read")
	}
	if err := control.Read(within(t)); err != nil {
		t.Fatal(err)
	}
	if !orders.Current(0) || !cancelled(orders, "old0") || !cancelled(orders, "old599") || cancelled(orders, "new") {
		t.Error("what there is is not known")
	}
	running(t, control.Run)
	order(t, b, `{"verb":"cancel","batch":"new"}`)
	eventually(t, "the new order", func() bool { return cancelled(orders, "new") })

	port := s.Addr().String()
	stopServer(s)
	eventually(t, "a replica that does not know any more", func() bool { return !orders.Current(0) })
	if !cancelled(orders, "new") {
		t.Error("it forgot what it knew")
	}
	var number int
	_, _ = fmt.Sscanf(port, "127.0.0.1:%d", &number)
	runAgain(t, b, server.Options{JetStream: true, StoreDir: store, Port: number})
	eventually(t, "a replica that knows again", func() bool { return orders.Current(0) })
}

// TestControlMadeAnew: what was ordered stays in force when the stream is lost, and what comes into the new one counts.
func TestControlMadeAnew(t *testing.T) {
	b, _ := provisioned(t, server.Options{JetStream: true})
	orders := &remediation.Orders{}
	control := b.NewControl(orders)
	order(t, b, `{"verb":"cancel","batch":"first"}`)
	order(t, b, `{"verb":"cancel","batch":"second"}`)
	if err := control.Read(within(t)); err != nil {
		t.Fatal(err)
	}
	if err := b.JS().DeleteStream(within(t), b.Names().ControlStream); err != nil {
		t.Fatal(err)
	}
	if err := control.Read(within(t)); !broker.IsMissing(err) {
		t.Errorf("a stream that is not there: %v", err)
	}
	if err := b.Provision(within(t)); err != nil {
		t.Fatal(err)
	}
	order(t, b, `{"verb":"cancel","batch":"third"}`)
	if err := control.Read(within(t)); err != nil {
		t.Fatal(err)
	}
	for _, id := range []string{"first", "second", "third"} {
		if !cancelled(orders, id) {
			t.Errorf("%s is not known to be cancelled", id)
		}
	}
}

// TestOrdersAreRecordedOnce, whoever leads, and again what a crash came upon.
func TestOrdersAreRecordedOnce(t *testing.T) {
	b, _ := provisioned(t, server.Options{JetStream: true})
	var mu sync.Mutex
	seen := map[uint64]int{}
	count := func() int {
		mu.Lock()
		defer mu.Unlock()
		return len(seen)
	}
	record := func(_ context.Context, d message.Delivery) error {
		mu.Lock()
		defer mu.Unlock()
		seen[d.Sequence]++
		return nil
	}
	for _, want := range []int{3, 5} {
		control := b.NewControl(&remediation.Orders{})
		for range want - count() {
			order(t, b, `{"verb":"cancel","batch":"x"}`)
		}
		stop := running(t, recording(control, record))
		eventually(t, "all orders", func() bool { return count() == want })
		stop()
	}
	// One that could not be recorded is tried again, and those before it are not.
	order(t, b, `{"verb":"cancel","batch":"y"}`)
	order(t, b, `{"verb":"cancel","batch":"z"}`)
	refused := 0
	control := b.NewControl(&remediation.Orders{})
	running(t, recording(control, func(ctx context.Context, d message.Delivery) error {
		if d.Sequence == 7 && refused == 0 {
			refused++
			return context.DeadlineExceeded
		}
		return record(ctx, d)
	}))
	eventually(t, "the last two", func() bool { return count() == 7 })
	order(t, b, `{"verb":"cancel","batch":"later"}`)
	eventually(t, "one that comes later", func() bool { return count() == 8 })
	mu.Lock()
	defer mu.Unlock()
	for seq, n := range seen {
		if n != 1 {
			t.Errorf("order %d is recorded %d times", seq, n)
		}
	}
}
