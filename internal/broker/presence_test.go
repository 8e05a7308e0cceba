package broker_test

import (
	"context"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"example.com/unrestrict-worker/internal/broker"
)

// TestLimitsOfTheOthers: a replica hears the limits that others have until they leave, or their word expires, and knows
// that it does not know all while one of them says what it does not understand.
func TestLimitsOfTheOthers(t *testing.T) {
	b := open(t, broker.Config{DataDir: t.TempDir(), Provision: true})
	if err := b.Provision(within(t)); err != nil {
		t.Fatal(err)
	}
	start := func(id string, limits map[string]int) (*broker.Replicas, func()) {
		r := b.NewReplicas(id)
		ctx, stop := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() { ended <- r.Run(ctx, func() broker.Presence { return broker.Presence{Limits: limits} }) }()
		return r, func() {
			stop()
			if err := <-ended; err != nil {
				t.Error(err)
			}
		}
	}
	one, stopOne := start("one", nil)
	defer stopOne()
	hears := func(known bool, want ...map[string]int) {
		t.Helper()
		eventually(t, "the others' limits", func() bool {
			got, all := one.Limits()
			return all == known && cmp.Equal(want, got)
		})
	}
	hears(true)
	_, stopTwo := start("two", map[string]int{"minute": 20})
	hears(true, map[string]int{"minute": 20})
	kv, err := b.JS().KeyValue(within(t), broker.StateBucket)
	if err != nil {
		t.Fatal(err)
	}
	names, err := kv.ListKeysFiltered(within(t), "replica.*.two")
	if err != nil {
		t.Fatal(err)
	}
	key := ""
	for key = range names.Keys() {
	}
	stream, err := b.JS().Stream(within(t), "KV_"+broker.StateBucket)
	if err != nil {
		t.Fatal(err)
	}
	if m, err := stream.GetLastMsgForSubject(within(t), "$KV."+broker.StateBucket+"."+key); err != nil || m.Header.Get("Nats-TTL") != (15*time.Second).String() {
		t.Errorf("the word of %s: %v, %v", key, m, err)
	}
	stopTwo()
	hears(true)
	if err := b.State().Put(within(t), key, []byte(`{"limits":{"minute":{"calls":20}}}`), 0); err != nil {
		t.Fatal(err)
	}
	hears(false)
	if err := b.State().Purge(within(t), key); err != nil {
		t.Fatal(err)
	}
	hears(true)
}
