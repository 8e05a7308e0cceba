package broker

import (
	"context"
	"encoding/json"
	"maps"
	"slices"
	"time"

	"example.com/unrestrict-worker/internal/ledger"
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
	keys, latest := b.cfg.Names.stateKeys(), s.CachedInfo().State.LastTime
	for {
		words, err := b.words(ctx)
		if err != nil {
			return
		}
		paused := words[keys.pause].Written
		delete(words, keys.pause)
		stale := func(w ledger.Record) bool {
			var p Presence
			busy := json.Unmarshal(w.Value, &p) == nil && p.InFlight+p.Followed > 0
			return w.Value != nil && (w.Written.Before(paused) || busy && w.Written.Before(latest))
		}
		if !slices.ContainsFunc(slices.Collect(maps.Values(words)), stale) || wait(ctx, settleEvery) != nil {
			return
		}
	}
}

// settleEvery is how often the replicas' words are read meanwhile.
const settleEvery = 50 * time.Millisecond
