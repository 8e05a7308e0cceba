package broker_test

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"iter"
	"net"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	gocmp "github.com/google/go-cmp/cmp"
	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go/jetstream"
	"go.uber.org/zap"

	"example.com/unrestrict-worker/internal/broker"
	"example.com/unrestrict-worker/internal/message"
)

// numbered are n messages, the first of them number 1.
func numbered(n int) iter.Seq2[broker.Outgoing, error] {
	return func(yield func(broker.Outgoing, error) bool) {
		for i := 1; i <= n; i++ {
			o := broker.Outgoing{
				Name: fmt.Sprintf("row %d", i), MessageID: fmt.Sprintf("id-%d", i),
				Header: message.Header{"Number": {fmt.Sprint(i)}}, Payload: fmt.Appendf(nil, "%d", i),
			}
			if !yield(o, nil) {
				return
			}
		}
	}
}

// provisioned is a broker with the worker's streams on a server of its own.
func provisioned(t *testing.T, opts server.Options) (*broker.Broker, *server.Server) {
	t.Helper()
	opts.JetStream = true
	s := runServer(t, opts)
	b := open(t, broker.Config{URL: s.ClientURL(), Provision: true})
	if err := b.Provision(within(t)); err != nil {
		t.Fatal(err)
	}
	return b, s
}

// kept are the payloads in the request stream, in order.
func kept(t *testing.T, b *broker.Broker) (payloads []string) {
	t.Helper()
	s, err := b.JS().Stream(within(t), b.Names().Stream)
	if err != nil {
		t.Fatal(err)
	}
	for seq := uint64(1); seq <= s.CachedInfo().State.LastSeq; seq++ {
		m, err := s.GetMsg(within(t), seq)
		if err != nil {
			t.Fatal(err)
		}
		payloads = append(payloads, string(m.Data))
	}
	return payloads
}

func payloads(n int) (all []string) {
	for i := 1; i <= n; i++ {
		all = append(all, fmt.Sprint(i))
	}
	return all
}

// tally counts what was stored, and what of it had been there already.
type tally struct{ stored, duplicates int }

func (c *tally) count(s broker.Stored) {
	c.stored++
	if s.Duplicate {
		c.duplicates++
	}
}

func TestPublishAllOnceInOrder(t *testing.T) {
	b, _ := provisioned(t, server.Options{})
	const n = 1000 // several times what is under way at once
	var seqs []uint64
	if err := b.PublishAll(within(t), numbered(n), func(s broker.Stored) { seqs = append(seqs, s.Sequence) }); err != nil {
		t.Fatal(err)
	}
	for i, seq := range seqs {
		if seq != uint64(i+1) {
			t.Fatalf("message %d was told as sequence %d", i+1, seq)
		}
	}
	var again tally
	if err := b.PublishAll(within(t), numbered(n+1), again.count); err != nil {
		t.Fatal(err)
	}
	if want := (tally{stored: n + 1, duplicates: n}); again != want {
		t.Errorf("again: %+v, want %+v", again, want)
	}
	if diff := gocmp.Diff(payloads(n+1), kept(t, b)); diff != "" {
		t.Error(len(diff), diff[:min(len(diff), 600)])
	}
	msgs, err := b.Latest(within(t), b.Names().Stream, 1)
	if err != nil || msgs[0].Header.Get("Number") != fmt.Sprint(n+1) {
		t.Errorf("the headers did not come along: %v, %v", msgs, err)
	}
}

func TestPublishAllToAFullStream(t *testing.T) {
	b, s := provisioned(t, server.Options{})
	js := client(t, s)
	limit := func(n int64) {
		stream, err := js.Stream(within(t), b.Names().Stream)
		if err != nil {
			t.Fatal(err)
		}
		cfg := stream.CachedInfo().Config
		cfg.MaxMsgs = n
		if _, err := js.UpdateStream(within(t), cfg); err != nil {
			t.Fatal(err)
		}
	}
	limit(5)
	var first tally
	err := b.PublishAll(within(t), numbered(600), first.count)
	wantError(t, err, "row 6", "REMEDIATION is full", "wait until the worker")
	var unpublished *broker.UnpublishedError
	if !errors.As(err, &unpublished) || unpublished.Name != "row 6" || first.stored != 5 {
		t.Errorf("got %#v after %d", err, first.stored)
	}
	limit(-1)
	if err := b.PublishAll(within(t), numbered(600), new(tally).count); err != nil {
		t.Fatal(err)
	}
	if diff := gocmp.Diff(payloads(600), kept(t, b)); diff != "" {
		t.Error(len(diff), diff[:min(len(diff), 600)])
	}
}

func TestPublishAllWithoutAStream(t *testing.T) {
	b := open(t, broker.Config{URL: runJetStream(t).ClientURL()})
	wantError(t, b.PublishAll(within(t), numbered(3), new(tally).count), "row 1", "remediation.unrestrict", "worker run", "WORKER_SUBJECT")
}

func TestPublishAllDenied(t *testing.T) {
	admin := &server.User{Username: "admin", Password: "a"}
	guest := &server.User{Username: "guest", Password: "g", Permissions: &server.Permissions{
		Publish: &server.SubjectPermission{Deny: []string{"remediation.unrestrict"}},
	}}
	s := runServer(t, server.Options{JetStream: true, Users: []*server.User{admin, guest}})
	owner := open(t, broker.Config{URL: s.ClientURL(), Auth: broker.Auth{User: "admin", Password: "a"}, Provision: true})
	if err := owner.Provision(within(t)); err != nil {
		t.Fatal(err)
	}
	b := open(t, broker.Config{URL: s.ClientURL(), Auth: broker.Auth{User: "guest", Password: "g"}})
	err := b.PublishAll(within(t), numbered(3), new(tally).count)
	wantError(t, err, "row 1", "denies", "remediation.unrestrict")
	if _, ok := errors.AsType[*broker.DeniedError](err); !ok {
		t.Errorf("got %#v", err)
	}
}

// TestFollowDenied: who may not read hears so at once.
func TestFollowDenied(t *testing.T) {
	guest := &server.User{Username: "guest", Password: "g", Permissions: &server.Permissions{
		Publish: &server.SubjectPermission{Allow: []string{"remediation.unrestrict"}},
	}}
	s := runServer(t, server.Options{JetStream: true, Users: []*server.User{guest}})
	b := open(t, broker.Config{URL: s.ClientURL(), Auth: broker.Auth{User: "guest", Password: "g"}})
	err := b.Follow(within(t), "REMEDIATION_RESULTS", broker.FollowOptions{ToPresent: true}, func(broker.Message) error { return nil })
	if _, ok := errors.AsType[*broker.DeniedError](err); !ok {
		t.Errorf("got %#v", err)
	}
}

// TestPublishAllInterrupted: what was told as stored is, nothing else is sent, and a second run doubles nothing.
func TestPublishAllInterrupted(t *testing.T) {
	b, _ := provisioned(t, server.Options{})
	ctx, cancel := context.WithCancel(within(t))
	var first tally
	err := b.PublishAll(ctx, numbered(2000), func(s broker.Stored) {
		if first.count(s); first.stored == 700 {
			cancel()
		}
	})
	if !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
	if n := len(kept(t, b)); n != first.stored || n == 2000 {
		t.Errorf("told of %d, stored are %d", first.stored, n)
	}
	var second tally
	if err := b.PublishAll(within(t), numbered(2000), second.count); err != nil {
		t.Fatal(err)
	}
	if want := (tally{stored: 2000, duplicates: first.stored}); second != want {
		t.Errorf("second run: %+v, want %+v", second, want)
	}
	if diff := gocmp.Diff(payloads(2000), kept(t, b)); diff != "" {
		t.Error(len(diff), diff[:min(len(diff), 600)])
	}
}

func TestPublishAllEndsWithItsRequests(t *testing.T) {
	b, _ := provisioned(t, server.Options{})
	fault := errors.New("the file is gone")
	broken := func(yield func(broker.Outgoing, error) bool) {
		for o := range numbered(3) {
			if !yield(o, nil) {
				return
			}
		}
		yield(broker.Outgoing{}, fault)
	}
	var seen tally
	if err := b.PublishAll(within(t), broken, seen.count); !errors.Is(err, fault) || seen.stored != 3 {
		t.Errorf("%v after %d", err, seen.stored)
	}
}

// TestPublishAllOverARestart: the broker goes away in the middle and comes back with its store.
func TestPublishAllOverARestart(t *testing.T) {
	store := t.TempDir()
	b, s := provisioned(t, server.Options{StoreDir: store, SyncAlways: true})
	port := s.Addr().(*net.TCPAddr).Port
	restarted := make(chan struct{})
	var seen tally
	err := b.PublishAll(within(t), numbered(1000), func(st broker.Stored) {
		if seen.count(st); seen.stored == 300 {
			go func() {
				defer close(restarted)
				stopServer(s)
				runAgain(t, b, server.Options{JetStream: true, StoreDir: store, SyncAlways: true, Port: port})
			}()
		}
	})
	<-restarted
	if err != nil {
		t.Fatal(err)
	}
	got := kept(t, b)
	slices.SortFunc(got, func(a, b string) int { return cmp.Or(len(a)-len(b), strings.Compare(a, b)) }) // what was under way may have changed places
	if diff := gocmp.Diff(payloads(1000), got); diff != "" {
		t.Error(len(diff), diff[:min(len(diff), 600)])
	}
}

func TestTaken(t *testing.T) {
	for _, retention := range []jetstream.RetentionPolicy{jetstream.WorkQueuePolicy, jetstream.LimitsPolicy} {
		s := runJetStream(t)
		js := client(t, s)
		if _, err := js.CreateStream(within(t), jetstream.StreamConfig{Name: "REMEDIATION", Subjects: []string{"remediation.unrestrict"}, Retention: retention}); err != nil {
			t.Fatal(err)
		}
		b := open(t, broker.Config{URL: s.ClientURL(), Provision: true})
		if err := b.Provision(within(t)); err != nil {
			t.Fatal(err)
		}
		var seqs []uint64
		if err := b.PublishAll(within(t), numbered(4), func(s broker.Stored) { seqs = append(seqs, s.Sequence) }); err != nil {
			t.Fatal(err)
		}
		taken := func() int {
			n, err := b.Acked(within(t), message.LaneNormal, seqs)
			if err != nil {
				t.Error(err)
			}
			return n
		}
		batch, err := b.Requests(message.LaneNormal).Fetch(4, jetstream.FetchMaxWait(10*time.Second))
		if err != nil {
			t.Fatal(err)
		}
		var msgs []jetstream.Msg
		for m := range batch.Messages() {
			msgs = append(msgs, m)
		}
		if len(msgs) != 4 || taken() != 0 {
			t.Fatalf("%v: %d messages, %d taken", retention, len(msgs), taken())
		}
		for _, step := range []struct{ ack, taken int }{{1, 0}, {0, 2}, {2, 3}, {3, 4}} {
			if err := msgs[step.ack].DoubleAck(within(t)); err != nil {
				t.Fatal(err)
			}
			eventually(t, fmt.Sprintf("%v: %d to be taken", retention, step.taken), func() bool { return taken() == step.taken })
		}
	}
}

// BenchmarkPublishAll publishes 10,000 requests each time and reports what the heap grew by meanwhile at the most.
func BenchmarkPublishAll(b *testing.B) {
	br, err := broker.Open(b.Context(), broker.Config{DataDir: b.TempDir(), Provision: true, SyncInterval: true}, zap.NewNop())
	if err != nil {
		b.Fatal(err)
	}
	defer func() { _ = br.Close(b.Context()) }()
	if err := br.Provision(b.Context()); err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		before, most, n := heap(), uint64(0), 0
		err := br.PublishAll(b.Context(), numbered(10_000), func(broker.Stored) {
			if n++; n%2000 == 0 {
				most = max(most, heap())
			}
		})
		if err != nil {
			b.Fatal(err)
		}
		b.ReportMetric(float64(int64(most)-int64(before))/(1<<20), "heap-MiB")
	}
}

func heap() uint64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}
