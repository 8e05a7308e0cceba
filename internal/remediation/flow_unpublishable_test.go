package remediation_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"example.com/unrestrict-worker/internal/broker"
	"example.com/unrestrict-worker/internal/health"
	"example.com/unrestrict-worker/internal/ledger"
)

// limits changes a stream as somebody else may, and lets the broker's next look see it.
func (w *world) limit(stream string, change func(*jetstream.StreamConfig)) {
	w.t.Helper()
	s, err := w.broker.JS().Stream(w.ctx, stream)
	w.must(err)
	cfg := s.CachedInfo().Config
	change(&cfg)
	_, err = w.broker.JS().UpdateStream(w.ctx, cfg)
	w.must(err)
	w.must(w.broker.Provision(w.ctx))
}

func messagesOf(n int32) func(*jetstream.StreamConfig) {
	return func(c *jetstream.StreamConfig) { c.MaxMsgSize = n }
}

func bytesOf(n int64) func(*jetstream.StreamConfig) {
	return func(c *jetstream.StreamConfig) { c.MaxBytes = n }
}

// What can never fit is its request's own trouble: it is said of that request and of nobody else, others go on, and it is
// published once the limit is raised.
func TestWhatNeverFitsHoldsUpNobodyElse(t *testing.T) {
	for name, c := range map[string]struct {
		letters     bool // the stream of dead letters, else that of results
		small, wide func(*jetstream.StreamConfig)
	}{
		"a result, by max_msg_size":      {false, messagesOf(1200), messagesOf(-1)},
		"a result, by max_bytes":         {false, bytesOf(1200), bytesOf(-1)},
		"a dead letter, by max_msg_size": {true, messagesOf(400), messagesOf(-1)},
		"a dead letter, by max_bytes":    {true, bytesOf(400), bytesOf(-1)},
	} {
		t.Run(name, func(t *testing.T) {
			inWorld(t, setup{}, func(w *world) {
				long := strings.Repeat("a long ticket ", 60)
				stream := w.broker.Names().ResultsStream
				if c.letters {
					stream = w.broker.Names().DeadletterStream
				}
				w.limit(stream, c.small)
				ticket := field{"ticket", fmt.Sprintf("%q", long)}
				if c.letters {
					ticket = field{"expiresAt", `"1999-12-31T00:00:00Z"`}
				}
				w.ask("large", 1, ticket)
				for n := range 5 {
					w.ask(fmt.Sprint("r", n), 10+n)
					w.passes(time.Minute)
				}
				for n := range 5 {
					if r, ended := w.final(fmt.Sprint("r", n)); !c.letters && strings.Contains(name, "max_bytes") {
						continue // each that is stored pushes out the one before
					} else if !ended || r.Outcome != "succeeded" {
						t.Errorf("another request: %+v", r)
					}
				}
				if fault, on := w.replicas[0].breaker.Current(); on {
					t.Errorf("a fault of the system: %+v", fault)
				}
				if !w.replicas[0].holds(health.Unpublishable) {
					t.Error("it is not said")
				}
				e := w.entry("large")
				if e.LastError == nil || e.LastError.Code != health.Unpublishable || !strings.Contains(e.LastError.Message, "larger") {
					t.Errorf("the entry says %+v", e.LastError)
				}
				if r, ended := w.final("large"); ended {
					t.Fatalf("published: %+v", r)
				}
				for _, kind := range []string{ledger.AuditAccepted, ledger.AuditDecided} {
					if n := len(w.recorded("large", kind)); n > 1 {
						t.Errorf("%d records that it was %s", n, kind)
					}
				}
				w.limit(stream, c.wide)
				w.settled(3 * time.Minute)
				if c.letters {
					w.wantFinal("large", "rejected expired")
				} else {
					w.wantFinal("large", "succeeded")
					w.wantPosts(1, 1)
				}
				if e := w.entry("large"); e.LastError != nil {
					t.Errorf("the entry still says %+v", e.LastError)
				}
				if w.replicas[0].holds(health.Unpublishable) {
					t.Error("it is still said")
				}
			})
		})
	}
}

// A call is not made if its audit record could not be stored however short it is made.
func TestNoCallThatCannotBeRecorded(t *testing.T) {
	inWorld(t, setup{}, func(w *world) {
		w.limit(broker.AuditStream, messagesOf(700))
		w.ask("r1", 1)
		w.until("it to be said", time.Minute, func() bool { return w.replicas[0].holds(health.Unpublishable) })
		w.passes(10 * time.Minute)
		w.wantPosts(1, 0)
		if e := w.entry("r1"); e.LastError == nil || e.LastError.Code != health.Unpublishable || !strings.Contains(e.LastError.Message, broker.AuditStream) {
			t.Errorf("the entry says %+v", e.LastError)
		}
		if fault, on := w.replicas[0].breaker.Current(); on {
			t.Errorf("a fault of the system: %+v", fault)
		}
		w.limit(broker.AuditStream, messagesOf(-1))
		w.settled(3 * time.Minute)
		w.wantFinal("r1", "succeeded")
		w.wantPosts(1, 1)
	})
}

// A stream that takes nothing is a fault of the system: no more than a probe now and then is called, and once there is room
// all that was decided is published.
func TestFullStreamStopsCalls(t *testing.T) {
	for name, stream := range map[string]func(broker.Names) string{
		"results": func(n broker.Names) string { return n.ResultsStream },
		"audit":   func(broker.Names) string { return broker.AuditStream },
	} {
		t.Run(name, func(t *testing.T) {
			inWorld(t, setup{}, func(w *world) {
				w.ask("before", 1)
				w.settled(5 * time.Minute)
				s := stream(w.broker.Names())
				w.limit(s, func(c *jetstream.StreamConfig) { c.MaxMsgs, c.Discard = 2, jetstream.DiscardNew })
				for n := range 60 {
					w.ask(fmt.Sprint("r", n), 10+n)
				}
				w.until("a fault", time.Minute, func() bool {
					fault, on := w.replicas[0].breaker.Current()
					return on && fault.Code == health.NotPublished
				})
				w.passes(2 * time.Minute)
				if calls := len(w.called("unrestrict")); calls > 1+16+10 { // before it, those in hand, and a probe each 15 s
					t.Errorf("%d calls in two minutes in which nothing can be published", calls)
				}
				if fault, on := w.replicas[0].breaker.Current(); !on || !strings.Contains(fault.Reason, "maximum messages exceeded") {
					t.Errorf("said: %v %+v", on, fault)
				}
				for n := range 60 {
					if records := len(w.recorded(fmt.Sprint("r", n), ledger.AuditDecided)); records > 1 {
						t.Errorf("%d records of one decision", records)
					}
				}
				w.limit(s, func(c *jetstream.StreamConfig) { c.MaxMsgs = -1 })
				w.settled(15 * time.Minute)
				for n := range 60 {
					w.wantFinal(fmt.Sprint("r", n), "succeeded")
					w.wantPosts(10+n, 1)
				}
			})
		})
	}
}
