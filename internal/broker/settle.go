package broker

import (
	"context"
	"encoding/json"
	"maps"
	"slices"
	"time"

	"github.com/nats-io/nats.go/jetstream"
)

// Settle waits, for a second at most, until the replicas have spoken since the operator's last word on a pause, and those
// that have something in hand or follow something since the latest result: a replica says what changed within that time,
// and who saw the one is to see the other.
func (b *Broker) Settle(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	s, err := b.js.Stream(ctx, b.cfg.Names.ResultsStream)
	if err != nil {
		return // whoever asks next is told
	}
	kv, err := b.js.KeyValue(ctx, StateBucket)
	if err != nil {
		return
	}
	keys := b.cfg.Names.stateKeys()
	w, err := kv.WatchFiltered(ctx, []string{keys.pause, keys.replica + "*"})
	if err != nil {
		return
	}
	defer func() { _ = w.Stop() }()
	var paused time.Time
	words, all := map[string]jetstream.KeyValueEntry{}, false
	stale := func(e jetstream.KeyValueEntry) bool {
		var p Presence
		busy := json.Unmarshal(e.Value(), &p) == nil && p.InFlight+p.Followed > 0
		return e.Created().Before(paused) || busy && e.Created().Before(s.CachedInfo().State.LastTime)
	}
	for !all || slices.ContainsFunc(slices.Collect(maps.Values(words)), stale) {
		select {
		case <-ctx.Done():
			return
		case e, ok := <-w.Updates():
			switch {
			case !ok:
				return
			case e == nil:
				all = true
			case e.Key() == keys.pause:
				paused = e.Created()
			case e.Operation() == jetstream.KeyValuePut:
				words[e.Key()] = e
			default:
				delete(words, e.Key())
			}
		}
	}
}
