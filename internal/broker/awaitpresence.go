package broker

import (
	"context"
	"encoding/json"
	"maps"
	"slices"
	"time"

	"example.com/unrestrict-worker/internal/ledger"
)

// AwaitPresence waits, for a second at most, until the presence records are recent enough to show:
//   - every replica has published one since the operator's last pause or resume;
//   - a replica that has requests in hand, follows actions or is not ready has published one since the latest result;
//   - a replica has not just reported that it is not ready, because it may be ready by now.
//
// A replica publishes a change within a second, so somebody who has seen the result also sees the state after it.
func (b *Broker) AwaitPresence(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	s, err := b.js.Stream(ctx, b.cfg.Names.ResultsStream)
	if err != nil {
		return // the caller's next request reports the error
	}
	keys, latest, began := b.cfg.Names.stateKeys(), s.CachedInfo().State.LastTime, s.CachedInfo().TimeStamp
	for {
		records, err := b.presences(ctx)
		if err != nil {
			return
		}
		paused := records[keys.pause].Written
		delete(records, keys.pause)
		stale := func(r ledger.Record) bool {
			var p Presence
			if r.Value == nil || json.Unmarshal(r.Value, &p) != nil {
				return false
			}
			justNow := began.Sub(r.Written) < presenceEvery/5
			return r.Written.Before(paused) || (p.InFlight+p.Followed > 0 || !p.Ready) && r.Written.Before(latest) || !p.Ready && justNow
		}
		if !slices.ContainsFunc(slices.Collect(maps.Values(records)), stale) || wait(ctx, settleEvery) != nil {
			return
		}
	}
}

// settleEvery is how often AwaitPresence reads the presence records.
const settleEvery = 50 * time.Millisecond
