package broker

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"time"

	"go.uber.org/zap"

	"example.com/unrestrict-worker/internal/ledger"
	"example.com/unrestrict-worker/internal/message"
)

// tallyRecord is what was counted; all replicas and commands share it, also after a restart.
type tallyRecord struct {
	Cursor
	Counts map[int64]map[string]int `json:"counts"` // by the minute since 1970, then by outcome
}

// tallyMost bounds the size of a valid record, which has some 200 minutes and quarters of an hour.
const tallyMost = 1 << 18

// readTally decodes a record; false for a value that no Tally can have written.
func readTally(value []byte, now time.Time) (r tallyRecord, ok bool) {
	if len(value) > tallyMost || json.Unmarshal(value, &r) != nil || r.Stream.IsZero() || r.Next == 0 {
		return tallyRecord{}, false
	}
	all := uint64(0)
	for minute, counts := range r.Counts {
		at := time.Unix(minute*60, 0)
		if at.After(now.Add(time.Hour)) || at.Before(now.Add(-2*tallyOver)) { // the broker's clock may differ
			return tallyRecord{}, false
		}
		for outcome, n := range counts {
			if !message.IsOutcome(outcome) || n <= 0 || uint64(n) >= r.Next-min(all, r.Next) {
				return tallyRecord{}, false
			}
			all += uint64(n)
		}
	}
	return r, true
}

// load begins with the record, if there is one. ReadResults checks whether the record is for this stream.
func (t *Tally) load(ctx context.Context) error {
	stored, err := t.store.Load(ctx, t.key)
	if err != nil && !IsMissing(err) {
		return fmt.Errorf("read the tally of results: %w", err)
	}
	t.revision = stored.Revision
	if r, ok := readTally(stored.Value, time.Now()); ok {
		t.at, t.recorded = r.Cursor, r.Cursor
		t.begin(r.Counts)
	}
	return nil
}

// Run updates the record, some seconds after this process has published results, until ctx ends. Each replica does so; the one
// that has counted further wins.
func (t *Tally) Run(ctx context.Context) error {
	most := 0 // at first all results: there may be no record
	for {
		err := t.keep(ctx, most)
		if err == nil {
			most = tallyAtOnce
			select {
			case <-t.b.results:
			case <-ctx.Done():
			}
		} else if !errors.Is(err, errStopFollow) && ctx.Err() == nil {
			t.b.repeating.Warn("the tally of results is not recorded", zap.Error(err))
		}
		if wait(ctx, tallyEvery) != nil {
			last, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
			defer cancel()
			_ = t.keep(last, tallyAtOnce) // if this fails, the next reader begins at the record before
			return nil
		}
	}
}

// keep reads what follows and writes the record. It returns errStopFollow if there is more to read.
func (t *Tally) keep(ctx context.Context, most int) error {
	return t.inTurn(ctx, func() error {
		unread := t.read(ctx, most)
		if unread != nil && !errors.Is(unread, errStopFollow) {
			return unread
		}
		if err := t.record(ctx); err != nil {
			return err
		}
		return unread
	})
}

// record replaces the stored record, unless that one has counted further.
func (t *Tally) record(ctx context.Context) error {
	if t.at == t.recorded {
		return nil
	}
	now := time.Now()
	value, err := json.Marshal(tallyRecord{Cursor: t.at, Counts: t.recordable(now)})
	if err != nil {
		return err
	}
	for {
		revision, err := t.store.Save(ctx, ledger.Write{Key: t.key, Value: value, Revision: t.revision, TTL: tallyOver})
		if err == nil {
			t.revision, t.recorded = revision, t.at
		}
		if !errors.Is(err, ledger.ErrConflict) {
			return err
		}
		stored, err := t.store.Load(ctx, t.key)
		if err != nil {
			return err
		}
		t.revision = stored.Revision
		if theirs, ok := readTally(stored.Value, now); ok && theirs.Stream.Equal(t.at.Stream) && theirs.Next >= t.at.Next {
			return nil
		}
	}
}

func (t *Tally) recordable(now time.Time) map[int64]map[string]int {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.age(now)
	counts := map[int64]map[string]int{}
	for at, byOutcome := range t.counts {
		counts[at.Unix()/60] = maps.Clone(byOutcome)
	}
	return counts
}
