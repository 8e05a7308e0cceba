package broker

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"example.com/unrestrict-worker/internal/budget"

	"example.com/unrestrict-worker/internal/ledger"
)

// OpenReplicas is NewReplicas for a command that pauses or resumes: of Provision it needs, and makes if create says so,
// the state bucket alone. One that is missing and is not made is IsMissing.
func (b *Broker) OpenReplicas(ctx context.Context, create bool) (*Replicas, error) {
	kv, err := b.bucket(ctx, StateBucket)
	if IsMissing(err) && create {
		_, err = within(ctx, func(ctx context.Context) (jetstream.Stream, error) {
			return b.js.CreateStream(ctx, b.topology.state.cfg)
		})
		if err != nil && !errors.Is(err, jetstream.ErrStreamNameAlreadyInUse) {
			return nil, fmt.Errorf("create bucket %s: %w", StateBucket, err)
		}
		kv, err = b.bucket(ctx, StateBucket)
	}
	if err != nil {
		return nil, err
	}
	return &Replicas{kv: kv, keys: b.cfg.Names.stateKeys(), log: b.log, changed: make(chan struct{})}, nil
}

func (b *Broker) bucket(ctx context.Context, name string) (jetstream.KeyValue, error) {
	kv, err := within(ctx, func(ctx context.Context) (jetstream.KeyValue, error) { return b.js.KeyValue(ctx, name) })
	if errors.Is(err, jetstream.ErrBucketNotFound) {
		err = jetstream.ErrStreamNotFound // which it is
	}
	if err != nil {
		return nil, fmt.Errorf("bucket %s: %w", name, err)
	}
	return kv, nil
}

// OpenLedger is NewLedger for a command that reads. A bucket that is not there is IsMissing.
func (b *Broker) OpenLedger(ctx context.Context) (*Ledger, error) {
	kv, err := b.bucket(ctx, LedgerBucket)
	if err != nil {
		return nil, err
	}
	return &Ledger{bucketStore: newBucketStore(b.js, LedgerBucket), b: b, kv: kv, filter: ledger.EntryKeys(b.cfg.Names.Stream)}, nil
}

// Search calls fn for each entry that there is now; one that is written meanwhile may come twice.
func (l *Ledger) Search(ctx context.Context, fn func(ledger.Entry)) error {
	p := part{subject: l.prefix + l.filter, bucket: true}
	return l.b.scan(ctx, "KV_"+LedgerBucket, p, func(m Message) error {
		// One that is not understood is none that is sought.
		if e, err := ledger.DecodeEntry(record(nats.Header(m.Header), m.Data, m.Sequence, m.Time)); err == nil && e.State != "" {
			fn(e)
		}
		return nil
	})
}

// RateVisitor is the shared call budget for a command that makes a call now and then and is no replica: it takes from
// the windows that the workers keep, as they have set them, and creates, alters and announces nothing. The zero value
// is a budget without limits.
type RateVisitor struct {
	store   *RateStore
	windows []string // those that there are
}

// VisitRates looks for the windows. Those that no worker has made limit nobody.
func (b *Broker) VisitRates(ctx context.Context, windows []budget.Window) (*RateVisitor, error) {
	kv, err := b.bucket(ctx, StateBucket)
	if IsMissing(err) {
		return &RateVisitor{}, nil
	}
	if err != nil {
		return nil, err
	}
	stream, err := within(ctx, func(ctx context.Context) (jetstream.Stream, error) { return b.js.Stream(ctx, "KV_"+StateBucket) })
	if err != nil {
		return nil, fmt.Errorf("bucket %s: %w", StateBucket, err)
	}
	v := &RateVisitor{store: &RateStore{js: b.js, state: kv, bucket: stream}}
	for _, w := range windows {
		_, err := within(ctx, func(ctx context.Context) (jetstream.Stream, error) { return b.js.Stream(ctx, rateStream(w.Name)) })
		switch {
		case err == nil:
			v.windows = append(v.windows, w.Name)
		case !IsMissing(err):
			return nil, fmt.Errorf("stream %s: %w", rateStream(w.Name), err)
		}
	}
	return v, nil
}

// Take takes one call of every window, or none and says so with a *budget.WaitError: it does not wait.
func (v *RateVisitor) Take(ctx context.Context, _ string) (time.Time, error) {
	granted := time.Now()
	if v.store == nil {
		return granted, nil
	}
	if d, err := v.ClosedFor(ctx); err != nil || d > 0 {
		if err != nil {
			return time.Time{}, err
		}
		return time.Time{}, &budget.WaitError{For: d, Closed: true}
	}
	for _, window := range v.windows {
		free, err := v.store.publishGrant(ctx, window)
		if err != nil {
			return time.Time{}, fmt.Errorf("take a call of the %s window: %w", window, err)
		}
		if !free {
			return time.Time{}, &budget.WaitError{For: time.Second}
		}
	}
	return granted, nil
}

// Fresh tells whether a call granted then may still start.
func (v *RateVisitor) Fresh(granted time.Time) bool {
	return budget.InTime(granted)
}

// Close tells the workers that the API throttles.
func (v *RateVisitor) Close(ctx context.Context, d time.Duration) error {
	if v.store == nil {
		return nil
	}
	return v.store.writeClosed(ctx, time.Now().Add(d))
}

// ClosedFor is how much longer no call is made because the API throttles; 0: it doesn't.
func (v *RateVisitor) ClosedFor(ctx context.Context) (time.Duration, error) {
	if v.store == nil {
		return 0, nil
	}
	if err := v.store.readClosed(ctx); err != nil {
		return 0, err
	}
	_, until, _ := v.store.Closed()
	return max(time.Until(until), 0), nil
}
