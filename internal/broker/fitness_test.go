package broker_test

import (
	"errors"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"example.com/unrestrict-worker/internal/broker"
)

func TestProvisionRefusesTheUnfit(t *testing.T) {
	stream := jetstream.StreamConfig{Name: "REMEDIATION", Subjects: []string{"remediation.unrestrict"}}
	wide := jetstream.StreamConfig{Name: "REMEDIATION", Subjects: []string{"remediation.unrestrict", "remediation.isolate"}}
	queue := stream
	queue.Retention = jetstream.WorkQueuePolicy
	record := func(change func(*jetstream.StreamConfig)) jetstream.StreamConfig {
		cfg := jetstream.StreamConfig{Name: "REMEDIATION_AUDIT", Subjects: []string{"remediation.audit"}, DenyDelete: true, DenyPurge: true}
		change(&cfg)
		return cfg
	}
	consumer := jetstream.ConsumerConfig{Durable: "unrestrict-worker", AckPolicy: jetstream.AckExplicitPolicy, FilterSubject: "remediation.unrestrict"}
	for name, c := range map[string]struct {
		stream   jetstream.StreamConfig
		consumer func(*jetstream.ConsumerConfig) // nil: none
		reason   string                          // "": fit
	}{
		"fit":                  {stream: stream, consumer: func(*jetstream.ConsumerConfig) {}},
		"fit, wide stream":     {stream: wide, consumer: func(*jetstream.ConsumerConfig) {}},
		"fit, needs no filter": {stream: stream, consumer: func(c *jetstream.ConsumerConfig) { c.FilterSubject = "" }},
		"fit, list of one": {stream: wide, consumer: func(c *jetstream.ConsumerConfig) {
			c.FilterSubject, c.FilterSubjects = "", []string{"remediation.unrestrict"}
		}},
		"fit, forgets on a work queue": {stream: queue, consumer: func(c *jetstream.ConsumerConfig) { c.InactiveThreshold = time.Hour }},
		"ack none":                     {stream: stream, consumer: func(c *jetstream.ConsumerConfig) { c.AckPolicy = jetstream.AckNonePolicy }, reason: "ack policy"},
		"ack all":                      {stream: stream, consumer: func(c *jetstream.ConsumerConfig) { c.AckPolicy = jetstream.AckAllPolicy }, reason: "ack policy"},
		"max deliver":                  {stream: stream, consumer: func(c *jetstream.ConsumerConfig) { c.MaxDeliver = 1000 }, reason: "max_deliver"},
		"only what comes":              {stream: stream, consumer: func(c *jetstream.ConsumerConfig) { c.DeliverPolicy = jetstream.DeliverNewPolicy }, reason: "deliver policy"},
		"from a sequence": {stream: stream, consumer: func(c *jetstream.ConsumerConfig) {
			c.DeliverPolicy, c.OptStartSeq = jetstream.DeliverByStartSequencePolicy, 1
		}, reason: "deliver policy"},
		"push":         {stream: stream, consumer: func(c *jetstream.ConsumerConfig) { c.DeliverSubject = "somewhere" }, reason: "push"},
		"no filter":    {stream: wide, consumer: func(c *jetstream.ConsumerConfig) { c.FilterSubject = "" }, reason: "remediation.unrestrict alone"},
		"other filter": {stream: wide, consumer: func(c *jetstream.ConsumerConfig) { c.FilterSubject = "remediation.isolate" }, reason: "remediation.unrestrict alone"},
		"more filters": {stream: wide, consumer: func(c *jetstream.ConsumerConfig) {
			c.FilterSubject, c.FilterSubjects = "", []string{"remediation.unrestrict", "remediation.isolate"}
		}, reason: "remediation.unrestrict alone"},
		"headers only": {stream: stream, consumer: func(c *jetstream.ConsumerConfig) { c.HeadersOnly = true }, reason: "headers only"},
		"priority": {stream: stream, consumer: func(c *jetstream.ConsumerConfig) {
			c.PriorityPolicy, c.PriorityGroups = jetstream.PriorityPolicyOverflow, []string{"g"}
		}, reason: "priority"},
		"forgets":           {stream: stream, consumer: func(c *jetstream.ConsumerConfig) { c.InactiveThreshold = time.Hour }, reason: "inactive_threshold"},
		"forgets in memory": {stream: stream, consumer: func(c *jetstream.ConsumerConfig) { c.MemoryStorage = true }, reason: "mem_storage"},
		"other subject":     {stream: jetstream.StreamConfig{Name: "REMEDIATION", Subjects: []string{"other"}}, reason: "does not carry the subject remediation.unrestrict"},
		"no acknowledgement": {
			stream: jetstream.StreamConfig{Name: "REMEDIATION_RESULTS", Subjects: []string{"remediation.results"}, NoAck: true}, reason: "no_ack",
		},
		"acknowledged before it is written": {stream: jetstream.StreamConfig{
			Name: "REMEDIATION", Subjects: []string{"remediation.unrestrict"}, PersistMode: jetstream.AsyncPersistMode,
		}, reason: "persist_mode"},
		"ledger acknowledged before it is written": {stream: jetstream.StreamConfig{
			Name: "KV_UNRESTRICT_LEDGER", Subjects: []string{"$KV.UNRESTRICT_LEDGER.>"}, AllowMsgTTL: true, AllowRollup: true, MaxMsgsPerSubject: 1, PersistMode: jetstream.AsyncPersistMode,
			Discard: jetstream.DiscardNew, SubjectDeleteMarkerTTL: time.Hour,
		}, reason: "persist_mode"},
		"schedules": {stream: jetstream.StreamConfig{
			Name: "REMEDIATION", Subjects: []string{"remediation.unrestrict"}, AllowMsgSchedules: true,
		}, reason: "allow_msg_schedules"},
		"subject transform": {stream: jetstream.StreamConfig{
			Name: "REMEDIATION", Subjects: []string{"remediation.unrestrict"},
			SubjectTransform: &jetstream.SubjectTransformConfig{Source: "remediation.*", Destination: "stored.{{wildcard(1)}}"},
		}, reason: "subject transform"},
		"fit, records kept for a year": {stream: record(func(c *jetstream.StreamConfig) { c.MaxAge = 365 * 24 * time.Hour })},
		"fit, records refused when full": {stream: record(func(c *jetstream.StreamConfig) {
			c.MaxMsgs, c.MaxBytes, c.MaxMsgsPerSubject, c.Discard, c.DiscardNewPerSubject = 10, 1<<20, 10, jetstream.DiscardNew, true
		})},
		"records may be deleted":      {stream: record(func(c *jetstream.StreamConfig) { c.DenyDelete = false }), reason: "deny_delete"},
		"records may be purged":       {stream: record(func(c *jetstream.StreamConfig) { c.DenyPurge = false }), reason: "deny_purge"},
		"records in memory":           {stream: record(func(c *jetstream.StreamConfig) { c.Storage = jetstream.MemoryStorage }), reason: "in memory"},
		"records in a work queue":     {stream: record(func(c *jetstream.StreamConfig) { c.Retention = jetstream.WorkQueuePolicy }), reason: "retention WorkQueue"},
		"records by interest":         {stream: record(func(c *jetstream.StreamConfig) { c.Retention = jetstream.InterestPolicy }), reason: "retention Interest"},
		"records by number":           {stream: record(func(c *jetstream.StreamConfig) { c.MaxMsgs = 7 }), reason: "drops the oldest records"},
		"records by size":             {stream: record(func(c *jetstream.StreamConfig) { c.MaxBytes = 1 << 20 }), reason: "drops the oldest records"},
		"records by number a subject": {stream: record(func(c *jetstream.StreamConfig) { c.MaxMsgsPerSubject, c.Discard = 7, jetstream.DiscardNew }), reason: "drops the oldest records"},
		"ledger in memory": {stream: jetstream.StreamConfig{
			Name: "KV_UNRESTRICT_LEDGER", Subjects: []string{"$KV.UNRESTRICT_LEDGER.>"}, Storage: jetstream.MemoryStorage, AllowMsgTTL: true, AllowRollup: true, MaxMsgsPerSubject: 1,
		}, reason: "in memory"},
	} {
		t.Run(name, func(t *testing.T) {
			s := runJetStream(t)
			js := client(t, s)
			if _, err := js.CreateStream(within(t), c.stream); err != nil {
				t.Fatal(err)
			}
			if c.consumer != nil {
				cfg := consumer
				c.consumer(&cfg)
				if err := createConsumer(t, js, cfg); err != nil {
					t.Fatal(err)
				}
			}
			before := setup(t, js)
			b := open(t, broker.Config{URL: s.ClientURL(), Provision: true})
			err := b.Provision(within(t))
			if c.reason == "" {
				if err != nil {
					t.Error(err)
				}
				return
			}
			var unfit *broker.UnfitError
			if !errors.As(err, &unfit) || len(unfit.Reasons) != 1 {
				t.Fatalf("error %v, want one that is unfit", err)
			}
			wantError(t, err, c.reason, c.stream.Name)
			if name == "ledger in memory" {
				return // the worker's own, which it tries to repair
			}
			if diff := cmp.Diff(before, setup(t, js)); diff != "" {
				t.Errorf("a refusal created or changed something: %s", diff)
			}
		})
	}
}

// createConsumer also makes push consumers, which have an interface of their own.
func createConsumer(t *testing.T, js jetstream.JetStream, cfg jetstream.ConsumerConfig) error {
	t.Helper()
	if cfg.DeliverSubject == "" {
		_, err := js.CreateConsumer(within(t), "REMEDIATION", cfg)
		return err
	}
	_, err := js.CreatePushConsumer(within(t), "REMEDIATION", cfg)
	return err
}

func TestProvisionRepairsItsOwn(t *testing.T) {
	s := runJetStream(t)
	js := client(t, s)
	if _, err := js.CreateKeyValue(within(t), jetstream.KeyValueConfig{Bucket: broker.LedgerBucket, TTL: time.Hour, MaxBytes: 1 << 20}); err != nil {
		t.Fatal(err)
	}
	err := open(t, broker.Config{URL: s.ClientURL()}).Provision(within(t))
	var unfit *broker.UnfitError
	var missing *broker.MissingError
	if !errors.As(err, &unfit) || !errors.As(err, &missing) {
		t.Errorf("error %v, want what is unfit and what is missing", err)
	}
	wantError(t, err, "KV_UNRESTRICT_LEDGER has no lifetime per message", "KV_UNRESTRICT_LEDGER drops entries")

	b := open(t, broker.Config{URL: s.ClientURL(), Provision: true})
	if err := b.Provision(within(t)); err != nil {
		t.Fatal(err)
	}
	cfg := setup(t, js)["KV_UNRESTRICT_LEDGER"].(jetstream.StreamConfig)
	if !cfg.AllowMsgTTL || cfg.MaxAge != 0 || cfg.SubjectDeleteMarkerTTL != time.Hour || cfg.MaxBytes != 1<<20 {
		t.Errorf("the ledger's settings %+v", cfg)
	}
	msg := nats.NewMsg("$KV.UNRESTRICT_LEDGER.key")
	if _, err := b.JS().PublishMsg(within(t), msg, jetstream.WithMsgTTL(time.Hour)); err != nil {
		t.Error(err)
	}
}

func TestProvisionTakenSubject(t *testing.T) {
	s := runJetStream(t)
	if _, err := client(t, s).CreateStream(within(t), jetstream.StreamConfig{Name: "OTHER", Subjects: []string{"remediation.>"}}); err != nil {
		t.Fatal(err)
	}
	b := open(t, broker.Config{URL: s.ClientURL(), Provision: true})
	err := b.Provision(within(t))
	if _, ok := errors.AsType[*broker.UnfitError](err); !ok {
		t.Errorf("error %v, want unfit", err)
	}
	wantError(t, err, "REMEDIATION", "OTHER", "remediation.unrestrict")
}

func TestProvisionRivalOnTheWorkQueue(t *testing.T) {
	s := runJetStream(t)
	b := open(t, broker.Config{URL: s.ClientURL(), Provision: true})
	if err := b.Provision(within(t)); err != nil {
		t.Fatal(err)
	}
	b = open(t, broker.Config{URL: s.ClientURL(), Provision: true, Names: broker.Names{Consumer: "second"}})
	err := b.Provision(within(t))
	if _, ok := errors.AsType[*broker.UnfitError](err); !ok {
		t.Errorf("error %v, want unfit", err)
	}
	wantError(t, err, "second", "unrestrict-worker", "WORKER_CONSUMER")
}
