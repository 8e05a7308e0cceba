package broker_test

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"example.com/unrestrict-worker/internal/broker"
	"example.com/unrestrict-worker/internal/message"
)

// A stream that others made is left without lanes: normal works, the command that adds the others is named, and a publisher
// on one of those hears that nothing takes it. Once they are there, so are their consumers.
func TestLanesOfAForeignStream(t *testing.T) {
	s := runJetStream(t)
	js := client(t, s)
	cfg := jetstream.StreamConfig{Name: "REMEDIATION", Subjects: []string{"remediation.unrestrict"}, Storage: jetstream.FileStorage}
	if _, err := js.CreateStream(within(t), cfg); err != nil {
		t.Fatal(err)
	}
	b := open(t, broker.Config{URL: s.ClientURL(), Provision: true})
	if err := b.Provision(within(t)); err != nil {
		t.Fatal(err)
	}
	const command = "nats stream edit REMEDIATION --subjects remediation.unrestrict,remediation.unrestrict.urgent,remediation.unrestrict.bulk"
	if named := strings.Join(b.Differences(), "\n"); !strings.Contains(named, command) {
		t.Errorf("differences %s\nwant %q among them", named, command)
	}
	if b.Requests(message.LaneNormal) == nil || b.Requests(message.LaneUrgent) != nil || b.Requests(message.LaneBulk) != nil {
		t.Error("not normal alone is taken")
	}
	if _, err := b.Publish(within(t), message.LaneUrgent, nil, []byte("{}")); !errors.Is(err, broker.ErrNoLane) || !strings.Contains(err.Error(), "remediation.unrestrict.urgent") {
		t.Errorf("published on a lane that is not there: %v", err)
	}
	cfg.Subjects = []string{"remediation.unrestrict", "remediation.unrestrict.urgent", "remediation.unrestrict.bulk"}
	if _, err := js.UpdateStream(within(t), cfg); err != nil {
		t.Fatal(err)
	}
	if err := b.Provision(within(t)); err != nil {
		t.Fatal(err)
	}
	for _, l := range message.Lanes() {
		if b.Requests(l) == nil {
			t.Errorf("no consumer of %s", l)
		}
	}
}

// A stream that this program made is marked, and gets what a lane lacks; one that somebody else made by the printed settings
// has no mark.
func TestLanesAreAddedToAnOwnStream(t *testing.T) {
	s := runJetStream(t)
	js := client(t, s)
	b := open(t, broker.Config{URL: s.ClientURL(), Provision: true})
	if err := b.Provision(within(t)); err != nil {
		t.Fatal(err)
	}
	stream, err := js.Stream(within(t), "REMEDIATION")
	if err != nil {
		t.Fatal(err)
	}
	cfg := stream.CachedInfo().Config
	if err := stream.DeleteConsumer(within(t), "unrestrict-worker-bulk"); err != nil {
		t.Fatal(err)
	}
	cfg.Subjects = []string{"remediation.unrestrict", "remediation.unrestrict.urgent"}
	if _, err := js.UpdateStream(within(t), cfg); err != nil {
		t.Fatal(err)
	}
	if err := b.Provision(within(t)); err != nil {
		t.Fatal(err)
	}
	if stream, err = js.Stream(within(t), "REMEDIATION"); err != nil || !slices.Contains(stream.CachedInfo().Config.Subjects, "remediation.unrestrict.bulk") {
		t.Errorf("subjects %v, %v", stream.CachedInfo().Config.Subjects, err)
	}
	if b.Requests(message.LaneBulk) == nil || len(b.Differences()) > 0 {
		t.Errorf("bulk is not taken; differences %q", b.Differences())
	}

	var missing *broker.MissingError
	if err := open(t, broker.Config{URL: runJetStream(t).ClientURL()}).Provision(within(t)); !errors.As(err, &missing) || strings.Contains(missing.Error(), "made-by") {
		t.Errorf("the settings that are printed bear the mark: %v", err)
	}
}

// What waits is told by lane, with the age of its oldest.
func TestOverviewByLane(t *testing.T) {
	s := runJetStream(t)
	b := open(t, broker.Config{URL: s.ClientURL(), Provision: true})
	if err := b.Provision(within(t)); err != nil {
		t.Fatal(err)
	}
	want := map[message.Lane]int{message.LaneUrgent: 1, message.LaneNormal: 0, message.LaneBulk: 3}
	for l, n := range want {
		for range n {
			if _, err := b.Publish(within(t), l, nil, []byte("{}")); err != nil {
				t.Fatal(err)
			}
		}
	}
	if msg, err := b.Requests(message.LaneBulk).Next(jetstream.FetchMaxWait(5 * time.Second)); err != nil || msg.DoubleAck(within(t)) != nil {
		t.Fatal(err)
	}
	want[message.LaneBulk] = 2
	o, err := b.Overview(within(t), nil)
	if err != nil {
		t.Fatal(err)
	}
	for l, n := range want {
		if got := o.Lanes[l]; got.Pending != n || got.Oldest.IsZero() != (n == 0) {
			t.Errorf("%s: %+v, want %d", l, got, n)
		}
	}
	if o.Pending != 3 || o.Oldest.IsZero() {
		t.Errorf("%d pending since %v", o.Pending, o.Oldest)
	}
}
