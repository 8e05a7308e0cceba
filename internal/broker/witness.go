package broker

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"go.uber.org/zap"

	"example.com/unrestrict-worker/internal/broker/stream"
	"example.com/unrestrict-worker/internal/broker/trail"
	"example.com/unrestrict-worker/internal/ledger"
)

// A ledger that vanished took along which requests were called for. Whoever finds another one in its place must know that:
// a new ledger alone looks like a first start. Three can bear witness of an older one: the shared state, which names the
// ledger that there is; the audit trail, which has decisions from before the ledger was made; and a process that has worked
// with the older one. So no two of the three streams can vanish unnoticed but state and trail, which leaves the ledger.

// ledgerKey is where the shared state names the ledger. It is the account's, as the ledger is. Under the same key the ledger
// says since when it has everything, so that this goes with the entries if somebody purges the stream.
const ledgerKey = "ledger"

// ledgerID is one ledger: when its stream was created, or purged, and whether there was another one before, which was lost.
type ledgerID struct {
	created time.Time
	lost    bool
}

// ledgerMark is the value of ledgerKey in the ledger.
type ledgerMark struct {
	Since time.Time `json:"since"`
}

// ledgerWitness is the value of ledgerKey.
type ledgerWitness struct {
	Created time.Time `json:"created"`
	Lost    bool      `json:"lost,omitempty"`
}

// markedSince is since when the ledger has everything, as it says itself; zero: it does not say.
func (b *Broker) markedSince(ctx context.Context) (since time.Time, revision uint64, err error) {
	rec, err := b.ledger.Load(ctx, ledgerKey)
	if err != nil {
		return time.Time{}, 0, fmt.Errorf("read the ledger: %w", err)
	}
	var mark ledgerMark
	if rec.Value != nil && json.Unmarshal(rec.Value, &mark) != nil {
		return time.Time{}, 0, fmt.Errorf("the key %s of the ledger is not understood; another version may have written it", ledgerKey)
	}
	return mark.Since, rec.Revision, nil
}

// mark has the ledger say since when it has everything: since its stream was created, or since now where known says that it
// said so before, which somebody has purged then. A crash behind it leaves the witnesses to be asked.
func (b *Broker) mark(ctx context.Context, created, known time.Time, revision uint64) (time.Time, error) {
	since := created
	if !known.IsZero() && !created.After(known) {
		info, err := b.ledger.Info(ctx)
		if err != nil {
			return since, err
		}
		since = info.TimeStamp // the broker's, as the time of a message is
	}
	if b.cfg.ReadOnly {
		return since, nil
	}
	value, err := json.Marshal(ledgerMark{since.UTC()})
	if err != nil {
		return since, err
	}
	anew := stream.NewBucket(b.js, LedgerBucket) // as in recoverFollowed
	if _, err := anew.Save(ctx, ledger.Write{Key: ledgerKey, Value: value, Revision: revision}); err != nil {
		return since, again{fmt.Errorf("write since when the ledger has everything: %w", err)} // another replica was faster, or it is away
	}
	return since, nil
}

// CheckLedger has a ledger that was purged since the last look be known as lost. It costs one read where it was not.
func (b *Broker) CheckLedger(ctx context.Context) error {
	since, _, err := b.markedSince(ctx)
	if err != nil || !since.IsZero() {
		return err
	}
	_, err = b.provisionOnce(ctx)
	return err
}

// identify finds out whether the ledger was lost, and leaves word of it. before is what this process knew. A crash before
// the word is written leaves the other witnesses, of whom the next one asks.
func (b *Broker) identify(ctx context.Context, created time.Time, before ledgerID) (ledgerID, error) {
	rec, err := b.state.Load(ctx, ledgerKey)
	if err != nil {
		return ledgerID{}, fmt.Errorf("read which ledger there was: %w", err)
	}
	var w ledgerWitness
	if rec.Value != nil && json.Unmarshal(rec.Value, &w) != nil {
		w = ledgerWitness{}
	}
	since, revision, err := b.markedSince(ctx)
	if err == nil && since.IsZero() {
		known := before.created
		if w.Created.After(known) {
			known = w.Created
		}
		since, err = b.mark(ctx, created, known, revision)
	}
	if err != nil {
		return ledgerID{}, err
	}
	created = since
	id := ledgerID{created: created}
	switch {
	case rec.Value != nil && w.Created.Equal(created):
		id.lost = w.Lost
	case rec.Value != nil, !before.created.IsZero() && !before.created.Equal(created):
		id.lost = true
	case before.created.Equal(created):
		id.lost = before.lost
	default:
		if id.lost, err = b.decidedBefore(ctx, created); err != nil {
			return id, err
		}
	}
	if id.lost && id != before && !b.cfg.ReadOnly {
		if err := b.recoverFollowed(ctx); err != nil {
			return id, err
		}
	}
	if now := (ledgerWitness{created.UTC(), id.lost}); w != now && !b.cfg.ReadOnly {
		value, err := json.Marshal(now)
		if err != nil {
			return id, err
		}
		if _, err := b.state.Save(ctx, ledger.Write{Key: ledgerKey, Value: value, Revision: rec.Revision}); err != nil {
			return id, again{fmt.Errorf("write which ledger there is: %w", err)} // another replica was faster, or the state is away
		}
	}
	return id, nil
}

// decidedBefore says whether the audit trail has a decision from before a time. What operators do may be there before there
// is a ledger; it is followed by no decision then.
func (b *Broker) decidedBefore(ctx context.Context, created time.Time) (bool, error) {
	for m, err := range b.scan(ctx, AuditStream, part{subject: AuditSubject}) {
		if err != nil || !m.Time.Before(created) {
			return false, err
		}
		var line trail.Line
		if json.Unmarshal(m.Data, &line) == nil && line.Kind != trail.Opened && line.Kind != ledger.AuditOperated {
			return true, nil
		}
	}
	return false, nil
}

// recoverFollowed writes the entries of the actions that were followed into a ledger that was made in a lost one's place: the
// audit trail has their acceptances. Done again, after a crash or by another replica, it finds them there. It writes past
// b.ledger, whose users hear of the new ledger only when what was found out about it is known to them too.
func (b *Broker) recoverFollowed(ctx context.Context) error {
	type run struct {
		key string
		n   int
	}
	open := map[run]ledger.Entry{}
	p := part{subject: AuditSubject, since: time.Now().Add(-ledger.Retention)}
	for m, err := range b.scan(ctx, AuditStream, p) {
		if err != nil {
			return fmt.Errorf("recover what was followed: %w", err)
		}
		var line trail.Line
		if json.Unmarshal(m.Data, &line) != nil {
			continue
		}
		accepted := line.AuditRecord
		accepted.Kind = ledger.AuditAccepted // of a decision too: both name the run
		key, e, ok := accepted.Recovered()
		switch {
		case line.Kind == ledger.AuditAccepted && ok:
			open[run{key, e.Run}] = e
		case line.Kind == ledger.AuditDecided && ok:
			delete(open, run{key, e.Run})
		}
	}
	anew := stream.NewBucket(b.js, LedgerBucket)
	for run, e := range open {
		if err := ledger.Save(ctx, &Ledger{anew, b}, run.key, &e, 0); err != nil && !errors.Is(err, ledger.ErrConflict) {
			return fmt.Errorf("recover what was followed: %w", err)
		}
	}
	if len(open) > 0 {
		b.log.Info("actions that were followed under the lost ledger are followed again, as the audit trail has them", zap.Int("actions", len(open)))
	}
	return nil
}
