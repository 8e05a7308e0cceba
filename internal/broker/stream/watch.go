package stream

import (
	"context"
	"fmt"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"example.com/unrestrict-worker/internal/ledger"
)

// Same returns ErrRecreated if the bucket was not created at the given time, and sets that time to the present one. It is for
// code that follows a bucket over several watches: a deleted bucket ends a watch before the recreated one can show.
func Same(info *jetstream.StreamInfo, created *time.Time) error {
	before := *created
	*created = info.Created
	if before.IsZero() || before.Equal(info.Created) {
		return nil
	}
	return fmt.Errorf("%s: %w", info.Config.Name, ErrRecreated)
}

// Watch calls fn for the latest value of each key that matches one of the patterns, then synced once, then fn for each change. A
// deleted or expired key has a nil value. Watch returns nil when ctx ends, and an error when the watch breaks. There are two faults
// that the client library does not report. If the bucket was recreated, the library would continue behind the revisions of the
// bucket before, and miss the first values of the new one. And if a lost consumer can't be recreated because that is denied now,
// the library retries for ever without an error, so Watch compares what it has delivered with the bucket.
func (b *Bucket) Watch(ctx context.Context, patterns []string, synced func(), fn func(key string, r ledger.Record)) error {
	b.mu.Lock()
	recreated := b.recreated
	b.mu.Unlock()
	ctx, cancel := context.WithCancel(ctx) // the watch lives as long as this
	defer cancel()
	started := time.AfterFunc(Timeout, cancel)
	kv, err := b.js.KeyValue(ctx, b.name)
	if err != nil {
		return fmt.Errorf("watch the bucket %s: %w", b.name, err)
	}
	w, err := kv.WatchFiltered(ctx, append([]string(nil), patterns...))
	if started.Stop(); err != nil {
		return fmt.Errorf("watch the bucket %s: %w", b.name, err)
	}
	defer func() { _ = w.Stop() }()
	due := time.NewTicker(silence)
	defer due.Stop()
	var last, seen, latest uint64
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-recreated:
			return fmt.Errorf("watch %s: %w", b.name, ErrRecreated)
		case <-due.C:
			if last < latest && last == seen {
				return fmt.Errorf("the watch of the bucket %s has not shown for %v that there is revision %d", b.name, silence, latest)
			}
			seen, latest = last, b.latest(ctx, patterns)
		case e, ok := <-w.Updates():
			switch {
			case !ok && ctx.Err() != nil:
				return nil
			case !ok:
				return fmt.Errorf("the watch of the bucket %s ended", b.name)
			case e == nil:
				synced()
				continue
			case e.Revision() <= last:
				return fmt.Errorf("watch %s: %w", b.name, ErrRecreated)
			}
			last = e.Revision()
			r := ledger.Record{Revision: e.Revision(), Written: e.Created()}
			if e.Operation() == jetstream.KeyValuePut {
				r.Value = present(e.Value())
			}
			fn(e.Key(), r)
		}
	}
}

// silence is how long a watch may fail to deliver a value that the bucket has. The condition must be reported within 30 seconds,
// and a new watch takes up to Timeout to find out that it can't begin.
const silence = 8 * time.Second

// latest is the latest revision of the keys that match the patterns; 0: not known.
func (b *Bucket) latest(ctx context.Context, patterns []string) (revision uint64) {
	for _, keys := range patterns {
		r, err := b.Load(ctx, keys)
		if err != nil {
			return 0
		}
		revision = max(revision, r.Revision)
	}
	return revision
}
