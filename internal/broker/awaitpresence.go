package broker

import (
	"context"
	"encoding/json"
	"maps"
	"slices"
	"time"

	"example.com/unrestrict-worker/internal/ledger"
)

// AwaitPresence waits, for a second at most, until the replicas have reported since the operator's last pause or resume. Those that
// have something in hand, follow something or are not ready must have reported since the latest result, and one that has
// just reported that it is not ready may be so by now: a replica reports a change within that time, and whoever saw the one
// is to see the other.
func (b *Broker) AwaitPresence(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	s, err := b.js.Stream(ctx, b.cfg.Names.ResultsStream)
	if err != nil {
		return // whoever asks next is told
	}
	keys, latest, began := b.cfg.Names.stateKeys(), s.CachedInfo().State.LastTime, s.CachedInfo().TimeStamp
	for {
		words, err := b.presences(ctx)
		if err != nil {
			return
		}
		paused := words[keys.pause].Written
		delete(words, keys.pause)
		stale := func(w ledger.Record) bool {
			var p Presence
			if w.Value == nil || json.Unmarshal(w.Value, &p) != nil {
				return false
			}
			justNow := began.Sub(w.Written) < presenceEvery/5
			return w.Written.Before(paused) || (p.InFlight+p.Followed > 0 || !p.Ready) && w.Written.Before(latest) || !p.Ready && justNow
		}
		if !slices.ContainsFunc(slices.Collect(maps.Values(words)), stale) || wait(ctx, settleEvery) != nil {
			return
		}
	}
}

// settleEvery is how often the replicas' words are read meanwhile.
const settleEvery = 50 * time.Millisecond
