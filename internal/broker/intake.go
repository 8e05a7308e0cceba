package broker

import (
	"context"
	"errors"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"example.com/unrestrict-worker/internal/broker/stream"
	"example.com/unrestrict-worker/internal/message"
)

// NotStored reports whether an error of Publish leaves no doubt that the broker has not stored the message: it said so, nobody
// listened, or the message never left. After any other error it may have.
func NotStored(err error) bool {
	return apiError(err).ErrorCode != 0 || errors.Is(err, jetstream.ErrNoStreamResponse) || errors.Is(err, nats.ErrNoResponders) ||
		errors.Is(err, nats.ErrReconnectBufExceeded) || errors.Is(err, nats.ErrMaxPayload)
}

// ResultOf finds a result by its message id among those that were published from a time to another; false: it is not there any more.
func (b *Broker) ResultOf(ctx context.Context, messageID string, from, to time.Time) (Message, bool, error) {
	n := b.cfg.Names
	for m, err := range b.scan(ctx, n.ResultsStream, part{subject: n.ResultsSubject, since: from}) {
		if err != nil {
			return Message{}, false, err
		}
		if m.Header.Get(jetstream.MsgIDHeader) == messageID {
			return m, true, nil
		}
		if m.Time.After(to) {
			break
		}
	}
	return Message{}, false, nil
}

// Arrived is how far the request stream was read.
type Arrived struct {
	Next     uint64 // where to read on
	First    uint64 // the first sequence that it has
	Messages uint64 // that it has
}

// Arrivals calls fn for each message of the request stream from a sequence on, one lane after the other.
func (b *Broker) Arrivals(ctx context.Context, from uint64, fn func(message.Delivery)) (Arrived, error) {
	n := b.cfg.Names
	s, err := b.open(ctx, n.Stream)
	if err != nil {
		return Arrived{}, err
	}
	state := s.CachedInfo().State
	if state.LastSeq+1 < from { // it was made anew, and counts from 1 again
		from = 1
	}
	for _, l := range message.Lanes() {
		for m, err := range b.scanOpened(ctx, s, part{subject: n.LaneSubject(l), from: from, most: manyMessages}) {
			if err != nil {
				return Arrived{}, err
			}
			fn(b.delivery(m))
		}
	}
	return Arrived{Next: max(from, state.LastSeq+1), First: state.FirstSeq, Messages: state.Msgs}, nil
}

func (b *Broker) delivery(m Message) message.Delivery {
	n := b.cfg.Names
	return message.Delivery{
		Stream: n.Stream, Sequence: m.Sequence, Subject: m.Subject, Lane: message.LaneOf(n.Subject, m.Subject),
		Header: m.Header, Data: m.Data, Published: m.Time, Attempt: 1,
	}
}

// Arrival reads one message of the request stream; false: it is not there any more, or the worker is done with it.
func (b *Broker) Arrival(ctx context.Context, sequence uint64) (message.Delivery, bool, error) {
	m, found, err := b.get(ctx, b.cfg.Names.Stream, stream.Query{Sequence: sequence})
	if err != nil || !found {
		return message.Delivery{}, false, err
	}
	d := b.delivery(m)
	acked, err := b.Acked(ctx, d.Lane, []uint64{sequence}) // a stream that others made may keep what was acknowledged
	return d, acked == 0, err
}

// LastSequence is that of the last message that a stream has stored; 0: none.
func (b *Broker) LastSequence(ctx context.Context, name string) (uint64, error) {
	s, err := b.open(ctx, name)
	if err != nil {
		return 0, err
	}
	return s.CachedInfo().State.LastSeq, nil
}
