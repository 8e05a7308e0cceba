package broker

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"example.com/unrestrict-worker/internal/ledger"
	"example.com/unrestrict-worker/internal/remediation"
)

// bucketStore is compare-and-swap over one bucket, with a lifetime per key. jetstream.KeyValue has no update with a
// lifetime, and no way to read from the leader alone.
type bucketStore struct {
	js     jetstream.JetStream
	nc     *nats.Conn
	stream string
	prefix string // of the subjects
}

func newBucketStore(js jetstream.JetStream, bucket string) *bucketStore {
	return &bucketStore{js: js, nc: js.Conn(), stream: "KV_" + bucket, prefix: "$KV." + bucket + "."}
}

// Load reads a key's latest value from the leader; of a deleted or expired one the marker's revision, over which to write.
func (b *bucketStore) Load(ctx context.Context, key string) (ledger.Record, error) {
	ctx, cancel := context.WithTimeout(ctx, apiTimeout)
	defer cancel()
	m, found, err := readOne(ctx, b.nc, b.stream, messageRequest{Last: b.prefix + key})
	if err != nil || !found {
		return ledger.Record{}, err
	}
	return record(nats.Header(m.Header), m.Data, m.Sequence, m.Time), nil
}

// LoadBelow implements remediation.Ledger. The stream's leader is asked for one message after the other: there are seldom
// more than one or two.
func (b *bucketStore) LoadBelow(ctx context.Context, key string) (map[string]ledger.Record, error) {
	ctx, cancel := context.WithTimeout(ctx, apiTimeout)
	defer cancel()
	below := map[string]ledger.Record{}
	for seq := uint64(1); ; {
		m, found, err := readOne(ctx, b.nc, b.stream, messageRequest{Sequence: seq, Next: b.prefix + key + ".*"})
		if err != nil || !found {
			return below, err
		}
		below[strings.TrimPrefix(m.Subject, b.prefix)] = record(nats.Header(m.Header), m.Data, m.Sequence, m.Time)
		seq = m.Sequence + 1
	}
}

func record(h nats.Header, data []byte, seq uint64, at time.Time) ledger.Record {
	r := ledger.Record{Value: data, Revision: seq, Written: at}
	if h.Get("KV-Operation") != "" || h.Get("Nats-Marker-Reason") != "" {
		r.Value = nil
	}
	return r
}

// Save implements remediation.Ledger.
func (b *bucketStore) Save(ctx context.Context, w ledger.Write) (uint64, error) {
	s := b.outcome(ctx, w, b.begin(w))
	return s.Revision, s.Err
}

// SaveBoth implements remediation.Ledger: one connection keeps the order, and one stream, which holds the bucket.
func (b *bucketStore) SaveBoth(ctx context.Context, first, second ledger.Write) (ledger.Saved, ledger.Saved) {
	one, two := b.begin(first), b.begin(second)
	later := b.outcome(ctx, second, two) // by then the first one's acknowledgement is there too
	return b.outcome(ctx, first, one), later
}

// begin sends a write. There is never a Nats-Msg-Id on it: at three replicas the broker would tell the loser of two
// writers that it won.
func (b *bucketStore) begin(w ledger.Write) func(context.Context) (*jetstream.PubAck, error) {
	opts := []jetstream.PublishOpt{jetstream.WithExpectLastSequencePerSubject(w.Revision), jetstream.WithRetryAttempts(0)}
	if w.TTL > 0 {
		opts = append(opts, jetstream.WithMsgTTL(lifetime(w.TTL)))
	}
	return publishing(b.js, &nats.Msg{Subject: b.prefix + w.Key, Data: w.Value}, opts...)
}

func (b *bucketStore) outcome(ctx context.Context, w ledger.Write, ack func(context.Context) (*jetstream.PubAck, error)) ledger.Saved {
	stored, err := ack(ctx)
	switch {
	case err == nil:
		return ledger.Saved{Revision: stored.Sequence}
	case isConflict(err):
		return ledger.Saved{Err: fmt.Errorf("%s: %w", w.Key, ledger.ErrConflict)}
	}
	// The write may have taken place: its bytes are like no other's.
	readCtx, cancelRead := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
	defer cancelRead()
	if now, readErr := b.Load(readCtx, w.Key); readErr == nil && bytes.Equal(now.Value, w.Value) {
		return ledger.Saved{Revision: now.Revision}
	}
	return ledger.Saved{Err: fmt.Errorf("%s: %w", w.Key, err)}
}

// put writes a key that nobody else writes.
func (b *bucketStore) put(ctx context.Context, key string, value []byte, ttl time.Duration) error {
	_, err := publishing(b.js, &nats.Msg{Subject: b.prefix + key, Data: value}, jetstream.WithMsgTTL(lifetime(ttl)))(ctx)
	return err
}

// purge deletes a key that nobody else writes.
func (b *bucketStore) purge(ctx context.Context, key string, opts ...jetstream.PublishOpt) error {
	msg := &nats.Msg{Subject: b.prefix + key, Header: nats.Header{"KV-Operation": {"PURGE"}, "Nats-Rollup": {"sub"}}}
	_, err := publishing(b.js, msg, append(opts, jetstream.WithMsgTTL(time.Minute))...)(ctx)
	return err
}

// remove deletes a key if its revision is still the given one.
func (b *bucketStore) remove(ctx context.Context, key string, revision uint64) error {
	if err := b.purge(ctx, key, jetstream.WithExpectLastSequencePerSubject(revision)); !isConflict(err) {
		return err
	}
	return nil
}

// isConflict tells whether a compare-and-swap was lost: a stream with several replicas has a code of its own for that.
func isConflict(err error) bool {
	code := apiError(err).ErrorCode
	return code == jetstream.JSErrCodeStreamWrongLastSequence || code == jetstream.JSErrCodeStreamWrongLastSequenceConstant
}

// lifetime rounds up to the whole seconds that the broker counts in.
func lifetime(d time.Duration) time.Duration {
	return max(time.Second, (d + time.Second - 1).Truncate(time.Second))
}

// Ledger is remediation's Ledger and Feed on the bucket UNRESTRICT_LEDGER.
type Ledger struct {
	*bucketStore
	b      *Broker
	kv     jetstream.KeyValue
	filter string
}

var (
	_ ledger.Ledger    = (*Ledger)(nil)
	_ remediation.Feed = (*Ledger)(nil)
)

// NewLedger opens the ledger of the deployment whose request stream is the Broker's, after Provision.
func (b *Broker) NewLedger() *Ledger {
	return &Ledger{bucketStore: newBucketStore(b.js, LedgerBucket), b: b, kv: b.Ledger(), filter: ledger.EntryKeys(b.cfg.Names.Stream)}
}

// errFeedEnded is a watch that the client library gave up.
var errFeedEnded = errors.New("the watch of the ledger ended")

// Entries implements remediation.Feed.
func (l *Ledger) Entries(ctx context.Context, synced func(), fn func(string, ledger.Record)) error {
	w, err := l.kv.Watch(ctx, l.filter)
	if err != nil {
		return fmt.Errorf("watch the ledger: %w", err)
	}
	defer func() { _ = w.Stop() }()
	for {
		select {
		case <-ctx.Done():
			return nil
		case e, ok := <-w.Updates():
			switch {
			case !ok && ctx.Err() != nil:
				return nil
			case !ok:
				return errFeedEnded
			case e == nil:
				synced()
			case e.Operation() != jetstream.KeyValuePut:
				fn(e.Key(), ledger.Record{Revision: e.Revision(), Written: e.Created()})
			default:
				fn(e.Key(), ledger.Record{Value: e.Value(), Revision: e.Revision(), Written: e.Created()})
			}
		}
	}
}
