package broker_test

import (
	"context"
	"strings"
	"sync"
	"testing"
	"time"

	"example.com/unrestrict-worker/internal/broker"
	"example.com/unrestrict-worker/internal/ledger"
)

// What a newer version says in a form of its own is not taken for nothing.
func TestStateNotUnderstood(t *testing.T) {
	worker := open(t, broker.Config{URL: runJetStream(t).ClientURL(), Provision: true})
	if err := worker.Provision(within(t)); err != nil {
		t.Fatal(err)
	}
	deployment := ledger.DeploymentDigest(worker.Names().Stream)
	for key, value := range map[string]string{
		"pause." + deployment:              `{"reason":{"text":"freeze"},"since":0}`,
		"replica." + deployment + ".newer": `{"ready":["consuming"],"inFlight":1}`,
	} {
		if err := worker.State().Put(within(t), key, []byte(value), 0); err != nil {
			t.Fatal(err)
		}
	}
	o, err := worker.Overview(within(t), nil)
	if err != nil || o.Pause == nil || !strings.Contains(o.Pause.Reason, "not understood") {
		t.Errorf("%v, the pause: %+v", err, o.Pause)
	}
	if len(o.Replicas) != 1 || o.Replicas[0].Ready || !strings.Contains(o.Replicas[0].Reason, "not understood") {
		t.Errorf("the replicas: %+v", o.Replicas)
	}
	replicas := worker.NewReplicas("older")
	ctx, cancel := context.WithCancel(t.Context())
	var there sync.WaitGroup
	there.Go(func() { _ = replicas.Run(ctx, func() broker.Presence { return broker.Presence{} }) })
	defer there.Wait()
	defer cancel()
	for limit := within(t); replicas.Paused() == nil; time.Sleep(10 * time.Millisecond) {
		if limit.Err() != nil {
			t.Fatal("not paused")
		}
	}
	if err := replicas.Resume(within(t)); err != nil {
		t.Fatal(err)
	}
	if err := replicas.Unpaused(within(t)); err != nil {
		t.Errorf("still paused: %v", err)
	}
}
