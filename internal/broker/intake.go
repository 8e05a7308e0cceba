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

// NotStored reports whether an error of Publish proves that the broker has not stored the message: the broker refused it, there
// were no responders, or the message was never sent. After any other error it may be stored.
func NotStored(err error) bool {
	return apiError(err).ErrorCode != 0 || errors.Is(err, jetstream.ErrNoStreamResponse) || errors.Is(err, nats.ErrNoResponders) ||
		errors.Is(err, nats.ErrReconnectBufExceeded) || errors.Is(err, nats.ErrMaxPayload)
}

// ResultOf finds a result by its message id among those published between two times; false: the stream does not have it any more.
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

// Arrived is how far the request stream was read, and what it has.
type Arrived struct {
	Next     uint64 // sequence to continue at
	First    uint64 // first sequence of the stream
	Messages uint64 // number of messages in the stream
}

// Arrivals calls fn for each message of the request stream from a sequence on, lane by lane.
func (b *Broker) Arrivals(ctx context.Context, from uint64, fn func(message.Delivery)) (Arrived, error) {
	n := b.cfg.Names
	s, err := b.open(ctx, n.Stream)
	if err != nil {
		return Arrived{}, err
	}
	state := s.CachedInfo().State
	if state.LastSeq+1 < from { // the stream was recreated, and counts from 1 again
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

// Arrival reads one message of the request stream; false: the stream does not have it any more, or it is acknowledged.
func (b *Broker) Arrival(ctx context.Context, sequence uint64) (message.Delivery, bool, error) {
	m, found, err := b.get(ctx, b.cfg.Names.Stream, stream.Query{Sequence: sequence})
	if err != nil || !found {
		return message.Delivery{}, false, err
	}
	d := b.delivery(m)
	acked, err := b.Acked(ctx, d.Lane, []uint64{sequence}) // a stream that this program did not create may keep acknowledged messages
	return d, acked == 0, err
}

// LastSequence is the sequence of the last message that a stream has stored; 0: none.
func (b *Broker) LastSequence(ctx context.Context, name string) (uint64, error) {
	s, err := b.open(ctx, name)
	if err != nil {
		return 0, err
	}
	return s.CachedInfo().State.LastSeq, nil
}
