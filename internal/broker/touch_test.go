package broker

import (
	"context"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"
)

// runsIn runs a replica in a bubble until the test ends.
func runsIn(t *testing.T, b *Broker) *Replicas {
	t.Helper()
	r := b.NewReplicas("one")
	ctx, stop := context.WithCancel(t.Context())
	var running sync.WaitGroup
	running.Go(func() { _ = r.Run(ctx, func() Presence { return Presence{Ready: true} }) })
	t.Cleanup(func() { stop(); running.Wait() })
	return r
}

// A watch whose consumer somebody has deleted is silent. What this replica says of itself gives it away, and the watch begins
// anew before the client library has noticed.
func TestPauseReachesAReplicaWhoseWatchWasDeleted(t *testing.T) {
	kept(t, func(t *testing.T, b *Broker) {
		r := runsIn(t, b)
		time.Sleep(7 * time.Second)
		state, err := b.js.Stream(t.Context(), "KV_"+StateBucket)
		if err != nil {
			t.Fatal(err)
		}
		for info := range state.ListConsumers(t.Context()).Info() {
			if err := state.DeleteConsumer(t.Context(), info.Name); err != nil {
				t.Fatal(err)
			}
		}
		if err := r.Pause(t.Context(), Pause{Reason: "freeze"}); err != nil {
			t.Fatal(err)
		}
		time.Sleep(presenceEvery + echoWithin + time.Second)
		if r.Paused() == nil {
			t.Error("the pause is not known")
		}
		if c, out := r.OutOfTouch(); out {
			t.Errorf("it is said meanwhile: %v", c)
		}
	})
}

// A lease that does not expire, as of somebody's hand, is taken over.
func TestLeaseThatDoesNotExpire(t *testing.T) {
	kept(t, func(t *testing.T, b *Broker) {
		r := runsIn(t, b)
		kv, err := b.js.KeyValue(t.Context(), StateBucket)
		if err == nil {
			_, err = kv.Put(t.Context(), b.cfg.Names.stateKeys().lease+"test", []byte("mine"))
		}
		if err != nil {
			t.Fatal(err)
		}
		held := make(chan struct{})
		ctx, stop := context.WithCancel(t.Context())
		var holding sync.WaitGroup
		defer holding.Wait()
		defer stop()
		holding.Go(func() {
			_ = r.Hold(ctx, "test", func(ctx context.Context) error { close(held); <-ctx.Done(); return nil })
		})
		time.Sleep(leaseTTL)
		select {
		case <-held:
			t.Error("taken from one that may be alive")
		default:
		}
		time.Sleep(leaseRenew + 2*time.Second)
		select {
		case <-held:
		default:
			t.Error("nobody holds it")
		}
	})
}

// The worker's own bucket is given back what it relies on.
func TestStateBucketThatRefusesASecondValue(t *testing.T) {
	kept(t, func(t *testing.T, b *Broker) {
		state, err := b.js.Stream(t.Context(), "KV_"+StateBucket)
		if err != nil {
			t.Fatal(err)
		}
		cfg := state.CachedInfo().Config
		if cfg.DiscardNewPerSubject = true; cfg.Discard != jetstream.DiscardNew {
			t.Fatal("not as provisioned")
		}
		if _, err := b.js.UpdateStream(t.Context(), cfg); err != nil {
			t.Fatal(err)
		}
		time.Sleep(2 * keepEvery)
		for range 2 {
			if err := b.state.Put(t.Context(), "key", []byte("value"), 0); err != nil {
				t.Error(err)
			}
		}
	})
}
