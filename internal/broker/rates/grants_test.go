package rates

import (
	"fmt"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"example.com/unrestrict-worker/internal/budget"
)

// alter changes a window's stream as somebody else may.
func (r *replica) alter(change func(*jetstream.StreamConfig)) {
	r.tb.Helper()
	s, err := r.js.Stream(r.tb.Context(), "UNRESTRICT_RATE_MINUTE")
	if err == nil {
		cfg := s.CachedInfo().Config
		change(&cfg)
		_, err = r.js.UpdateStream(r.tb.Context(), cfg)
	}
	if err != nil {
		r.tb.Fatal(err)
	}
}

func (r *replica) window() jetstream.Stream {
	r.tb.Helper()
	s, err := r.js.Stream(r.tb.Context(), "UNRESTRICT_RATE_MINUTE")
	if err != nil {
		r.tb.Fatal(err)
	}
	return s
}

// Whatever takes grants out of a window's stream, no more calls than the limit are made in any minute: the window is known to
// be incomplete, until all that it may have forgotten has aged out.
func TestForgottenGrantsCount(t *testing.T) {
	for name, forget := range map[string]func(*testing.T, *replica){
		"purged":             func(t *testing.T, r *replica) { must(t, r.window().Purge(t.Context())) },
		"purged but for ten": func(t *testing.T, r *replica) { must(t, r.window().Purge(t.Context(), jetstream.WithPurgeKeep(10))) },
		"one deleted": func(t *testing.T, r *replica) {
			must(t, r.window().DeleteMsg(t.Context(), r.window().CachedInfo().State.LastSeq-5))
		},
		"max_age": func(t *testing.T, r *replica) {
			r.alter(func(c *jetstream.StreamConfig) { c.MaxAge = time.Second })
			time.Sleep(3 * time.Second)
		},
		"max_msgs, discard old": func(_ *testing.T, r *replica) {
			r.alter(func(c *jetstream.StreamConfig) {
				c.MaxMsgs, c.Discard, c.DiscardNewPerSubject = 5, jetstream.DiscardOld, false
			})
		},
		"max_msgs_per_subject": func(_ *testing.T, r *replica) { r.alter(func(c *jetstream.StreamConfig) { c.MaxMsgsPerSubject = 5 }) },
	} {
		for _, restarted := range []bool{false, true} {
			if restarted && name != "purged" && name != "one deleted" {
				continue // nobody is left who has seen the others
			}
			t.Run(fmt.Sprintf("%s, restarted %t", name, restarted), func(t *testing.T) {
				bubble(t, func(t *testing.T, w *world) {
					a := w.replica(budget.Limits(50, 0))
					for range 4 {
						a.take(10)
						time.Sleep(3 * time.Second)
					}
					forget(t, a)
					if restarted {
						a.stop()
						time.Sleep(time.Second)
						a = w.replica(budget.Limits(50, 0))
					}
					b := w.replica(budget.Limits(50, 0))
					a.want(0, 66*time.Second+budget.StartLimit)
					b.want(0, 66*time.Second+budget.StartLimit)
					if until, window := b.store.UnknownUntil(); until.IsZero() || window != "minute" {
						t.Error("it is not said")
					}
					for range 15 { // looks on the way do not put it off
						time.Sleep(5 * time.Second)
						_, err := a.store.Look(t.Context(), "minute")
						must(t, err)
					}
					b.want(50, time.Minute)
				})
			})
		}
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// Grants that age out are no loss, however the calls are spread.
func TestAgedOutGrantsAreNoLoss(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		a, b := w.replica(budget.Limits(50, 0)), w.replica(budget.Limits(50, 0))
		for i := range 200 {
			a.take(1 + i%3)
			if time.Sleep(time.Duration(i%7) * 2 * time.Second); i%5 == 0 {
				b.take(1)
			}
			if until, _ := a.store.UnknownUntil(); !until.IsZero() {
				t.Fatalf("a loss after %d", i)
			}
		}
		time.Sleep(3 * time.Minute)
		a.want(50, time.Minute)
	})
}

// A limit of others on a window's stream is taken back, and not taken for the API's.
func TestLimitsOfOthersAreTakenBack(t *testing.T) {
	for name, limit := range map[string]func(*jetstream.StreamConfig){
		"max_msgs":  func(c *jetstream.StreamConfig) { c.MaxMsgs = 20 },
		"max_bytes": func(c *jetstream.StreamConfig) { c.MaxBytes = 1000 },
		"no_ack":    func(c *jetstream.StreamConfig) { c.NoAck = true },
		"subjects":  func(c *jetstream.StreamConfig) { c.Subjects = []string{"another"} },
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T, w *world) {
				a := w.replica(budget.Limits(50, 0))
				a.take(10)
				a.alter(limit)
				a.want(40, time.Minute)
			})
		})
	}
}
