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

// Bucket is compare-and-swap over one key-value bucket, with a lifetime for each key. jetstream.KeyValue has no update with
// a lifetime, and no way to read from the leader alone.
type Bucket struct {
	js     jetstream.JetStream
	name   string
	stream string
	prefix string // of the subjects
	to     string // of the subjects to write to; they differ where the bucket is in a domain, to which $KV does not lead

	mu       sync.Mutex
	created  time.Time     // of its stream, as Looked said last
	sequence uint64        // the same
	anew     chan struct{} // closed when it was made anew, and replaced
	last     uint64        // the latest revision that this process has written
	stale    bool          // it was made anew, and nobody has looked at it yet
}

// ErrMadeAnew is a bucket that is not the one that was there before: what it held is gone.
var ErrMadeAnew = ledger.ErrMadeAnew

// MarkerTTL is how long the broker keeps the marker of a key that is gone, so that a watch that was cut off for less still
// learns of it.
const MarkerTTL = time.Hour

// NewBucket is the bucket of a name, whether it is there yet or not.
func NewBucket(js jetstream.JetStream, name string) *Bucket {
	b := &Bucket{js: js, name: name, stream: "KV_" + name, prefix: "$KV." + name + ".", anew: make(chan struct{})}
	if b.to = b.prefix; js.Options().Domain != "" {
		b.to = API(js, b.prefix)
	}
	return b
}

// Subject is the subject of a key, or of keys with wildcards.
func (b *Bucket) Subject(key string) string { return b.prefix + key }

// WriteTo is the subject to write a key to.
func (b *Bucket) WriteTo(key string) string { return b.to + key }

// Key is the key that a message of the bucket's stream is about.
func (b *Bucket) Key(m Message) string { return strings.TrimPrefix(m.Subject, b.prefix) }

// Looked tells when the bucket's stream was created, and its last sequence. Another time than before means another bucket; a
// sequence that went back means that a server has lost what it had not written to its disk. Watches end after both.
func (b *Bucket) Looked(created time.Time, last uint64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if !b.created.IsZero() && (!b.created.Equal(created) || last < b.sequence) {
		close(b.anew)
		b.anew, b.last = make(chan struct{}), 0
	}
	b.created, b.sequence, b.stale = created, last, false
}

// Load reads a key's latest value from the leader; of a deleted or expired one the marker's revision, over which to write.
func (b *Bucket) Load(ctx context.Context, key string) (ledger.Record, error) {
	m, found, err := Get(ctx, b.js, b.stream, Query{Last: b.prefix + key})
	if err != nil || !found {
		return ledger.Record{}, err
	}
	return Record(m), nil
}

// LoadBelow implements ledger.Ledger. The stream's leader is asked for one message after the other: there are seldom more
// than one or two.
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

// Record is a message of a bucket's stream as a value; that of a marker is nil.
func Record(m Message) ledger.Record {
	r := ledger.Record{Value: present(m.Data), Revision: m.Sequence, Written: m.Time}
	if m.Header.Get("KV-Operation") != "" || m.Header.Get(jetstream.MarkerReasonHeader) != "" {
		r.Value = nil
	}
	return r
}

// present is a value that is there, however empty.
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

// SaveBoth implements ledger.Ledger: one connection keeps the order, and one stream, which holds the bucket.
func (b *Bucket) SaveBoth(ctx context.Context, first, second ledger.Write) (ledger.Saved, ledger.Saved) {
	return pinned{b, b.generation()}.SaveBoth(ctx, first, second)
}

// Pin implements ledger.Pinner.
func (b *Bucket) Pin() ledger.Ledger { return pinned{b, b.generation()} }

// pinned writes into the bucket that there was when it was pinned.
type pinned struct {
	*Bucket
	anew chan struct{}
}

// Save implements ledger.Ledger.
func (p pinned) Save(ctx context.Context, w ledger.Write) (uint64, error) {
	s := p.begin(w, p.anew)(ctx)
	return s.Revision, s.Err
}

// SaveBoth implements ledger.Ledger.
func (p pinned) SaveBoth(ctx context.Context, first, second ledger.Write) (ledger.Saved, ledger.Saved) {
	one, two := p.begin(first, p.anew), p.begin(second, p.anew)
	later := two(ctx) // by then the first one's acknowledgement is there too
	return one(ctx), later
}

func (b *Bucket) generation() chan struct{} {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.anew
}

// begin sends a write, and returns what waits for its outcome. There is never a Nats-Msg-Id on it: at three replicas the
// broker would tell the loser of two writers that it won.
func (b *Bucket) begin(w ledger.Write, anew chan struct{}) func(context.Context) ledger.Saved {
	opts := []jetstream.PublishOpt{jetstream.WithExpectLastSequencePerSubject(w.Revision), jetstream.WithRetryAttempts(0)}
	if w.TTL > 0 {
		opts = append(opts, jetstream.WithMsgTTL(lifetime(w.TTL)))
	}
	b.mu.Lock()
	before, refused := b.last, b.stale || anew != b.anew
	b.mu.Unlock()
	if refused {
		return func(context.Context) ledger.Saved { return ledger.Saved{Err: fmt.Errorf("%s: %w", w.Key, ErrMadeAnew)} }
	}
	ack := Publish(b.js, &nats.Msg{Subject: b.to + w.Key, Data: w.Value}, opts...)
	return func(ctx context.Context) ledger.Saved {
		stored, err := ack(ctx)
		switch {
		case err == nil:
			return b.saved(ctx, w, stored.Sequence, before, anew)
		case isConflict(err):
			return ledger.Saved{Err: fmt.Errorf("%s: %w", w.Key, ledger.ErrConflict)}
		}
		// The write may have taken place: its bytes are like no other's.
		readCtx, cancelRead := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
		defer cancelRead()
		if now, readErr := b.Load(readCtx, w.Key); readErr == nil && bytes.Equal(now.Value, w.Value) {
			return b.saved(ctx, w, now.Revision, before, anew)
		}
		return ledger.Saved{Err: fmt.Errorf("%s: %w", w.Key, err)}
	}
}

// saved is the outcome of a write that was stored. If the bucket was made anew since the write began, nothing may rest on it,
// and it is taken back; a crash before that leaves a write that was never acted upon. Where nobody has looked at the new
// bucket yet, a revision gives it away that is no later than one from before the write.
func (b *Bucket) saved(ctx context.Context, w ledger.Write, revision, before uint64, anew chan struct{}) ledger.Saved {
	another := revision <= before && !b.rolledBack(ctx)
	b.mu.Lock()
	b.stale = b.stale || another && !b.created.IsZero()
	same := !another && !b.stale && anew == b.anew
	if same {
		b.last = revision
	}
	b.mu.Unlock()
	if same {
		return ledger.Saved{Revision: revision}
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
	defer cancel()
	return ledger.Saved{Err: errors.Join(fmt.Errorf("%s: %w", w.Key, ErrMadeAnew), b.Remove(ctx, w.Key, revision))}
}

// rolledBack tells a bucket whose server has lost its last writes (ADR 6) from one that was made anew.
func (b *Bucket) rolledBack(ctx context.Context) bool {
	info, err := b.Info(ctx)
	b.mu.Lock()
	defer b.mu.Unlock()
	return err == nil && info.Created.Equal(b.created)
}

// Put writes a key that nobody else writes; with a ttl of 0 for good.
func (b *Bucket) Put(ctx context.Context, key string, value []byte, ttl time.Duration) error {
	opts := []jetstream.PublishOpt{jetstream.WithRetryAttempts(0)}
	if ttl > 0 {
		opts = append(opts, jetstream.WithMsgTTL(lifetime(ttl)))
	}
	_, err := Publish(b.js, &nats.Msg{Subject: b.to + key, Data: value}, opts...)(ctx)
	return err
}

// Purge deletes a key, whatever it is.
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

// Info is what the broker says of the bucket's stream now, its own clock included.
func (b *Bucket) Info(ctx context.Context) (*jetstream.StreamInfo, error) {
	s, err := b.js.Stream(ctx, b.stream)
	if err != nil {
		return nil, fmt.Errorf("bucket %s: %w", b.name, err)
	}
	return s.CachedInfo(), nil
}

// isConflict tells whether a compare-and-swap was lost: a stream with several replicas has a code of its own for that.
func isConflict(err error) bool {
	code := APIError(err).ErrorCode
	return code == jetstream.JSErrCodeStreamWrongLastSequence || code == jetstream.JSErrCodeStreamWrongLastSequenceConstant
}

// lifetime rounds up to what the broker can expire: whole seconds, and not for ever.
func lifetime(d time.Duration) time.Duration {
	const century = 100 * 365 * 24 * time.Hour
	if d >= century {
		return century
	}
	return max(time.Second, (d + time.Second - 1).Truncate(time.Second))
}
