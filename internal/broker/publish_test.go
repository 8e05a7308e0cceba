package broker_test

import (
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"example.com/unrestrict-worker/internal/broker"
	"example.com/unrestrict-worker/internal/remediation"
)

// A result that the broker calls a duplicate is there once: one that is there, or grew too old, is not told again, and one
// that is not there is.
func TestDuplicateIsBelievedOnlyOfWhatIsThere(t *testing.T) {
	b := open(t, broker.Config{DataDir: t.TempDir(), Provision: true})
	if err := b.Provision(within(t)); err != nil {
		t.Fatal(err)
	}
	stream, err := b.JS().Stream(within(t), "REMEDIATION_RESULTS")
	if err != nil {
		t.Fatal(err)
	}
	publisher, now := b.NewPublisher(), time.Now()
	tell := func(id string) {
		t.Helper()
		r := remediation.Result{RequestID: id, Run: 1, Outcome: remediation.Succeeded, Final: true, ReceivedAt: now}
		if err := publisher.Result(within(t), r, remediation.Trace{}, "", now); err != nil {
			t.Fatal(err)
		}
	}
	holds := func(want uint64) {
		t.Helper()
		info, err := stream.Info(within(t))
		if err != nil || info.State.Msgs != want {
			t.Errorf("%d results, want %d (%v)", info.State.Msgs, want, err)
		}
	}
	for _, id := range []string{"first", "second", "third", "second"} {
		tell(id)
	}
	holds(3)
	if err := stream.DeleteMsg(within(t), 2); err != nil { // as if the broker had never stored it
		t.Fatal(err)
	}
	tell("second")
	holds(3)
	if err := stream.Purge(within(t), jetstream.WithPurgeSequence(2)); err != nil { // the first has grown too old
		t.Fatal(err)
	}
	tell("first")
	holds(2)
}
