package broker_test

import (
	"context"
	"fmt"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/zap"

	"example.com/unrestrict-worker/internal/broker"
	"example.com/unrestrict-worker/internal/health"
	"example.com/unrestrict-worker/internal/ledger"
)

// Whoever saw the last result and asks then sees that nothing is followed any more, though a replica tells the others
// only some time after a change.
func TestSettledStatusKnowsOfTheLastResult(t *testing.T) {
	b := open(t, broker.Config{DataDir: t.TempDir(), Provision: true})
	if err := b.Provision(within(t)); err != nil {
		t.Fatal(err)
	}
	replicas := b.NewReplicas("one")
	var followed atomic.Int64
	var ready atomic.Bool
	followed.Store(1)
	ready.Store(true)
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() {
		ended <- replicas.Run(ctx, func() broker.Presence { return broker.Presence{Ready: ready.Load(), Followed: int(followed.Load())} })
	}()
	defer func() {
		stop()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	}()
	for n := 0; n != 1; {
		o, err := b.Overview(within(t), nil)
		if err != nil {
			t.Fatal(err)
		}
		n = o.Followed
	}
	for range 3 {
		b.AwaitPresence(within(t)) // there is nothing to wait for
	}
	followed.Store(0)
	if _, err := b.JS().Publish(within(t), "remediation.results", []byte("{}")); err != nil {
		t.Fatal(err)
	}
	b.AwaitPresence(within(t))
	o, err := b.Overview(within(t), nil)
	if err != nil || o.Followed != 0 {
		t.Errorf("%d followed, %v", o.Followed, err)
	}
	if len(o.Replicas) != 1 || o.Replicas[0].ID != "one" {
		t.Errorf("replicas %+v", o.Replicas)
	}

	// The same after a pause, and after its end.
	for _, on := range []bool{true, false} {
		if on {
			err = replicas.Pause(within(t), broker.Pause{Reason: "look", Since: time.Now()})
		} else {
			err = replicas.Resume(within(t))
		}
		if err != nil {
			t.Fatal(err)
		}
		ready.Store(!on)
		b.AwaitPresence(within(t))
		if o, err := b.Overview(within(t), nil); err != nil || o.Replicas[0].Ready == on {
			t.Errorf("paused %v: %+v, %v", on, o.Replicas, err)
		}
	}

	// And soon after a start, which a replica reports before it is ready.
	ready.Store(false)
	for said := true; said; {
		o, err := b.Overview(within(t), nil)
		if err != nil {
			t.Fatal(err)
		}
		said = o.Replicas[0].Ready
	}
	ready.Store(true)
	b.AwaitPresence(within(t))
	if o, err := b.Overview(within(t), nil); err != nil || !o.Replicas[0].Ready {
		t.Errorf("after a start: %+v, %v", o.Replicas, err)
	}
}

// A replica that ends is not spoken of any more, at whatever moment it ends.
func TestPresenceEndsWithItsReplica(t *testing.T) {
	b := open(t, broker.Config{DataDir: t.TempDir(), Provision: true})
	if err := b.Provision(within(t)); err != nil {
		t.Fatal(err)
	}
	for n := range 60 {
		replicas := b.NewReplicas(fmt.Sprint("replica", n))
		ctx, stop := context.WithCancel(t.Context())
		err := replicas.Run(ctx, func() broker.Presence {
			time.AfterFunc(time.Duration(n)*20*time.Microsecond, stop) // somewhere in its first word, or behind it
			return broker.Presence{Ready: true}
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	if o, err := b.Overview(within(t), nil); err != nil || len(o.Replicas) != 0 {
		t.Errorf("%d replicas, %v", len(o.Replicas), err)
	}
}

// What a replica said of itself, and should have expired, is there: the broker stores nothing, and whoever asks hears it.
func TestPresenceThatDoesNotExpire(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		b, err := broker.Open(t.Context(), broker.Config{DataDir: dir, Provision: true}, zap.NewNop())
		if err != nil {
			t.Fatal(err)
		}
		if err := b.Provision(t.Context()); err != nil {
			t.Fatal(err)
		}
		key := "replica." + ledger.DeploymentDigest(b.Names().Stream) + ".one"
		if err := b.State().Put(t.Context(), key, []byte(`{"ready":true}`), 0); err != nil {
			t.Fatal(err)
		}
		for _, want := range []broker.Presence{{ID: "one", Ready: true}, {ID: "one", Code: health.Store}} {
			o, err := b.Overview(t.Context(), nil)
			if err != nil || len(o.Replicas) != 1 {
				t.Fatalf("%+v, %v", o, err)
			}
			got := o.Replicas[0]
			_, said := health.Has(got.Conditions, health.Store)
			if got.ID != want.ID || got.Ready != want.Ready || got.Code != want.Code || said == want.Ready {
				t.Errorf("%+v, want %+v", got, want)
			}
			time.Sleep(25 * time.Second)
		}
		if err := b.Close(t.Context()); err != nil {
			t.Error(err)
		}
	})
}
