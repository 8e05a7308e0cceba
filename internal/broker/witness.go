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

// If the ledger is lost, it is not known any more which requests were called for. A process that finds a new ledger must find
// that out, because a new ledger by itself looks like a first start. There are three witnesses of an older ledger: the shared
// state, which names the present ledger; the audit trail, which has decisions from before the new ledger was created; and a
// process that has worked with the older one. So the ledger's loss goes unnoticed only if all three are gone too. If only state and
// trail are lost, nobody notices, but the ledger itself remains.

// ledgerKey is the key under which the shared state names the ledger. The whole account shares it, as it shares the ledger. Under
// the same key the ledger itself has a mark: since when it is complete. If somebody purges the stream, the mark is deleted with
// the entries.
const ledgerKey = "ledger"

// ledgerID identifies a ledger: when its stream was created or purged, and whether another ledger before it was lost.
type ledgerID struct {
	created time.Time
	lost    bool
}

// ledgerMark is the value of ledgerKey in the ledger: since when it is complete.
type ledgerMark struct {
	Since time.Time `json:"since"`
}

// ledgerWitness is the value of ledgerKey in the shared state.
type ledgerWitness struct {
	Created time.Time `json:"created"`
	Lost    bool      `json:"lost,omitempty"`
}

// markedSince reads since when the ledger is complete; zero: it has no mark.
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

// mark writes since when the ledger is complete: since its stream was created; or since now if known shows that this stream had a
// mark before, because then somebody has purged it. If the process crashes after that, the next one still asks the
// witnesses.
func (b *Broker) mark(ctx context.Context, created, known time.Time, revision uint64) (time.Time, error) {
	since := created
	if !known.IsZero() && !created.After(known) {
		info, err := b.ledger.Info(ctx)
		if err != nil {
			return since, err
		}
		since = info.TimeStamp // by the broker's clock, like the times of messages
	}
	if b.cfg.ReadOnly {
		return since, nil
	}
	value, err := json.Marshal(ledgerMark{since.UTC()})
	if err != nil {
		return since, err
	}
	fresh := stream.NewBucket(b.js, LedgerBucket) // not b.ledger, as in recoverFollowed
	if _, err := fresh.Save(ctx, ledger.Write{Key: ledgerKey, Value: value, Revision: revision}); err != nil {
		return since, retryable{fmt.Errorf("write since when the ledger has everything: %w", err)} // another replica was faster, or the ledger is down
	}
	return since, nil
}

// CheckLedger finds out whether the ledger was purged since the last inspection, and then treats it as lost. If it was not, the
// check costs one read.
func (b *Broker) CheckLedger(ctx context.Context) error {
	since, _, err := b.markedSince(ctx)
	if err != nil || !since.IsZero() {
		return err
	}
	_, err = b.provisionOnce(ctx)
	return err
}

// identify finds out whether a ledger before the present one was lost, and records that in the shared state. before is what this
// process knew. If it crashes before it has recorded that, the other witnesses remain for the next process.
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
			return id, retryable{fmt.Errorf("write which ledger there is: %w", err)} // another replica was faster, or the state is down
		}
	}
	return id, nil
}

// decidedBefore reports whether the audit trail has a decision from before a time. Records of what operators did do not count,
// because they may be older than the first ledger.
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

// recoverFollowed restores the entries of followed actions in a ledger that replaces a lost one, from the acceptances in the audit
// trail. It is idempotent: after a crash, or on another replica, it finds the entries that exist. It does not write through
// b.ledger, which accepts writes to the new ledger only when its users can know whether the old one was lost.
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
		accepted.Kind = ledger.AuditAccepted // for a decision too, so that Recovered names its run
		key, e, ok := accepted.Recovered()
		switch {
		case line.Kind == ledger.AuditAccepted && ok:
			open[run{key, e.Run}] = e
		case line.Kind == ledger.AuditDecided && ok:
			delete(open, run{key, e.Run})
		}
	}
	fresh := stream.NewBucket(b.js, LedgerBucket)
	for run, e := range open {
		if err := ledger.Save(ctx, &Ledger{fresh, b}, run.key, &e, 0); err != nil && !errors.Is(err, ledger.ErrConflict) {
			return fmt.Errorf("recover what was followed: %w", err)
		}
	}
	if len(open) > 0 {
		b.log.Info("actions that were followed under the lost ledger are followed again, as the audit trail has them", zap.Int("actions", len(open)))
	}
	return nil
}
