package broker

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"example.com/unrestrict-worker/internal/remediation"
)

// bucketStore is compare-and-swap over one bucket, with a lifetime per key. jetstream.KeyValue has no update with a
// lifetime, and no way to read from the leader alone.
type bucketStore struct {
	js     jetstream.JetStream
	nc     *nats.Conn
	prefix string // of the subjects
	get    string // API subject of a read; through the leader if the stream has several replicas
}

func newBucketStore(ctx context.Context, js jetstream.JetStream, bucket string) (*bucketStore, error) {
	stream := "KV_" + bucket
	s, err := js.Stream(ctx, stream)
	if err != nil {
		return nil, fmt.Errorf("bucket %s: %w", bucket, err)
	}
	b := &bucketStore{js: js, nc: js.Conn(), prefix: "$KV." + bucket + ".", get: "$JS.API.STREAM.MSG.GET." + stream}
	if cfg := s.CachedInfo().Config; cfg.AllowDirect && cfg.Replicas <= 1 {
		b.get = "" // the only replica answers a direct read, which is cheaper
	}
	return b, nil
}

// Load reads a key's latest value; of a deleted or expired one the marker's revision, over which to write.
func (b *bucketStore) Load(ctx context.Context, key string) (remediation.Record, error) {
	ctx, cancel := context.WithTimeout(ctx, apiTimeout)
	defer cancel()
	if b.get == "" {
		return b.direct(ctx, key)
	}
	ask, err := json.Marshal(map[string]string{"last_by_subj": b.prefix + key})
	if err != nil {
		return remediation.Record{}, err
	}
	reply, err := b.nc.RequestWithContext(ctx, b.get, ask)
	if err != nil {
		return remediation.Record{}, fmt.Errorf("read %s: %w", key, err)
	}
	var answer struct {
		Error   *jetstream.APIError `json:"error"`
		Message *struct {
			Sequence uint64    `json:"seq"`
			Header   []byte    `json:"hdrs"`
			Data     []byte    `json:"data"`
			Time     time.Time `json:"time"`
		} `json:"message"`
	}
	switch err := json.Unmarshal(reply.Data, &answer); {
	case err != nil:
		return remediation.Record{}, fmt.Errorf("read %s: %w", key, err)
	case answer.Error != nil && answer.Error.ErrorCode == jetstream.JSErrCodeMessageNotFound:
		return remediation.Record{}, nil
	case answer.Error != nil:
		return remediation.Record{}, fmt.Errorf("read %s: %w", key, answer.Error)
	case answer.Message == nil:
		return remediation.Record{}, fmt.Errorf("read %s: the answer has no message", key)
	}
	m := answer.Message
	var h nats.Header
	if len(m.Header) > 0 {
		if h, err = nats.DecodeHeadersMsg(m.Header); err != nil {
			return remediation.Record{}, fmt.Errorf("read %s: %w", key, err)
		}
	}
	return record(h, m.Data, m.Sequence, m.Time), nil
}

func (b *bucketStore) direct(ctx context.Context, key string) (remediation.Record, error) {
	subject := b.prefix + key
	stream := "KV_" + subject[len("$KV."):len(b.prefix)-1]
	reply, err := b.nc.RequestWithContext(ctx, "$JS.API.DIRECT.GET."+stream+"."+subject, nil)
	if err != nil {
		return remediation.Record{}, fmt.Errorf("read %s: %w", key, err)
	}
	switch status := reply.Header.Get("Status"); status {
	case "":
	case "404":
		return remediation.Record{}, nil
	default:
		return remediation.Record{}, fmt.Errorf("read %s: status %s %s", key, status, reply.Header.Get("Description"))
	}
	var seq uint64
	if _, err := fmt.Sscanf(reply.Header.Get(jetstream.SequenceHeader), "%d", &seq); err != nil {
		return remediation.Record{}, fmt.Errorf("read %s: sequence: %w", key, err)
	}
	at, err := time.Parse(time.RFC3339Nano, reply.Header.Get(jetstream.TimeStampHeaer))
	if err != nil {
		return remediation.Record{}, fmt.Errorf("read %s: time: %w", key, err)
	}
	return record(reply.Header, reply.Data, seq, at), nil
}

func record(h nats.Header, data []byte, seq uint64, at time.Time) remediation.Record {
	r := remediation.Record{Value: data, Revision: seq, Written: at}
	if h.Get("KV-Operation") != "" || h.Get("Nats-Marker-Reason") != "" {
		r.Value = nil
	}
	return r
}

// Save implements remediation.Ledger.
func (b *bucketStore) Save(ctx context.Context, w remediation.Write) (uint64, error) {
	s := b.outcome(ctx, w, b.begin(w))
	return s.Revision, s.Err
}

// SaveBoth implements remediation.Ledger: one connection keeps the order, and one stream, which holds the bucket.
func (b *bucketStore) SaveBoth(ctx context.Context, first, second remediation.Write) (remediation.Saved, remediation.Saved) {
	one, two := b.begin(first), b.begin(second)
	later := b.outcome(ctx, second, two) // by then the first one's acknowledgement is there too
	return b.outcome(ctx, first, one), later
}

// begin sends a write. There is never a Nats-Msg-Id on it: at three replicas the broker would tell the loser of two
// writers that it won.
func (b *bucketStore) begin(w remediation.Write) func(context.Context) (*jetstream.PubAck, error) {
	opts := []jetstream.PublishOpt{jetstream.WithExpectLastSequencePerSubject(w.Revision), jetstream.WithRetryAttempts(0)}
	if w.TTL > 0 {
		opts = append(opts, jetstream.WithMsgTTL(rateCeil(w.TTL)))
	}
	return publishing(b.js, &nats.Msg{Subject: b.prefix + w.Key, Data: w.Value}, opts...)
}

func (b *bucketStore) outcome(ctx context.Context, w remediation.Write, ack func(context.Context) (*jetstream.PubAck, error)) remediation.Saved {
	stored, err := ack(ctx)
	switch {
	case err == nil:
		return remediation.Saved{Revision: stored.Sequence}
	case rateConflict(err):
		return remediation.Saved{Err: fmt.Errorf("%s: %w", w.Key, remediation.ErrConflict)}
	}
	// The write may have taken place: its bytes are like no other's.
	readCtx, cancelRead := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
	defer cancelRead()
	if now, readErr := b.Load(readCtx, w.Key); readErr == nil && bytes.Equal(now.Value, w.Value) {
		return remediation.Saved{Revision: now.Revision}
	}
	return remediation.Saved{Err: fmt.Errorf("%s: %w", w.Key, err)}
}

// put writes a key that nobody else writes.
func (b *bucketStore) put(ctx context.Context, key string, value []byte, ttl time.Duration) error {
	_, err := publishing(b.js, &nats.Msg{Subject: b.prefix + key, Data: value}, jetstream.WithMsgTTL(rateCeil(ttl)))(ctx)
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
	if err := b.purge(ctx, key, jetstream.WithExpectLastSequencePerSubject(revision)); !rateConflict(err) {
		return err
	}
	return nil
}

// Ledger is remediation's Ledger and Feed on the bucket UNRESTRICT_LEDGER.
type Ledger struct {
	*bucketStore
	b      *Broker
	kv     jetstream.KeyValue
	filter string
}

var (
	_ remediation.Ledger = (*Ledger)(nil)
	_ remediation.Feed   = (*Ledger)(nil)
)

// NewLedger opens the ledger of the deployment whose request stream is the Broker's, after Provision.
func (b *Broker) NewLedger(ctx context.Context) (*Ledger, error) {
	store, err := newBucketStore(ctx, b.js, LedgerBucket)
	if err != nil {
		return nil, err
	}
	return &Ledger{bucketStore: store, b: b, kv: b.Ledger(), filter: remediation.EntryKeys(b.cfg.Names.Stream)}, nil
}

// errFeedEnded is a watch that the client library gave up.
var errFeedEnded = errors.New("the watch of the ledger ended")

// Entries implements remediation.Feed.
func (l *Ledger) Entries(ctx context.Context, synced func(), fn func(string, remediation.Record)) error {
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
				fn(e.Key(), remediation.Record{Revision: e.Revision(), Written: e.Created()})
			default:
				fn(e.Key(), remediation.Record{Value: e.Value(), Revision: e.Revision(), Written: e.Created()})
			}
		}
	}
}
