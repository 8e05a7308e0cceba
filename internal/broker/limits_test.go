package broker

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"example.com/unrestrict-worker/internal/health"
	"example.com/unrestrict-worker/internal/ledger"
	"example.com/unrestrict-worker/internal/message"
)

// While a stream of what is decided is full, that is said and no request is taken; both end when there is room. One that
// drops its oldest messages instead is not full.
func TestFullStreamIsNamed(t *testing.T) {
	kept(t, func(t *testing.T, b *Broker) {
		alter := func(name string, set func(*jetstream.StreamConfig)) {
			t.Helper()
			s, err := b.js.Stream(t.Context(), name)
			if err != nil {
				t.Fatal(err)
			}
			cfg := s.CachedInfo().Config
			set(&cfg)
			if _, err := b.js.UpdateStream(t.Context(), cfg); err != nil {
				t.Fatal(err)
			}
		}
		n := b.cfg.Names
		for _, stream := range []struct{ name, subject string }{
			{n.ResultsStream, n.ResultsSubject}, {n.DeadletterStream, n.DeadletterSubject}, {AuditStream, AuditSubject},
		} {
			alter(stream.name, func(c *jetstream.StreamConfig) { c.MaxAge = 0 }) // the file store's clock is not fake
			for range 3 {
				if _, err := b.js.Publish(t.Context(), stream.subject, []byte(strings.Repeat("x", 1000))); err != nil {
					t.Fatal(err)
				}
			}
			for limit, set := range map[string]func(*jetstream.StreamConfig){
				"max_msgs 3":             func(c *jetstream.StreamConfig) { c.MaxMsgs = 3 },
				"max_bytes 3500":         func(c *jetstream.StreamConfig) { c.MaxBytes = 3500 },
				"max_msgs_per_subject 3": func(c *jetstream.StreamConfig) { c.MaxMsgsPerSubject, c.DiscardNewPerSubject = 3, true },
			} {
				was := jetstream.DiscardPolicy(0)
				alter(stream.name, func(c *jetstream.StreamConfig) { was, c.Discard = c.Discard, jetstream.DiscardNew; set(c) })
				if c := wantConditions(t, b, health.StreamFull); len(c) == 1 && (!strings.Contains(c[0].Message, stream.name) || !strings.Contains(c[0].Message, limit) || !c[0].Stops) {
					t.Errorf("%s: %+v", limit, c)
				}
				sound := make(chan error, 1)
				go func() { sound <- b.AwaitStreams(t.Context()) }()
				time.Sleep(time.Minute)
				select {
				case <-sound:
					t.Errorf("%s, %s: requests are taken", stream.name, limit)
				default:
				}
				alter(stream.name, func(c *jetstream.StreamConfig) {
					c.Discard, c.MaxMsgs, c.MaxBytes, c.MaxMsgsPerSubject, c.DiscardNewPerSubject = was, -1, -1, -1, false
				})
				select {
				case err := <-sound:
					if err != nil {
						t.Error(err)
					}
				case <-time.After(time.Minute):
					t.Fatalf("%s, %s: no request is taken again: %+v", stream.name, limit, b.Conditions())
				}
				wantConditions(t, b)
			}
		}
		alter(n.ResultsStream, func(c *jetstream.StreamConfig) { c.MaxMsgs, c.Discard = 3, jetstream.DiscardOld })
		wantConditions(t, b)
	})
}

// A limit that somebody sets is used within seconds, and a record that can't be made so short breaks no chain.
func TestAuditRecordThatDoesNotFit(t *testing.T) {
	kept(t, func(t *testing.T, b *Broker) {
		a := b.NewAuditor("p")
		s, err := b.js.Stream(t.Context(), AuditStream)
		if err != nil {
			t.Fatal(err)
		}
		limit := func(n int32) {
			t.Helper()
			cfg := s.CachedInfo().Config
			cfg.MaxMsgSize = n
			if _, err := b.js.UpdateStream(t.Context(), cfg); err != nil {
				t.Fatal(err)
			}
			time.Sleep(10 * time.Second)
		}
		r := ledger.AuditRecord{Kind: ledger.AuditDecided, RequestID: "r", Comment: strings.Repeat("c", 3000), Calls: make([]ledger.Call, 30), Outcome: message.Succeeded}
		record := func(fits bool) {
			t.Helper()
			if err := a.Fits(r); (err == nil) != fits || err != nil && !errors.Is(err, message.ErrTooLarge) {
				t.Errorf("Fits: %v, want %v", err, fits)
			}
			if err := a.Record(t.Context(), r); (err == nil) != fits || err != nil && !errors.Is(err, message.ErrTooLarge) {
				t.Errorf("Record: %v, want %v", err, fits)
			}
		}
		record(true)
		limit(2000) // shortened, and without its calls
		record(true)
		limit(600)
		record(false)
		limit(-1)
		record(true)
		if info, err := s.Info(t.Context()); err != nil || info.State.Msgs != 4 || a.opened != 1 {
			t.Errorf("%+v, %v, %d chains; want an opening record and three of one chain", info.State, err, a.opened)
		}
	})
}
