package broker_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"example.com/unrestrict-worker/internal/broker"
	"example.com/unrestrict-worker/internal/message"
)

// teller is a Publisher of results with the stream that it publishes to.
type teller struct {
	*broker.Publisher
	broker *broker.Broker
	stream jetstream.Stream
}

// newTeller remembers message ids for window, or as long as the stream is made to.
func newTeller(t *testing.T, window time.Duration) teller {
	t.Helper()
	b := open(t, broker.Config{DataDir: t.TempDir(), SyncInterval: true, Provision: true})
	if window > 0 {
		if _, err := b.JS().CreateStream(within(t), jetstream.StreamConfig{Name: "REMEDIATION_RESULTS", Subjects: []string{"remediation.results"}, Duplicates: window}); err != nil {
			t.Fatal(err)
		}
	}
	if err := b.Provision(within(t)); err != nil {
		t.Fatal(err)
	}
	stream, err := b.JS().Stream(within(t), "REMEDIATION_RESULTS")
	if err != nil {
		t.Fatal(err)
	}
	return teller{b.NewPublisher(), b, stream}
}

// result is one that is told alike each time.
func result(id string) message.Result {
	return message.Result{RequestID: id, Run: 1, Outcome: message.Succeeded, Final: true, ReceivedAt: time.Date(2026, 11, 1, 0, 0, 0, 0, time.UTC)}
}

func (p teller) tell(t *testing.T, id string, since time.Time) {
	t.Helper()
	if err := p.Result(within(t), result(id), message.Trace{}, "", since); err != nil {
		t.Fatal(err)
	}
}

func (p teller) holds(t *testing.T, want uint64) {
	t.Helper()
	info, err := p.stream.Info(within(t))
	if err != nil || info.State.Msgs != want {
		t.Errorf("%d results, want %d (%v)", info.State.Msgs, want, err)
	}
}

// A result that the broker calls a duplicate is told once: not again if it is there, grew too old, or was deleted, but again
// if something else is there in its place.
func TestDuplicateIsBelievedOnlyOfWhatIsThere(t *testing.T) {
	p, now := newTeller(t, 0), time.Now()
	for _, id := range []string{"first", "second", "third", "second"} {
		p.tell(t, id, now)
	}
	p.holds(t, 3)
	if err := p.stream.DeleteMsg(within(t), 2); err != nil { // by an operator
		t.Fatal(err)
	}
	p.tell(t, "second", now)
	p.holds(t, 2)
	if err := p.stream.Purge(within(t), jetstream.WithPurgeSequence(2)); err != nil { // the first has grown too old
		t.Fatal(err)
	}
	p.tell(t, "first", now)
	if err := p.stream.DeleteMsg(within(t), 3); err != nil { // the last one, too
		t.Fatal(err)
	}
	p.tell(t, "third", now)
	p.holds(t, 0)

	if _, err := p.broker.JS().Publish(within(t), "remediation.results", []byte("{}"), jetstream.WithMsgID(result("fourth").MessageID())); err != nil {
		t.Fatal(err)
	}
	p.tell(t, "fourth", now)
	p.holds(t, 2)
}

// A broker that knows the id of a message that it never stored names a number that no message has come to.
func TestDuplicateOfWhatWasNeverStoredIsTold(t *testing.T) {
	p := newTeller(t, 0)
	cfg := p.stream.CachedInfo().Config
	cfg.Subjects = []string{"elsewhere"} // so that we answer in its place
	if _, err := p.broker.JS().UpdateStream(within(t), cfg); err != nil {
		t.Fatal(err)
	}
	ids := make(chan string, 10)
	sub, err := p.broker.Conn().Subscribe("remediation.results", func(m *nats.Msg) {
		ids <- m.Header.Get(jetstream.MsgIDHeader)
		_ = m.Respond(fmt.Appendf(nil, `{"stream":"REMEDIATION_RESULTS","seq":1,"duplicate":%v}`, len(ids) == 1))
	})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = sub.Unsubscribe() }()
	p.tell(t, "lost", time.Now())
	if len(ids) != 2 {
		t.Fatalf("told %d times", len(ids))
	}
	if first, second := <-ids, <-ids; first == second {
		t.Errorf("told twice as %s", first)
	}
}

// Past the time for which the stream remembers ids it is searched, however much there is, without a consumer, which would need a right to make one.
func TestSearchPastTheDuplicateWindow(t *testing.T) {
	const window, between = 100 * time.Millisecond, 2500
	p := newTeller(t, window)
	began := time.Now()
	p.tell(t, "first", began)
	for range between {
		if _, err := p.broker.JS().PublishAsync("remediation.results", []byte("{}"), jetstream.WithStallWait(time.Minute)); err != nil {
			t.Fatal(err)
		}
	}
	p.tell(t, "last", began)
	<-p.broker.JS().PublishAsyncComplete()
	time.Sleep(2 * window)
	created, err := p.broker.Conn().SubscribeSync("$JS.EVENT.ADVISORY.CONSUMER.CREATED.REMEDIATION_RESULTS.>")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = created.Unsubscribe() }()
	for _, id := range []string{"first", "last", "new"} {
		p.tell(t, id, began)
	}
	p.holds(t, between+3)
	if n, _, err := created.Pending(); n != 0 || err != nil {
		t.Errorf("%d consumers for three searches (%v)", n, err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := p.Result(ctx, result("given up"), message.Trace{}, "", began); !errors.Is(err, context.Canceled) {
		t.Errorf("a search whose caller has gone: %v", err)
	}
}
