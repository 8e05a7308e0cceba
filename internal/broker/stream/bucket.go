package stream

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"example.com/unrestrict-worker/internal/ledger"
)

// Bucket is a key-value bucket with compare-and-set and a lifetime for each key. jetstream.KeyValue has no update with a
// lifetime, and no way to read only from the leader.
type Bucket struct {
	js     jetstream.JetStream
	name   string
	stream string
	prefix string // of the subjects
	to     string // of the subjects to write to; they differ if the bucket is in a domain, because $KV does not route there

	mu        sync.Mutex
	created   time.Time     // when its stream was created, by the last call of SetCreated
	sequence  uint64        // the stream's last sequence, by the same call
	recreated chan struct{} // closed, and replaced, when the bucket was recreated
	last      uint64        // the latest revision that this process has written
	stale     bool          // the bucket was recreated, and SetCreated was not called for the new one yet
}

// ErrRecreated means that the bucket was recreated: what the one before held is gone.
var ErrRecreated = ledger.ErrRecreated

// MarkerTTL is how long the broker keeps the delete marker of a key, so that a watch that was interrupted for less still
// receives it.
const MarkerTTL = time.Hour

// NewBucket returns the bucket of a name, which need not exist yet.
func NewBucket(js jetstream.JetStream, name string) *Bucket {
	b := &Bucket{js: js, name: name, stream: "KV_" + name, prefix: "$KV." + name + ".", recreated: make(chan struct{})}
	if b.to = b.prefix; js.Options().Domain != "" {
		b.to = API(js, b.prefix)
	}
	return b
}

// Subject is the subject of a key, or of several keys with wildcards.
func (b *Bucket) Subject(key string) string { return b.prefix + key }

// WriteTo is the subject on which a key is written.
func (b *Bucket) WriteTo(key string) string { return b.to + key }

// Key is the key that a message of the bucket's stream is about.
func (b *Bucket) Key(m Message) string { return strings.TrimPrefix(m.Subject, b.prefix) }

// SetCreated records when the bucket's stream was created, and its last sequence. If the time has changed, the bucket was
// recreated. If the sequence went back, a server has lost what it had not synced to disk. Either ends the watches.
func (b *Bucket) SetCreated(created time.Time, last uint64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if !b.created.IsZero() && (!b.created.Equal(created) || last < b.sequence) {
		close(b.recreated)
		b.recreated, b.last = make(chan struct{}), 0
	}
	b.created, b.sequence, b.stale = created, last, false
}

// Load reads a key's latest value from the leader. For a deleted or expired key it returns the marker's revision, which the next
// write must expect.
func (b *Bucket) Load(ctx context.Context, key string) (ledger.Record, error) {
	m, found, err := Get(ctx, b.js, b.stream, Query{Last: b.prefix + key})
	if err != nil || !found {
		return ledger.Record{}, err
	}
	return Record(m), nil
}

// LoadBelow implements ledger.Ledger. It reads one message after the other from the stream's leader: there are seldom more than
// two.
func (b *Bucket) LoadBelow(ctx context.Context, key string) (map[string]ledger.Record, error) {
	below := map[string]ledger.Record{}
	for seq := uint64(1); ; {
		m, found, err := Get(ctx, b.js, b.stream, Query{Sequence: seq, Next: b.prefix + key + ".*"})
		if err != nil || !found {
			return below, err
		}
		below[b.Key(m)] = Record(m)
		seq = m.Sequence + 1
	}
}

// Record turns a message of a bucket's stream into a record, whose Value is nil for a delete marker.
func Record(m Message) ledger.Record {
	r := ledger.Record{Value: present(m.Data), Revision: m.Sequence, Written: m.Time}
	if m.Header.Get("KV-Operation") != "" || m.Header.Get(jetstream.MarkerReasonHeader) != "" {
		r.Value = nil
	}
	return r
}

// present makes an empty value non-nil, because nil means that there is no value.
func present(value []byte) []byte {
	if value == nil {
		return []byte{}
	}
	return value
}

// Save implements ledger.Ledger.
func (b *Bucket) Save(ctx context.Context, w ledger.Write) (uint64, error) {
	return pinned{b, b.generation()}.Save(ctx, w)
}

// SaveBoth implements ledger.Ledger. Both writes keep their order, because they use one connection and one stream.
func (b *Bucket) SaveBoth(ctx context.Context, first, second ledger.Write) (ledger.Saved, ledger.Saved) {
	return pinned{b, b.generation()}.SaveBoth(ctx, first, second)
}

// Pin implements ledger.Pinner.
func (b *Bucket) Pin() ledger.Ledger { return pinned{b, b.generation()} }

// pinned writes only into the bucket that existed when it was pinned.
type pinned struct {
	*Bucket
	generation chan struct{}
}

// Save implements ledger.Ledger.
func (p pinned) Save(ctx context.Context, w ledger.Write) (uint64, error) {
	s := p.begin(w, p.generation)(ctx)
	return s.Revision, s.Err
}

// SaveBoth implements ledger.Ledger.
func (p pinned) SaveBoth(ctx context.Context, first, second ledger.Write) (ledger.Saved, ledger.Saved) {
	one, two := p.begin(first, p.generation), p.begin(second, p.generation)
	later := two(ctx) // the first one's acknowledgement arrives before this one's
	return one(ctx), later
}

// generation identifies the present bucket among those of the same name: its channel is closed when the bucket was recreated.
func (b *Bucket) generation() chan struct{} {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.recreated
}

// begin sends a write, and returns a function that waits for its outcome. The write never has a Nats-Msg-Id: with three replicas,
// the broker would then acknowledge the writes of both of two competing writers.
func (b *Bucket) begin(w ledger.Write, generation chan struct{}) func(context.Context) ledger.Saved {
	opts := []jetstream.PublishOpt{jetstream.WithExpectLastSequencePerSubject(w.Revision), jetstream.WithRetryAttempts(0)}
	if w.TTL > 0 {
		opts = append(opts, jetstream.WithMsgTTL(lifetime(w.TTL)))
	}
	b.mu.Lock()
	before, refused := b.last, b.stale || generation != b.recreated
	b.mu.Unlock()
	if refused {
		return func(context.Context) ledger.Saved {
			return ledger.Saved{Err: fmt.Errorf("%s: %w", w.Key, ErrRecreated)}
		}
	}
	ack := Publish(b.js, &nats.Msg{Subject: b.to + w.Key, Data: w.Value}, opts...)
	return func(ctx context.Context) ledger.Saved {
		stored, err := ack(ctx)
		switch {
		case err == nil:
			return b.saved(ctx, w, stored.Sequence, before, generation)
		case isConflict(err):
			return ledger.Saved{Err: fmt.Errorf("%s: %w", w.Key, ledger.ErrConflict)}
		}
		// The write may have been stored. Its bytes are unique, so reading the key shows it.
		readCtx, cancelRead := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
		defer cancelRead()
		if now, readErr := b.Load(readCtx, w.Key); readErr == nil && bytes.Equal(now.Value, w.Value) {
			return b.saved(ctx, w, now.Revision, before, generation)
		}
		return ledger.Saved{Err: fmt.Errorf("%s: %w", w.Key, err)}
	}
}

// saved is the outcome of a write that was stored. If the bucket was recreated since the write began, nothing may depend on the
// write, and it is removed again; after a crash before that, it remains, but was never acted upon. If SetCreated was not called for
// the new bucket yet, the revision shows it: it is not above one that this process wrote earlier.
func (b *Bucket) saved(ctx context.Context, w ledger.Write, revision, before uint64, generation chan struct{}) ledger.Saved {
	another := revision <= before && !b.rolledBack(ctx)
	b.mu.Lock()
	b.stale = b.stale || another && !b.created.IsZero()
	same := !another && !b.stale && generation == b.recreated
	if same {
		b.last = revision
	}
	b.mu.Unlock()
	if same {
		return ledger.Saved{Revision: revision}
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
	defer cancel()
	return ledger.Saved{Err: errors.Join(fmt.Errorf("%s: %w", w.Key, ErrRecreated), b.Remove(ctx, w.Key, revision))}
}

// rolledBack reports whether the bucket is still the same, so that its server has only lost its last writes (ADR 6).
func (b *Bucket) rolledBack(ctx context.Context) bool {
	info, err := b.Info(ctx)
	b.mu.Lock()
	defer b.mu.Unlock()
	return err == nil && info.Created.Equal(b.created)
}

// Put writes a key without compare-and-set, for keys with one writer only. With a ttl of 0 it does not expire.
func (b *Bucket) Put(ctx context.Context, key string, value []byte, ttl time.Duration) error {
	opts := []jetstream.PublishOpt{jetstream.WithRetryAttempts(0)}
	if ttl > 0 {
		opts = append(opts, jetstream.WithMsgTTL(lifetime(ttl)))
	}
	_, err := Publish(b.js, &nats.Msg{Subject: b.to + key, Data: value}, opts...)(ctx)
	return err
}

// Purge deletes a key, whatever its revision.
func (b *Bucket) Purge(ctx context.Context, key string, opts ...jetstream.PublishOpt) error {
	msg := &nats.Msg{Subject: b.to + key, Header: nats.Header{"KV-Operation": {"PURGE"}, "Nats-Rollup": {"sub"}}}
	_, err := Publish(b.js, msg, append(opts, jetstream.WithMsgTTL(MarkerTTL))...)(ctx)
	return err
}

// Remove deletes a key if its revision is still the given one.
func (b *Bucket) Remove(ctx context.Context, key string, revision uint64) error {
	if err := b.Purge(ctx, key, jetstream.WithExpectLastSequencePerSubject(revision)); !isConflict(err) {
		return err
	}
	return nil
}

// Info is the present info of the bucket's stream, which includes the broker's time.
func (b *Bucket) Info(ctx context.Context) (*jetstream.StreamInfo, error) {
	s, err := b.js.Stream(ctx, b.stream)
	if err != nil {
		return nil, fmt.Errorf("bucket %s: %w", b.name, err)
	}
	return s.CachedInfo(), nil
}

// isConflict reports whether a compare-and-set was lost. A stream with several replicas has another code for that.
func isConflict(err error) bool {
	code := APIError(err).ErrorCode
	return code == jetstream.JSErrCodeStreamWrongLastSequence || code == jetstream.JSErrCodeStreamWrongLastSequenceConstant
}

// lifetime rounds up to what the broker accepts: whole seconds, with a maximum.
func lifetime(d time.Duration) time.Duration {
	const century = 100 * 365 * 24 * time.Hour
	if d >= century {
		return century
	}
	return max(time.Second, (d + time.Second - 1).Truncate(time.Second))
}
