package broker

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"example.com/unrestrict-worker/internal/broker/stream"
	"example.com/unrestrict-worker/internal/message"
)

// Message is one message of a stream.
type Message = stream.Message

// FollowOptions says which messages of a stream to read.
type FollowOptions struct {
	Since     time.Time // zero: from the oldest kept
	ToPresent bool      // end after the last message that the stream has now
	From      uint64    // sequence to begin at, instead of Since
}

// errStopFollow ends Follow from within its function, without an error.
var errStopFollow = errors.New("stop following")

// StopFollow is what fn returns to end Follow without an error.
func StopFollow() error { return errStopFollow }

// followEvery is how often a stream without new messages is read again.
const followEvery = 200 * time.Millisecond

// Follow calls fn for each message of a stream in order, first the stored ones, then new ones, until ctx ends (nil) or fn
// returns an error. With ToPresent it ends after the stored ones. After a reconnect it continues where it was.
func (b *Broker) Follow(ctx context.Context, stream string, o FollowOptions, fn func(Message) error) error {
	p := part{subject: ">", since: o.Since}
	if o.From > 0 {
		p = part{subject: ">", from: o.From}
	}
	var err error
	if o.ToPresent {
		err = b.untilDenied(ctx, func(ctx context.Context) error {
			for m, err := range b.scan(ctx, stream, p) {
				if err == nil {
					err = fn(m)
				}
				if err != nil {
					return err
				}
			}
			return nil
		})
	} else {
		err = b.readForever(ctx, stream, p, fn)
	}
	if ctx.Err() != nil || errors.Is(err, errStopFollow) {
		return nil
	}
	return err
}

// readForever reads until ctx ends. After its first successful read it retries every temporary fault, such as a stream without
// a leader; before that, only a connection that is being restored.
func (b *Broker) readForever(ctx context.Context, stream string, p part, fn func(Message) error) error {
	s, err := b.open(ctx, stream)
	for isAway(err) && wait(ctx, followEvery) == nil {
		s, err = b.open(ctx, stream)
	}
	if err != nil {
		return err
	}
	for begun := false; ; {
		msgs, err := b.readOn(ctx, s, p)
		if err != nil {
			err = explain(err)
			if _, missing := b.open(ctx, stream); IsMissing(missing) {
				return missing
			}
			if _, passes := errors.AsType[retryable](err); !passes || !begun && !isAway(err) {
				return fmt.Errorf("read %s: %w", stream, err)
			}
		}
		begun = begun || err == nil
		for _, m := range msgs {
			if err := fn(m); err != nil {
				return err
			}
			p = p.after(m)
		}
		if len(msgs) == 0 && wait(ctx, followEvery) != nil {
			return nil
		}
	}
}

// PublishOrder publishes one order on the control subject, and returns its name, STREAM:SEQ.
func (b *Broker) PublishOrder(ctx context.Context, h message.Header, payload []byte) (ref string, err error) {
	ctx, cancel := context.WithTimeout(ctx, apiTimeout)
	defer cancel()
	n := b.cfg.Names
	ack, err := b.js.PublishMsg(ctx, &nats.Msg{Subject: n.ControlSubject, Header: nats.Header(h), Data: payload})
	if err != nil {
		return "", fmt.Errorf("publish on %s: %w: see whether a worker runs, which makes the stream %s, and whether the NATS user may publish there", n.ControlSubject, err, n.ControlStream)
	}
	return fmt.Sprintf("%s:%d", ack.Stream, ack.Sequence), nil
}

// Publish publishes one message on a lane, and returns when the broker has stored it. A full stream is an error that says so.
// For a duplicate, it is not known whose message has the sequence: anybody who may publish can have used a message id that can
// be guessed.
func (b *Broker) Publish(ctx context.Context, l message.Lane, h message.Header, payload []byte) (Stored, error) {
	ctx, cancel := context.WithTimeout(ctx, apiTimeout)
	defer cancel()
	subject := b.cfg.Names.LaneSubject(l)
	ack, err := b.js.PublishMsg(ctx, &nats.Msg{Subject: subject, Header: nats.Header(h), Data: payload})
	if errors.Is(err, jetstream.ErrNoStreamResponse) {
		return Stored{}, b.noStream(subject, err)
	}
	if err != nil {
		return Stored{}, fmt.Errorf("publish on %s: %w", subject, err)
	}
	return Stored{Sequence: ack.Sequence, Duplicate: ack.Duplicate}, nil
}
