package broker

import (
	"context"
	"errors"
	"fmt"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"example.com/unrestrict-worker/internal/broker/rates"
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

// VisitRates is the call budget for a command that is no replica. Without a state bucket no worker limits anybody.
func (b *Broker) VisitRates(ctx context.Context, windows []budget.Window) (*rates.Visitor, error) {
	kv, err := b.bucket(ctx, StateBucket)
	if IsMissing(err) {
		return &rates.Visitor{}, nil
	}
	if err != nil {
		return nil, err
	}
	return rates.Visit(ctx, b.js, kv, windows)
}
