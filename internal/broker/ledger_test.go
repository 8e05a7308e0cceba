package broker_test

import (
	"maps"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"example.com/unrestrict-worker/internal/broker"
	"example.com/unrestrict-worker/internal/ledger"
)

// What is below a key are the keys with one part more, as they are now: none deeper, none that only begins so. Of a
// deleted one its mark is there.
func TestLoadBelow(t *testing.T) {
	s := runJetStream(t)
	b := open(t, broker.Config{URL: s.ClientURL(), Provision: true})
	if err := b.Provision(within(t)); err != nil {
		t.Fatal(err)
	}
	store := b.NewLedger()
	save := func(key, value string, revision uint64, ttl time.Duration) uint64 {
		t.Helper()
		rev, err := store.Save(within(t), ledger.Write{Key: key, Value: []byte(value), Revision: revision, TTL: ttl})
		if err != nil {
			t.Fatal(err)
		}
		return rev
	}
	if none, err := store.LoadBelow(within(t), "e.d.id"); err != nil || len(none) != 0 {
		t.Errorf("%v, %v", none, err)
	}
	for _, key := range []string{"e.d.id", "e.d.id2", "e.d.id2.ann", "e.d.id.ann.deeper", "e.d.i", "e.d.id.ann", "e.d.id.ben", "e.d.id.gone"} {
		save(key, key, 0, 0)
	}
	rec, err := store.Load(within(t), "e.d.id.ann")
	if err != nil {
		t.Fatal(err)
	}
	save("e.d.id.ann", "again", rec.Revision, 0)
	if err := store.Purge(within(t), "e.d.id.gone"); err != nil {
		t.Fatal(err)
	}
	below, err := store.LoadBelow(within(t), "e.d.id")
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff([]string{"e.d.id.ann", "e.d.id.ben", "e.d.id.gone"}, slices.Sorted(maps.Keys(below))); d != "" {
		t.Error(d)
	}
	for key, want := range map[string]string{"e.d.id.ann": "again", "e.d.id.ben": "e.d.id.ben", "e.d.id.gone": ""} {
		one, err := store.Load(within(t), key)
		if got := below[key]; err != nil || string(got.Value) != want || got.Revision != one.Revision || !got.Written.Equal(one.Written) {
			t.Errorf("%s is %+v, and alone %+v, %v", key, got, one, err)
		}
	}
}
