package broker_test

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"go.uber.org/zap"

	"example.com/unrestrict-worker/internal/broker"
	"example.com/unrestrict-worker/internal/ledger"
	"example.com/unrestrict-worker/internal/message"
)

// TestQueueReadsEveryMessage: more than a batch, in order, as they were sent, beside a consumer and other subjects;
// whether somebody made the stream with direct reads or without.
func TestQueueReadsEveryMessage(t *testing.T) {
	const n = 600
	for _, direct := range []bool{true, false} {
		t.Run(fmt.Sprint("direct=", direct), func(t *testing.T) {
			s := runJetStream(t)
			js := client(t, s)
			if _, err := js.CreateStream(within(t), jetstream.StreamConfig{
				Name: "REMEDIATION", Subjects: []string{"remediation.unrestrict", "remediation.isolate"}, Retention: jetstream.WorkQueuePolicy, AllowDirect: direct,
			}); err != nil {
				t.Fatal(err)
			}
			b := open(t, broker.Config{URL: s.ClientURL(), Provision: true})
			if err := b.Provision(within(t)); err != nil {
				t.Fatal(err)
			}
			for i := range n {
				subject := "remediation.unrestrict"
				if i%3 == 0 {
					subject = "remediation.isolate"
				}
				msg := &nats.Msg{Subject: subject, Data: []byte{0, 0xff, byte(i)}, Header: nats.Header{"Nats-Sequence": {"7"}, "colour": {"red", fmt.Sprint(i)}}}
				if _, err := js.PublishMsgAsync(msg, jetstream.WithStallWait(time.Minute)); err != nil {
					t.Fatal(err)
				}
			}
			<-js.PublishAsyncComplete()
			i, count := 0, 0
			for m, err := range b.Queue(within(t)) {
				if err != nil {
					t.Fatal(err)
				}
				for i%3 == 0 {
					i++
				}
				want := broker.Message{
					Subject: "remediation.unrestrict", Sequence: uint64(i + 1), Time: m.Time, Data: []byte{0, 0xff, byte(i)},
					Header: message.Header{"Nats-Sequence": {"7"}, "colour": {"red", fmt.Sprint(i)}},
				}
				if diff := cmp.Diff(want, m); diff != "" {
					t.Fatal(diff)
				}
				if age := time.Since(m.Time); age < 0 || age > time.Minute {
					t.Fatalf("message of %s", m.Time)
				}
				i++
				count++
			}
			if count != n*2/3 {
				t.Errorf("%d messages, want %d", count, n*2/3)
			}
			for range b.Queue(within(t)) {
				break // ends it, and nothing is left waiting
			}
		})
	}
}

func TestDeadLettersAreTheWorkersAlone(t *testing.T) {
	s := runJetStream(t)
	b := open(t, broker.Config{URL: s.ClientURL(), Provision: true})
	read := func() (codes []string, err error) {
		for m, err := range b.DeadLetters(within(t)) {
			if err != nil {
				return codes, err
			}
			codes = append(codes, m.Header.Get(message.HeaderDeadReason))
		}
		return codes, nil
	}
	if _, err := read(); !broker.IsMissing(err) {
		t.Errorf("before there is a stream: %v", err)
	}
	if err := b.Provision(within(t)); err != nil {
		t.Fatal(err)
	}
	publisher := b.NewPublisher()
	for i, code := range []string{"gaveUp", "malformed", "expired"} {
		d := message.DeadLetter{
			Code: code, RequestID: code, Run: 1, Time: time.Now(),
			Delivery: message.Delivery{Stream: "REMEDIATION", Subject: "remediation.unrestrict", Sequence: uint64(i + 1), Published: time.Now(), Data: []byte{0xff}},
		}
		if err := publisher.DeadLetter(within(t), d, time.Now()); err != nil {
			t.Fatal(err)
		}
		if _, err := client(t, s).Publish(within(t), "remediation.deadletter", []byte("somebody else's")); err != nil {
			t.Fatal(err)
		}
	}
	if err := publisher.Drop(within(t), 3); err != nil {
		t.Fatal(err)
	}
	codes, err := read()
	if diff := cmp.Diff([]string{"gaveUp", "expired"}, codes); err != nil || diff != "" {
		t.Errorf("%v, %s", err, diff)
	}
}

func TestPauseNeedsTheStateBucketAlone(t *testing.T) {
	s := runJetStream(t)
	b, err := broker.Dial(within(t), broker.Config{URL: s.ClientURL()}, zap.NewNop())
	if err != nil {
		t.Fatal(err)
	}
	defer closeBroker(t, b)
	if _, err := b.OpenReplicas(within(t), false); !broker.IsMissing(err) {
		t.Errorf("a bucket that must not be made: %v", err)
	}
	for range 2 { // the second finds it there
		if _, err := b.OpenReplicas(within(t), true); err != nil {
			t.Fatal(err)
		}
	}
	var names []string
	for name := range client(t, s).StreamNames(within(t)).Name() {
		names = append(names, name)
	}
	if diff := cmp.Diff([]string{"KV_" + broker.StateBucket}, names); diff != "" {
		t.Error(diff)
	}
	replicas, err := b.OpenReplicas(within(t), false)
	if err != nil {
		t.Fatal(err)
	}
	if err := replicas.Pause(within(t), broker.Pause{Reason: "freeze", Since: time.Now()}); err != nil {
		t.Fatal(err)
	}
	// A worker that is given the rest later finds the bucket as it makes it, and the pause.
	worker := open(t, broker.Config{URL: s.ClientURL(), Provision: true})
	if err := worker.Provision(within(t)); err != nil {
		t.Fatal(err)
	}
	if d := worker.Differences(); d != nil {
		t.Errorf("differences: %v", d)
	}
	if o, err := worker.Overview(within(t), nil); err != nil || o.Pause == nil || o.Pause.Reason != "freeze" {
		t.Errorf("%v, %+v", err, o.Pause)
	}
}

func TestLedgerSearch(t *testing.T) {
	b := open(t, broker.Config{DataDir: t.TempDir(), Provision: true})
	store := b.NewLedger()
	if err := store.Search(within(t), nil); !broker.IsMissing(err) {
		t.Errorf("before there is a bucket: %v", err)
	}
	if _, err := store.Load(within(t), "e.d.id"); !broker.IsMissing(err) {
		t.Errorf("before there is a bucket: %v", err)
	}
	if err := b.Provision(within(t)); err != nil {
		t.Fatal(err)
	}
	found := map[string]bool{}
	search := func() {
		clear(found)
		if err := store.Search(within(t), func(e ledger.Entry) { found[e.ID] = true }); err != nil {
			t.Fatal(err)
		}
	}
	if search(); len(found) > 0 {
		t.Errorf("in an empty ledger: %v", found)
	}
	for _, id := range []string{"a", "b"} {
		key := ledger.EntryKey("REMEDIATION", message.Request{ID: id}, time.Time{})
		if _, err := store.Save(within(t), ledger.Write{Key: key, Value: fmt.Appendf(nil, `{"v":1,"state":"waiting","id":%q}`, id)}); err != nil {
			t.Fatal(err)
		}
	}
	other := ledger.EntryKey("ANOTHER", message.Request{ID: "c"}, time.Time{})
	if _, err := store.Save(within(t), ledger.Write{Key: other, Value: []byte(`{"v":1,"state":"waiting","id":"c"}`)}); err != nil {
		t.Fatal(err)
	}
	search()
	if diff := cmp.Diff(map[string]bool{"a": true, "b": true}, found); diff != "" {
		t.Error(diff)
	}
}

// warnings are what a server warns of.
type warnings struct {
	mu  sync.Mutex
	all []string
}

func (w *warnings) about(what string) []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.DeleteFunc(slices.Clone(w.all), func(line string) bool { return !strings.Contains(line, what) })
}

func (w *warnings) Warnf(format string, v ...any) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.all = append(w.all, fmt.Sprintf(format, v...))
}
func (w *warnings) Noticef(string, ...any) {}
func (w *warnings) Fatalf(string, ...any)  {}
func (w *warnings) Errorf(string, ...any)  {}
func (w *warnings) Debugf(string, ...any)  {}
func (w *warnings) Tracef(string, ...any)  {}

// TestPermissionsLeaveNoTrace: neither in a stream nor in the log of the server.
func TestPermissionsLeaveNoTrace(t *testing.T) {
	deny := &server.Permissions{Publish: &server.SubjectPermission{Deny: []string{"remediation.results", "$JS.API.CONSUMER.MSG.NEXT.>", "$KV.UNRESTRICT_LEDGER.>"}}}
	s := runServer(t, server.Options{JetStream: true, Users: []*server.User{{Username: "admin", Password: "p"}, {Username: "worker", Password: "p", Permissions: deny}}})
	said := &warnings{}
	s.SetLoggerV2(said, false, false, false)
	b, err := broker.Dial(within(t), broker.Config{URL: s.ClientURL(), Auth: broker.Auth{User: "worker", Password: "p"}}, zap.NewNop())
	if err != nil {
		t.Fatal(err)
	}
	defer closeBroker(t, b)
	verdicts := func(b *broker.Broker) (all []string) {
		for _, p := range b.Permissions() {
			verdict := "may"
			err := p.Try(within(t), b)
			if _, denied := errors.AsType[*broker.DeniedError](err); denied {
				verdict = "may not"
			} else if errors.Is(err, broker.ErrNotTestable) {
				verdict = "untried"
			} else if err != nil {
				t.Error(err)
			}
			all = append(all, fmt.Sprintf("%t %s", p.Own, verdict))
		}
		return all
	}
	if diff := cmp.Diff([]string{"true may not", "true may not", "true may not", "true may not", "true untried", "true untried", "true may not", "true untried", "true untried", "true untried", "false untried", "false untried", "false untried"}, verdicts(b)); diff != "" {
		t.Errorf("before there is anything: %s", diff)
	}
	admin := open(t, broker.Config{URL: s.ClientURL(), Auth: broker.Auth{User: "admin", Password: "p"}, Provision: true})
	if err := admin.Provision(within(t)); err != nil {
		t.Fatal(err)
	}
	if _, err := admin.Publish(within(t), message.LaneNormal, nil, []byte("a request that waits")); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"true may not", "true may not", "true may not", "true may not", "true may", "true may", "true may not", "true may", "true may", "true may", "false may", "false may", "false may"}, verdicts(b)); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff([]string{"true may", "true may", "true may", "true may", "true may", "true may", "true may", "true may", "true may", "true may", "false may", "false may", "false may"}, verdicts(admin)); diff != "" {
		t.Error(diff)
	}
	if all := said.about(".check"); len(all) > 0 {
		t.Errorf("the server logs %q", all)
	}
	for name, want := range map[string]uint64{"REMEDIATION": 1, "REMEDIATION_RESULTS": 0, "REMEDIATION_DEADLETTER": 0, "REMEDIATION_AUDIT": 0, "KV_UNRESTRICT_LEDGER": 1, "KV_UNRESTRICT_STATE": 1} { // which ledger there is, and since when
		stream, err := admin.JS().Stream(within(t), name)
		if err != nil {
			t.Fatal(err)
		}
		if n := stream.CachedInfo().State.LastSeq; n != want {
			t.Errorf("%s has %d messages, want %d", name, n, want)
		}
	}
	info, err := admin.Requests(message.LaneNormal).Info(within(t))
	if err != nil || info.NumAckPending != 0 || info.Delivered.Consumer != 0 {
		t.Errorf("the consumer was touched: %v, %+v", err, info)
	}
}
