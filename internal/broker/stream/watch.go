package stream

import (
	"context"
	"fmt"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"example.com/unrestrict-worker/internal/ledger"
)

// Same returns ErrMadeAnew if the bucket is another one than that of the given time of creation, which it sets. For whoever
// follows a bucket: one that is gone ends a watch before it is made anew.
func Same(info *jetstream.StreamInfo, created *time.Time) error {
	before := *created
	*created = info.Created
	if before.IsZero() || before.Equal(info.Created) {
		return nil
	}
	return fmt.Errorf("%s: %w", info.Config.Name, ErrMadeAnew)
}

// Watch calls fn for the latest value of each key that one of the patterns matches, then synced once, then fn for each
// change. A key that is gone has a nil value. It returns nil when ctx ends, and an error when the watch breaks: when the
// bucket was made anew, too, for the client library would go on behind the revisions of the one before and miss what the
// new one begins with; and when the watch shows no longer what is in the bucket, for the library tries for ever, and says
// nothing, to make a consumer again that was lost and is now denied.
func (b *Bucket) Watch(ctx context.Context, patterns []string, synced func(), fn func(key string, r ledger.Record)) error {
	b.mu.Lock()
	anew := b.anew
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
		case <-anew:
			return fmt.Errorf("watch %s: %w", b.name, ErrMadeAnew)
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
				return fmt.Errorf("watch %s: %w", b.name, ErrMadeAnew)
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

// silence is how long a watch may leave out what is in the bucket. What it holds up is to be said within 30 seconds, and a new
// watch takes up to Timeout to find out that it can't begin.
const silence = 8 * time.Second

// latest is the latest revision of the keys that the patterns match, 0 if that can't be told.
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
