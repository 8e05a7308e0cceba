package broker

import (
	"context"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"go.uber.org/zap"

	"example.com/unrestrict-worker/internal/broker/rates"
	"example.com/unrestrict-worker/internal/budget"
	"example.com/unrestrict-worker/internal/health"
	"example.com/unrestrict-worker/internal/message"
)

// kept runs a test in fake time against a provisioned broker that is being kept.
func kept(t *testing.T, test func(t *testing.T, b *Broker)) {
	t.Helper()
	keptWith(t, func(*Broker) {}, test)
}

// keptWith is kept, of a broker that was changed before it is kept.
func keptWith(t *testing.T, change func(*Broker), test func(t *testing.T, b *Broker)) {
	t.Helper()
	dir := t.TempDir()
	// nats.go keeps timers in a sync.Pool, and a timer must not leave its bubble: two collections empty every pool.
	runtime.GC()
	runtime.GC()
	synctest.Test(t, func(t *testing.T) {
		b, err := Open(t.Context(), Config{DataDir: dir, SyncInterval: true, Provision: true}, zap.NewNop())
		if err != nil {
			t.Fatal(err)
		}
		ctx, stop := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		if err := b.Provision(ctx); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Minute)
		change(b)
		go func() { ended <- b.Keep(ctx) }()
		test(t, b)
		stop()
		if err := <-ended; err != nil {
			t.Error(err)
		}
		if err := b.Close(t.Context()); err != nil {
			t.Error(err)
		}
	})
}

// wantConditions waits as long as a change may take to be known.
func wantConditions(t *testing.T, b *Broker, codes ...string) []health.Condition {
	t.Helper()
	time.Sleep(10 * time.Second)
	synctest.Wait()
	all := b.Conditions()
	var got []string
	for _, c := range all {
		got = append(got, c.Code)
	}
	if !slices.Equal(got, codes) {
		t.Errorf("conditions %+v, want %q", all, codes)
	}
	return all
}

// Whatever vanishes under a running worker is there again within ten seconds, set up as at the start: deleted, or deleted and
// made by somebody at once.
func TestVanishedIsMadeAgain(t *testing.T) {
	for _, byHand := range []bool{false, true} {
		kept(t, func(t *testing.T, b *Broker) {
			for _, spec := range b.topology.streams() {
				was, err := b.js.Stream(t.Context(), spec.cfg.Name)
				if err != nil {
					t.Fatal(err)
				}
				if err := b.js.DeleteStream(t.Context(), spec.cfg.Name); err != nil {
					t.Fatal(err)
				}
				if byHand {
					if _, err := b.js.CreateStream(t.Context(), was.CachedInfo().Config); err != nil {
						t.Fatal(err)
					}
				}
				var codes []string
				if spec.cfg.Name == "KV_"+LedgerBucket {
					codes = []string{health.LedgerLost}
				}
				if spec.cfg.Name == "KV_"+StateBucket {
					codes = []string{health.LedgerLost} // still: the hour is not over
				}
				wantConditions(t, b, codes...)
				s, err := b.js.Stream(t.Context(), spec.cfg.Name)
				if err != nil {
					t.Errorf("made by hand %t: %s: %v", byHand, spec.cfg.Name, err)
				} else if diff := differing(spec.cfg.Name, s.CachedInfo().Config, was.CachedInfo().Config, "subjects", "retention", "storage", "max_age", "deny_purge", "allow_msg_ttl"); len(diff) > 0 {
					t.Error(diff)
				}
			}
			if _, err := b.js.Consumer(t.Context(), b.cfg.Names.Stream, b.cfg.Names.Consumer); err != nil {
				t.Error(err)
			}
			if err := b.js.DeleteConsumer(t.Context(), b.cfg.Names.Stream, b.cfg.Names.Consumer); err != nil {
				t.Fatal(err)
			}
			time.Sleep(time.Hour)
			wantConditions(t, b)
			if _, err := b.js.Consumer(t.Context(), b.cfg.Names.Stream, b.cfg.Names.Consumer); err != nil {
				t.Error(err)
			}
		})
	}
}

// Where nothing may be created the condition names what is missing, and requests are not taken until it is there.
func TestMissingIsNamed(t *testing.T) {
	keptWith(t, func(b *Broker) { b.cfg.Provision = false }, func(t *testing.T, b *Broker) {
		for _, spec := range []streamSpec{b.topology.results, b.topology.audit, b.topology.ledger} {
			if err := b.js.DeleteStream(t.Context(), spec.cfg.Name); err != nil {
				t.Fatal(err)
			}
			if c := wantConditions(t, b, health.Missing)[0]; !strings.Contains(c.Message, "stream "+spec.cfg.Name) || !c.Stops {
				t.Errorf("%+v", c)
			}
			sound := make(chan error, 1)
			go func() { sound <- b.AwaitStreams(t.Context()) }()
			time.Sleep(time.Minute)
			select {
			case <-sound:
				t.Error("requests are taken")
			default:
			}
			if _, err := b.js.CreateStream(t.Context(), spec.cfg); err != nil {
				t.Fatal(err)
			}
			if err := <-sound; err != nil {
				t.Error(err)
			}
		}
	})
}

func TestMissingRateStreamIsNamed(t *testing.T) {
	windows := budget.Limits(5, 0) // whose stream is rates.Store's to make
	keptWith(t, func(b *Broker) { b.cfg.Provision, b.cfg.Windows = false, windows }, func(t *testing.T, b *Broker) {
		if c := wantConditions(t, b, health.Missing)[0]; !strings.Contains(c.Message, "stream UNRESTRICT_RATE_MINUTE") {
			t.Errorf("%+v", c)
		}
		if _, err := b.js.CreateStream(t.Context(), rates.StreamConfig(windows[0], 1)); err != nil {
			t.Fatal(err)
		}
		wantConditions(t, b)
	})
}

// What a running replica knows of the shared state it writes again when the bucket has vanished: the operator's pause, and until
// when the API throttles. Another replica that starts then knows both.
func TestStateIsWrittenAgain(t *testing.T) {
	kept(t, func(t *testing.T, b *Broker) {
		ctx, stop := context.WithCancel(t.Context())
		var running sync.WaitGroup
		defer running.Wait()
		defer stop()
		replica := func(id string) (*Replicas, *rates.Store) {
			r := b.NewReplicas(id)
			store, err := rates.New(ctx, b.js, b.state, budget.Limits(5, 0), 1, r)
			if err != nil {
				t.Fatal(err)
			}
			running.Go(func() { _ = r.Run(ctx, func() Presence { return Presence{Ready: true} }) })
			running.Go(func() { _ = store.Run(ctx) })
			time.Sleep(time.Second)
			return r, store
		}
		one, store := replica("one")
		if err := one.Pause(ctx, Pause{Reason: "freeze"}); err != nil {
			t.Fatal(err)
		}
		if err := store.Close(ctx, 10*time.Minute); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Second) // it has heard of the pause
		if err := b.js.DeleteStream(ctx, "KV_"+StateBucket); err != nil {
			t.Fatal(err)
		}
		time.Sleep(20 * time.Second)
		two, other := replica("two")
		if p := two.Paused(); p == nil || p.Reason != "freeze" {
			t.Errorf("the pause is %+v", p)
		}
		if _, until, known := other.Closed(); !known || (time.Until(until)-10*time.Minute+22*time.Second).Abs() > 2*time.Second {
			t.Errorf("closed for %v, %t", time.Until(until), known)
		}
		if peers, known := two.Limits(); !known || len(peers) != 0 || !two.Live() {
			t.Errorf("the first is not heard: %v, %t", peers, known)
		}
	})
}

// What somebody does to the streams or the consumer that keeps requests waiting has a name, and ends when it is undone.
func TestTamperingIsNamed(t *testing.T) {
	alterStream := func(set func(*jetstream.StreamConfig)) func(context.Context, *Broker) error {
		return func(ctx context.Context, b *Broker) error {
			s, err := b.js.Stream(ctx, b.cfg.Names.Stream)
			if err != nil {
				return err
			}
			cfg := s.CachedInfo().Config
			set(&cfg)
			_, err = b.js.UpdateStream(ctx, cfg)
			return err
		}
	}
	alterConsumer := func(set func(*jetstream.ConsumerConfig)) func(context.Context, *Broker) error {
		return func(ctx context.Context, b *Broker) error {
			cfg := b.topology.consumers[message.LaneNormal]
			set(&cfg)
			_, err := b.js.CreateOrUpdateConsumer(ctx, b.cfg.Names.Stream, cfg)
			return err
		}
	}
	asBefore := alterConsumer(func(*jetstream.ConsumerConfig) {})
	for name, c := range map[string]struct {
		do, undo func(context.Context, *Broker) error
		code     string
		says     string
	}{
		"deliveries limited": {alterConsumer(func(c *jetstream.ConsumerConfig) { c.MaxDeliver = 3 }), asBefore, health.Unfit, "max_deliver"},
		"another filter":     {alterConsumer(func(c *jetstream.ConsumerConfig) { c.FilterSubject = "remediation.other" }), asBefore, health.Unfit, "remediation.other"},
		"other subjects": {
			alterStream(func(c *jetstream.StreamConfig) { c.Subjects = []string{"other.>"} }),
			alterStream(func(c *jetstream.StreamConfig) { c.Subjects = []string{"remediation.unrestrict"} }), health.Unfit, "does not carry",
		},
		"sealed": {alterStream(func(c *jetstream.StreamConfig) { c.Sealed = true }), func(ctx context.Context, b *Broker) error {
			return b.js.DeleteStream(ctx, b.cfg.Names.Stream)
		}, health.Unfit, "sealed"},
		"no more consumers": {func(ctx context.Context, b *Broker) error {
			if err := b.js.DeleteStream(ctx, b.cfg.Names.Stream); err != nil {
				return err
			}
			cfg := b.topology.requests.cfg
			cfg.MaxConsumers, cfg.Subjects = 1, []string{"remediation.unrestrict", "other"}
			if _, err := b.js.CreateStream(ctx, cfg); err != nil {
				return err
			}
			_, err := b.js.CreateConsumer(ctx, cfg.Name, jetstream.ConsumerConfig{Durable: "another", FilterSubject: "other", AckPolicy: jetstream.AckExplicitPolicy})
			return err
		}, func(ctx context.Context, b *Broker) error {
			return b.js.DeleteConsumer(ctx, b.cfg.Names.Stream, "another")
		}, health.Missing, "maximum consumers"},
		"paused": {func(ctx context.Context, b *Broker) error {
			_, err := b.js.PauseConsumer(ctx, b.cfg.Names.Stream, b.cfg.Names.Consumer, time.Now().Add(time.Minute))
			return err
		}, func(context.Context, *Broker) error { time.Sleep(time.Minute); return nil }, health.ConsumerPaused, "paused"},
		"few may be out": {func(ctx context.Context, b *Broker) error {
			if err := alterConsumer(func(c *jetstream.ConsumerConfig) { c.MaxAckPending = 1 })(ctx, b); err != nil {
				return err
			}
			for range 2 {
				if _, err := b.Publish(ctx, message.LaneNormal, nil, []byte("{}")); err != nil {
					return err
				}
			}
			_, err := b.Requests(message.LaneNormal).Next()
			return err
		}, asBefore, health.AckPending, "max_ack_pending"},
	} {
		t.Run(name, func(t *testing.T) {
			kept(t, func(t *testing.T, b *Broker) {
				wantConditions(t, b)
				if err := c.do(t.Context(), b); err != nil {
					t.Fatal(err)
				}
				said := wantConditions(t, b, c.code)
				if len(said) > 0 && !strings.Contains(said[0].Message, c.says) {
					t.Errorf("%+v, want %q in it", said[0], c.says)
				}
				if len(said) > 0 && name == "paused" && (time.Until(said[0].Until)-50*time.Second).Abs() > time.Second {
					t.Errorf("until %v", said[0].Until)
				}
				if err := c.undo(t.Context(), b); err != nil {
					t.Fatal(err)
				}
				wantConditions(t, b)
			})
		})
	}
}

// silentJetStream leaves looks at streams unanswered.
type silentJetStream struct {
	jetstream.JetStream
	silent atomic.Bool
}

func (s *silentJetStream) Stream(ctx context.Context, name string) (jetstream.Stream, error) {
	if s.silent.Load() {
		<-ctx.Done()
		return nil, ctx.Err()
	}
	return s.JetStream.Stream(ctx, name)
}

// JetStream that does not answer for a moment is none of an operator's business; one that goes on is.
func TestSilentJetStreamIsNamed(t *testing.T) {
	silent := &silentJetStream{}
	over := func(js jetstream.JetStream) jetstream.JetStream { silent.JetStream = js; return silent }
	keptWith(t, func(b *Broker) { b.js = over(b.js) }, func(t *testing.T, b *Broker) {
		silent.silent.Store(true)
		time.Sleep(6 * time.Second)
		silent.silent.Store(false)
		wantConditions(t, b)
		silent.silent.Store(true)
		time.Sleep(20 * time.Second)
		wantConditions(t, b, health.JetStream)
		silent.silent.Store(false)
		wantConditions(t, b)
	})
}

// A ledger counts as lost where somebody bears witness of an older one: the shared state, the audit trail, or this very
// process. What is not lost is a first start, one on streams that hold requests, and the loss of a witness.
func TestWhoseLedgerWasLost(t *testing.T) {
	ledger, state, audit := "KV_"+LedgerBucket, "KV_"+StateBucket, AuditStream
	type loss struct {
		vanish    []string
		restarted bool // the process too
		purged    bool // the ledger, which is the only one that lets itself be purged and matters
		lost      bool
	}
	for name, c := range map[string]loss{
		"nothing":                            {restarted: true},
		"purged: ledger":                     {purged: true, lost: true},
		"purged: ledger, and process":        {purged: true, restarted: true, lost: true},
		"purged: ledger, state":              {vanish: []string{state}, purged: true, lost: true},
		"ledger":                             {vanish: []string{ledger}, restarted: false, lost: true},
		"ledger and process":                 {vanish: []string{ledger}, restarted: true, lost: true},
		"state":                              {vanish: []string{state}, restarted: false, lost: false},
		"state and process":                  {vanish: []string{state}, restarted: true, lost: false},
		"audit trail and process":            {vanish: []string{audit}, restarted: true, lost: false},
		"ledger, state":                      {vanish: []string{ledger, state}, restarted: false, lost: true},
		"ledger, state and process":          {vanish: []string{ledger, state}, restarted: true, lost: true},
		"ledger, audit trail and process":    {vanish: []string{ledger, audit}, restarted: true, lost: true},
		"state, audit trail and process":     {vanish: []string{state, audit}, restarted: true, lost: false},
		"ledger, state, audit trail":         {vanish: []string{ledger, state, audit}, restarted: false, lost: true},
		"all of them: that is a first start": {vanish: []string{ledger, state, audit}, restarted: true, lost: false},
	} {
		for _, older := range []bool{false, true} { // of a version that left no word in the state
			dir := t.TempDir()
			runtime.GC()
			runtime.GC()
			synctest.Test(t, func(t *testing.T) {
				b := provisioned(t, dir)
				if _, err := b.Publish(t.Context(), message.LaneNormal, nil, []byte("{}")); err != nil {
					t.Fatal(err)
				}
				if id := b.LedgerLostBefore(); !id.IsZero() {
					t.Error("lost at the first start")
				}
				time.Sleep(time.Second)
				if err := b.NewAuditor("p").Record(t.Context(), of("r")); err != nil {
					t.Fatal(err)
				}
				if older {
					if err := b.state.Purge(t.Context(), ledgerKey); err != nil {
						t.Fatal(err)
					}
				}
				time.Sleep(time.Second)
				if c.purged {
					if s, err := b.js.Stream(t.Context(), ledger); err != nil {
						t.Fatal(err)
					} else if err := s.Purge(t.Context()); err != nil {
						t.Fatal(err)
					}
				}
				for _, s := range c.vanish {
					if err := b.js.DeleteStream(t.Context(), s); err != nil {
						t.Fatal(err)
					}
				}
				if c.restarted {
					if err := b.Close(t.Context()); err != nil {
						t.Fatal(err)
					}
					b = provisioned(t, dir)
				} else if err := b.Provision(t.Context()); err != nil {
					t.Fatal(err)
				}
				lost := c.lost
				if older && (name == "ledger, audit trail and process" || name == "purged: ledger, and process") {
					lost = false // that version left no other witness
				}
				if got := b.LedgerLostBefore(); got.IsZero() == lost || lost && time.Since(got) > time.Second {
					t.Errorf("%s vanished, left by an older version %t: lost before %v, want %t", name, older, got, lost)
				}
				// It stays so, whoever is asked later: until the ledger is lost once more.
				if err := b.Close(t.Context()); err != nil {
					t.Fatal(err)
				}
				time.Sleep(time.Hour)
				b = provisioned(t, dir)
				if got := b.LedgerLostBefore(); got.IsZero() == lost || len(b.Conditions()) > 0 {
					t.Errorf("%s vanished: an hour later lost before %v, and %+v", name, got, b.Conditions())
				}
				if err := b.Close(t.Context()); err != nil {
					t.Fatal(err)
				}
			})
		}
	}
}

func provisioned(t *testing.T, dir string) *Broker {
	t.Helper()
	b, err := Open(t.Context(), Config{DataDir: dir, SyncInterval: true, Provision: true}, zap.NewNop())
	if err != nil {
		t.Fatal(err)
	}
	if err := b.Provision(t.Context()); err != nil {
		t.Fatal(err)
	}
	return b
}
