package broker_test

import (
	"encoding/json"
	"errors"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go/jetstream"
	"golang.org/x/sync/errgroup"

	"example.com/unrestrict-worker/internal/broker"
	"example.com/unrestrict-worker/internal/message"
)

var ownStreams = []string{"KV_UNRESTRICT_LEDGER", "KV_UNRESTRICT_STATE", "REMEDIATION", "REMEDIATION_AUDIT", "REMEDIATION_CONTROL", "REMEDIATION_DEADLETTER", "REMEDIATION_RESULTS"}

// setup is all the settings on a server, by stream name and STREAM/CONSUMER.
func setup(t *testing.T, js jetstream.JetStream) map[string]any {
	t.Helper()
	all := map[string]any{}
	streams := js.ListStreams(within(t))
	for s := range streams.Info() {
		all[s.Config.Name] = s.Config
		stream, err := js.Stream(within(t), s.Config.Name)
		if err != nil {
			t.Fatal(err)
		}
		consumers := stream.ListConsumers(within(t))
		for c := range consumers.Info() {
			all[s.Config.Name+"/"+c.Name] = c.Config
		}
		if consumers.Err() != nil {
			t.Fatal(consumers.Err())
		}
	}
	if streams.Err() != nil {
		t.Fatal(streams.Err())
	}
	return all
}

var noMetadata = cmp.Options{
	cmpopts.IgnoreFields(jetstream.StreamConfig{}, "Metadata", "Description"),
	cmpopts.IgnoreFields(jetstream.ConsumerConfig{}, "Metadata", "Description"),
}

func TestProvisionFromNothing(t *testing.T) {
	s := runJetStream(t)
	js := client(t, s)
	b := open(t, broker.Config{URL: s.ClientURL(), Provision: true})
	if err := b.Provision(within(t)); err != nil {
		t.Fatal(err)
	}
	stream := func(name, subject string, c jetstream.StreamConfig) jetstream.StreamConfig {
		c.Name, c.Subjects, c.Storage, c.Replicas, c.AllowDirect = name, []string{subject}, jetstream.FileStorage, 1, true
		c.MaxConsumers, c.MaxMsgs, c.MaxBytes, c.MaxMsgSize, c.MaxMsgsPerSubject = -1, -1, -1, -1, -1
		return c
	}
	requests := stream("REMEDIATION", "", jetstream.StreamConfig{Retention: jetstream.WorkQueuePolicy, Discard: jetstream.DiscardNew, Duplicates: 24 * time.Hour})
	requests.Subjects = []string{"remediation.unrestrict", "remediation.unrestrict.urgent", "remediation.unrestrict.bulk"}
	lane := func(suffix, subject string) jetstream.ConsumerConfig {
		return jetstream.ConsumerConfig{
			Name: "unrestrict-worker" + suffix, Durable: "unrestrict-worker" + suffix, AckPolicy: jetstream.AckExplicitPolicy, AckWait: 20 * time.Second,
			MaxDeliver: -1, MaxAckPending: -1, FilterSubject: subject, MaxWaiting: 512,
		}
	}
	want := map[string]any{
		"REMEDIATION": requests,
		"REMEDIATION_RESULTS": stream("REMEDIATION_RESULTS", "remediation.results",
			jetstream.StreamConfig{Duplicates: 24 * time.Hour, MaxAge: 30 * 24 * time.Hour}),
		"REMEDIATION_DEADLETTER": stream("REMEDIATION_DEADLETTER", "remediation.deadletter",
			jetstream.StreamConfig{Duplicates: 24 * time.Hour}),
		"REMEDIATION_CONTROL": stream("REMEDIATION_CONTROL", "remediation.control",
			jetstream.StreamConfig{Duplicates: 2 * time.Minute, DenyDelete: true, DenyPurge: true, MaxAge: 400 * 24 * time.Hour}),
		"REMEDIATION_AUDIT": stream("REMEDIATION_AUDIT", "remediation.audit",
			jetstream.StreamConfig{Duplicates: 2 * time.Minute, DenyDelete: true, DenyPurge: true}),
		"REMEDIATION/unrestrict-worker":        lane("", "remediation.unrestrict"),
		"REMEDIATION/unrestrict-worker-urgent": lane("-urgent", "remediation.unrestrict.urgent"),
		"REMEDIATION/unrestrict-worker-bulk":   lane("-bulk", "remediation.unrestrict.bulk"),
	}
	// The buckets are as the client library makes them.
	reference := client(t, runJetStream(t))
	for _, bucket := range []string{broker.LedgerBucket, broker.StateBucket} {
		if _, err := reference.CreateKeyValue(within(t), jetstream.KeyValueConfig{Bucket: bucket, History: 1, LimitMarkerTTL: time.Hour}); err != nil {
			t.Fatal(err)
		}
	}
	maps.Copy(want, setup(t, reference))
	if diff := cmp.Diff(want, setup(t, js), noMetadata); diff != "" {
		t.Error(diff)
	}

	if b.AckWait() != 20*time.Second || b.ResultsWindow() != 24*time.Hour || b.DeadletterWindow() != 24*time.Hour || len(b.Differences()) > 0 {
		t.Errorf("AckWait %s, windows %s and %s, differences %q", b.AckWait(), b.ResultsWindow(), b.DeadletterWindow(), b.Differences())
	}
	if info, err := b.NewLedger().Info(within(t)); err != nil || info.Config.Name != "KV_UNRESTRICT_LEDGER" {
		t.Errorf("the ledger: %v, %v", info, err)
	}
	if info, err := b.State().Info(within(t)); err != nil || info.Config.Name != "KV_UNRESTRICT_STATE" {
		t.Errorf("the state: %v, %v", info, err)
	}
	if _, err := js.Publish(within(t), b.Names().Subject, []byte("{}")); err != nil {
		t.Error(err)
	}
	if _, err := b.Requests(message.LaneNormal).Next(jetstream.FetchMaxWait(5 * time.Second)); err != nil {
		t.Error(err)
	}
}

func TestProvisionEmbeddedBoundsItsStore(t *testing.T) {
	b := open(t, broker.Config{DataDir: t.TempDir(), Provision: true, AckWait: 7 * time.Second})
	if err := b.Provision(within(t)); err != nil {
		t.Fatal(err)
	}
	s, err := b.JS().Stream(within(t), "REMEDIATION")
	if err != nil {
		t.Fatal(err)
	}
	if got := s.CachedInfo().Config.MaxBytes; got != 4<<30 {
		t.Errorf("max_bytes of the requests %d", got)
	}
	if b.AckWait() != 7*time.Second {
		t.Errorf("AckWait %s", b.AckWait())
	}
}

func TestProvisionOwnNames(t *testing.T) {
	s := runJetStream(t)
	names := broker.Names{
		Subject: "soc.release", Stream: "SOC", Consumer: "releaser", ResultsSubject: "soc.done", ResultsStream: "SOC_DONE",
		DeadletterSubject: "soc.dead", DeadletterStream: "SOC_DEAD", ControlSubject: "soc.orders", ControlStream: "SOC_ORDERS",
	}
	b := open(t, broker.Config{URL: s.ClientURL(), Provision: true, Names: names})
	if err := b.Provision(within(t)); err != nil {
		t.Fatal(err)
	}
	var got []string
	for name := range setup(t, client(t, s)) {
		got = append(got, name)
	}
	slices.Sort(got)
	if diff := cmp.Diff([]string{"KV_UNRESTRICT_LEDGER", "KV_UNRESTRICT_STATE", "REMEDIATION_AUDIT", "SOC", "SOC/releaser", "SOC/releaser-bulk", "SOC/releaser-urgent", "SOC_DEAD", "SOC_DONE", "SOC_ORDERS"}, got); diff != "" {
		t.Error(diff)
	}
	for _, subject := range []string{"soc.release", "soc.release.urgent", "soc.release.bulk", "soc.done", "soc.dead", "soc.orders", "remediation.audit", "unrestrict.>"} {
		if !slices.Contains(b.Names().OwnSubjects(), subject) {
			t.Errorf("own subjects %q, want %s among them", b.Names().OwnSubjects(), subject)
		}
	}
}

// What each would create differs, as during a roll-out of another configuration.
func TestProvisionRacing(t *testing.T) {
	first := open(t, broker.Config{DataDir: t.TempDir(), EmbeddedAddr: "127.0.0.1:0", EmbeddedToken: "of-all", Provision: true})
	brokers := []*broker.Broker{first}
	for i := range 4 {
		brokers = append(brokers, open(t, broker.Config{URL: first.URL(), Auth: broker.Auth{Token: "of-all"}, Provision: true, AckWait: time.Duration(30+i) * time.Second}))
	}
	provisionAtOnce(t, brokers)
	if got := len(setup(t, first.JS())); got != len(ownStreams)+len(message.Lanes()) {
		t.Errorf("%d streams and consumers", got)
	}
	for _, b := range brokers {
		if b.AckWait() != first.AckWait() {
			t.Errorf("AckWait %s here, %s there", b.AckWait(), first.AckWait())
		}
	}
}

func provisionAtOnce(t *testing.T, brokers []*broker.Broker) {
	t.Helper()
	ctx := within(t)
	start := make(chan struct{})
	var g errgroup.Group
	for _, b := range brokers {
		g.Go(func() error {
			<-start
			return b.Provision(ctx)
		})
	}
	close(start)
	if err := g.Wait(); err != nil {
		t.Fatal(err)
	}
}

func TestProvisionNeverAlters(t *testing.T) {
	s := runJetStream(t)
	js := client(t, s)
	for _, cfg := range []jetstream.StreamConfig{
		{Name: "REMEDIATION", Subjects: []string{"remediation.unrestrict", "remediation.isolate"}, MaxAge: 24 * time.Hour, Duplicates: time.Minute, MaxMsgs: 1000},
		{Name: "REMEDIATION_RESULTS", Subjects: []string{"remediation.results"}, MaxBytes: 1 << 20, Duplicates: 30 * time.Second, Compression: jetstream.S2Compression},
		{Name: "REMEDIATION_DEADLETTER", Subjects: []string{"remediation.deadletter"}, MaxMsgs: 5, DenyDelete: true, Duplicates: time.Hour},
		{Name: "REMEDIATION_AUDIT", Subjects: []string{"remediation.audit"}, MaxMsgs: 7, Discard: jetstream.DiscardNew, MaxAge: time.Hour, DenyDelete: true, DenyPurge: true},
	} {
		if _, err := js.CreateStream(within(t), cfg); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := js.CreateConsumer(within(t), "REMEDIATION", jetstream.ConsumerConfig{
		Durable: "unrestrict-worker", AckPolicy: jetstream.AckExplicitPolicy, AckWait: time.Minute, BackOff: []time.Duration{30 * time.Second, 12 * time.Second},
		MaxAckPending: 50, FilterSubject: "remediation.unrestrict",
	}); err != nil {
		t.Fatal(err)
	}
	before := setup(t, js)
	log, logs := observed()
	b, err := broker.Open(within(t), broker.Config{URL: s.ClientURL(), Provision: true}, log)
	if err != nil {
		t.Fatal(err)
	}
	defer closeBroker(t, b)
	if err := b.Provision(within(t)); err != nil {
		t.Fatal(err)
	}
	after := setup(t, js)
	for name, was := range before {
		if diff := cmp.Diff(was, after[name]); diff != "" {
			t.Errorf("%s: %s", name, diff)
		}
	}
	if b.AckWait() != 12*time.Second || b.ResultsWindow() != 30*time.Second || b.DeadletterWindow() != time.Hour {
		t.Errorf("AckWait %s, windows %s and %s: not the real ones", b.AckWait(), b.ResultsWindow(), b.DeadletterWindow())
	}
	named := strings.Join(b.Differences(), "\n")
	for _, want := range []string{
		"stream REMEDIATION: retention is Limits, would be WorkQueue", "--subjects remediation.unrestrict,remediation.isolate,remediation.unrestrict.urgent,remediation.unrestrict.bulk", "stream REMEDIATION: max_age",
		"stream REMEDIATION: discard", "stream REMEDIATION: max_msgs", "stream REMEDIATION_RESULTS: duplicate_window is 30s, would be 24h0m0s", "stream REMEDIATION_RESULTS: max_bytes",
		"stream REMEDIATION_DEADLETTER: deny_delete is true, would be false", "consumer unrestrict-worker: max_ack_pending is 50, would be -1",
		"consumer unrestrict-worker: backoff",
		"stream REMEDIATION_AUDIT: max_msgs is 7, would be -1", "stream REMEDIATION_AUDIT: max_age is 1h0m0s", "stream REMEDIATION_AUDIT: discard is DiscardNew, would be DiscardOld",
	} {
		if !strings.Contains(named, want) {
			t.Errorf("differences %s\nwant %q among them", named, want)
		}
	}
	if logs.FilterMessageSnippet("settings differ").Len() != 1 {
		t.Error("the differences are not in the log")
	}
}

// A consumer of somebody else on the request stream is named, by who may list them; who may not hears that it is there.
func TestForeignConsumerIsNamed(t *testing.T) {
	list := "$JS.API.CONSUMER.LIST.REMEDIATION"
	opts := server.Options{JetStream: true, Users: []*server.User{
		{Username: "all", Password: "p"},
		{Username: "worker", Password: "p", Permissions: &server.Permissions{Publish: &server.SubjectPermission{Deny: []string{list}}}},
	}}
	s := runServer(t, opts)
	for _, c := range [][2]string{{"all", "consumer a-copy is none"}, {"worker", list}} {
		user, want := c[0], c[1]
		b := open(t, broker.Config{URL: s.ClientURL(), Auth: broker.Auth{User: user, Password: "p"}, Provision: true})
		if user == "all" {
			if err := b.Provision(within(t)); err != nil || len(b.Differences()) > 0 {
				t.Fatalf("%v, differences %q", err, b.Differences())
			}
			stream, err := b.JS().Stream(within(t), "REMEDIATION")
			if err != nil {
				t.Fatal(err)
			}
			cfg := stream.CachedInfo().Config
			cfg.Subjects = append(cfg.Subjects, "remediation.other")
			if _, err := b.JS().UpdateStream(within(t), cfg); err != nil {
				t.Fatal(err)
			}
			if _, err := b.JS().CreateConsumer(within(t), "REMEDIATION", jetstream.ConsumerConfig{Durable: "a-copy", FilterSubject: "remediation.other", AckPolicy: jetstream.AckExplicitPolicy}); err != nil {
				t.Fatal(err)
			}
		}
		if err := b.Provision(within(t)); err != nil {
			t.Fatal(err)
		}
		if named := strings.Join(b.Differences(), "\n"); !strings.Contains(named, want) {
			t.Errorf("as %s: differences %s\nwant %q among them", user, named, want)
		}
	}
}

func TestProvisionFalse(t *testing.T) {
	s := runJetStream(t)
	js := client(t, s)
	b := open(t, broker.Config{URL: s.ClientURL()})
	err := b.Provision(within(t))
	var missing *broker.MissingError
	if !errors.As(err, &missing) || len(missing.Missing) != 10 {
		t.Fatalf("error %v, want all ten missing", err)
	}
	if got := setup(t, js); len(got) > 0 {
		t.Errorf("created %v", got)
	}
	// Who creates what the advice says gets a worker that runs.
	for _, line := range missing.Missing {
		head, config, _ := strings.Cut(line, "where FILE has: ")
		if strings.HasPrefix(head, "consumer") {
			var cfg jetstream.ConsumerConfig
			if err := json.Unmarshal([]byte(config), &cfg); err != nil {
				t.Fatal(err)
			}
			if _, err := js.CreateConsumer(within(t), "REMEDIATION", cfg); err != nil {
				t.Fatal(err)
			}
			continue
		}
		var cfg jetstream.StreamConfig
		if err := json.Unmarshal([]byte(config), &cfg); err != nil {
			t.Fatal(err)
		}
		if _, err := js.CreateStream(within(t), cfg); err != nil {
			t.Fatal(err)
		}
	}
	before := setup(t, js)
	if err := b.Provision(within(t)); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(before, setup(t, js)); diff != "" {
		t.Error(diff)
	}
	if len(b.Differences()) > 0 {
		t.Errorf("differences %q", b.Differences())
	}
	if err := js.DeleteStream(within(t), "REMEDIATION_DEADLETTER"); err != nil {
		t.Fatal(err)
	}
	err = b.Provision(within(t))
	wantError(t, err, "REMEDIATION_DEADLETTER", "remediation.deadletter")
	if strings.Contains(err.Error(), "REMEDIATION_RESULTS") {
		t.Errorf("%v names what is there", err)
	}
}
