package broker

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"example.com/unrestrict-worker/internal/remediation"
)

// Message is one message of a stream.
type Message struct {
	Sequence uint64
	Time     time.Time // by the broker's clock
	Header   remediation.Header
	Data     []byte
}

// FollowOptions says which messages of a stream to read.
type FollowOptions struct {
	Since     time.Time // zero: from the oldest kept
	ToPresent bool      // end when the last message there is now was read
	From      uint64    // sequence to begin at, instead of Since
}

// errEnough ends Follow from within its function, without an error.
var errEnough = errors.New("enough")

// Enough is what fn returns to end Follow without an error.
func Enough() error { return errEnough }

// Follow calls fn for each message of a stream in order, from the past into the future, until ctx ends (nil), fn
// returns an error, or the present is reached if that was asked for. A reconnect goes on where it was.
func (b *Broker) Follow(ctx context.Context, stream string, o FollowOptions, fn func(Message) error) error {
	cfg := jetstream.OrderedConsumerConfig{DeliverPolicy: jetstream.DeliverAllPolicy}
	switch {
	case o.From > 0:
		cfg.DeliverPolicy, cfg.OptStartSeq = jetstream.DeliverByStartSequencePolicy, o.From
	case !o.Since.IsZero():
		cfg.DeliverPolicy, cfg.OptStartTime = jetstream.DeliverByStartTimePolicy, &o.Since
	}
	cons, err := b.js.OrderedConsumer(ctx, stream, cfg)
	if err != nil {
		return fmt.Errorf("read %s: %w", stream, explain(err))
	}
	if o.ToPresent {
		info, err := cons.Info(ctx)
		if err != nil {
			return fmt.Errorf("read %s: %w", stream, err)
		}
		if info.NumPending == 0 {
			return nil
		}
	}
	it, err := cons.Messages()
	if err != nil {
		return fmt.Errorf("read %s: %w", stream, err)
	}
	defer it.Stop()
	for {
		msg, err := it.Next(jetstream.NextContext(ctx))
		if ctx.Err() != nil {
			return nil
		}
		if err != nil {
			return fmt.Errorf("read %s: %w", stream, err)
		}
		meta, err := msg.Metadata()
		if err != nil {
			return fmt.Errorf("read %s: %w", stream, err)
		}
		err = fn(Message{Sequence: meta.Sequence.Stream, Time: meta.Timestamp, Header: remediation.Header(msg.Headers()), Data: msg.Data()})
		if errors.Is(err, errEnough) {
			return nil
		}
		if err != nil {
			return err
		}
		if o.ToPresent && meta.NumPending == 0 {
			return nil
		}
	}
}

// Publish puts one message on the request subject; nil when the broker has stored it. A full stream is an error that
// says so.
func (b *Broker) Publish(ctx context.Context, h remediation.Header, payload []byte) (seq uint64, err error) {
	stored, err := b.PublishOnce(ctx, h, payload)
	return stored.Sequence, err
}

// PublishOnce is Publish for a message whose header has a message id. The id is no proof: of a duplicate it is for the
// caller to see whose message has the sequence, for anybody who may publish may have taken the id.
func (b *Broker) PublishOnce(ctx context.Context, h remediation.Header, payload []byte) (Stored, error) {
	ctx, cancel := context.WithTimeout(ctx, apiTimeout)
	defer cancel()
	ack, err := b.js.PublishMsg(ctx, &nats.Msg{Subject: b.cfg.Names.Subject, Header: nats.Header(h), Data: payload})
	if err != nil {
		return Stored{}, fmt.Errorf("publish on %s: %w", b.cfg.Names.Subject, err)
	}
	return Stored{Sequence: ack.Sequence, Duplicate: ack.Duplicate}, nil
}
