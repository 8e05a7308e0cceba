package broker

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"math"
	"strconv"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"example.com/unrestrict-worker/internal/broker/stream"
	"example.com/unrestrict-worker/internal/message"
)

// Commands read without consumers. A work queue allows no second one for a subject. And a user who may create a consumer can
// have messages delivered to any subject of the account, and so write where it may not publish.

// part selects what to read from a stream.
type part struct {
	subject string    // may have wildcards
	from    uint64    // sequence to begin at; 0: the first
	since   time.Time // time to begin at, instead of from; zero: begin at from
	most    uint64    // messages per read; 0: readMessages
	bucket  bool      // also read what is written meanwhile: writing a key again deletes its earlier message
}

// get reads one message from the stream's leader.
func (b *Broker) get(ctx context.Context, name string, query stream.Query) (Message, bool, error) {
	return stream.Get(ctx, b.js, name, query)
}

// after is the part that follows a message.
func (p part) after(m Message) part {
	p.from, p.since = m.Sequence+1, time.Time{}
	return p
}

func (b *Broker) open(ctx context.Context, stream string) (jetstream.Stream, error) {
	s, err := within(ctx, func(ctx context.Context) (jetstream.Stream, error) { return b.js.Stream(ctx, stream) })
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", stream, explain(err))
	}
	return s, nil
}

// scan yields what a stream has now, without messages that are deleted meanwhile. An error ends the sequence; if the stream does
// not exist, the error is IsMissing.
func (b *Broker) scan(ctx context.Context, name string, p part) iter.Seq2[Message, error] {
	return func(yield func(Message, error) bool) {
		s, err := b.open(ctx, name)
		if err != nil {
			yield(Message{}, err)
			return
		}
		b.scanOpened(ctx, s, p)(yield)
	}
}

// scanOpened yields what a stream had when it was opened.
func (b *Broker) scanOpened(ctx context.Context, s jetstream.Stream, p part) iter.Seq2[Message, error] {
	return func(yield func(Message, error) bool) {
		name, last := s.CachedInfo().Config.Name, s.CachedInfo().State.LastSeq
		for p.bucket || p.from <= last {
			msgs, err := b.readOn(ctx, s, p)
			if err != nil {
				yield(Message{}, fmt.Errorf("read %s: %w", name, err))
				return
			}
			for _, m := range msgs {
				if m.Sequence > last && !p.bucket || !yield(m, nil) {
					return
				}
				p = p.after(m)
			}
			if len(msgs) == 0 {
				return
			}
		}
	}
}

// Limits of one read of several messages.
const (
	readMessages = 256
	manyMessages = 4096 // for reading a long stream of small messages
	readBytes    = 4 << 20
)

// readOn reads the next messages of a part; none: there are no more. Only the stream's leader decides that there are no more:
// a direct read may be answered by a replica that is behind, and a forged message can look like the end of a batch. From
// the leader, messages are read one by one. That is also how a stream without direct reads is read, and how a read gets past a
// forged message.
func (b *Broker) readOn(ctx context.Context, s jetstream.Stream, p part) ([]Message, error) {
	ctx, cancel := context.WithTimeout(ctx, apiTimeout)
	defer cancel()
	cfg := s.CachedInfo().Config
	if cfg.AllowDirect {
		msgs, err := b.readBatch(ctx, cfg.Name, p)
		if err != nil {
			return nil, err
		}
		if genuine, err := b.genuine(ctx, cfg.Name, msgs); err != nil || genuine {
			return msgs, err
		}
	}
	for {
		m, found, err := b.get(ctx, cfg.Name, p.ask())
		if err != nil || !found {
			return nil, err
		}
		if !m.Time.Before(p.since) {
			return []Message{m}, nil
		}
		p = p.after(m) // an older broker, which ignores start_time
	}
}

func (p part) ask() stream.Query {
	if !p.since.IsZero() {
		return stream.Query{Start: &p.since, Next: p.subject}
	}
	return stream.Query{Sequence: max(p.from, 1), Next: p.subject}
}

// genuine reports whether a batch is what the stream has. A direct read delivers a message's sequence and time in headers behind
// the message's own headers, which its publisher controls. By them he can end the header block early, so that the broker's
// headers are not read, and give the message the sequence of a later one, to hide those between. But he can't know the time at
// which a later one will be stored.
func (b *Broker) genuine(ctx context.Context, name string, batch []Message) (bool, error) {
	if len(batch) == 0 {
		return false, nil
	}
	last := batch[len(batch)-1]
	m, found, err := b.get(ctx, name, stream.Query{Sequence: last.Sequence})
	return found && m.Time.Equal(last.Time), err
}

// readBatch is a batched direct read, which the client library does not offer. A reply without a sequence ends the batch.
func (b *Broker) readBatch(ctx context.Context, name string, p part) (msgs []Message, err error) {
	request := p.ask()
	request.Batch, request.MaxBytes = cmp.Or(p.most, readMessages), readBytes
	ask, err := json.Marshal(request)
	if err != nil {
		return nil, err
	}
	replies := make(chan *nats.Msg, request.Batch+1)
	inbox := b.nc.NewInbox()
	sub, err := b.nc.ChanSubscribe(inbox, replies) // NextMsg would take an empty message with the header Status: 503 for an error
	if err != nil {
		return nil, err
	}
	defer func() { _ = sub.Unsubscribe() }()
	if err := b.nc.PublishRequest(stream.API(b.js, "DIRECT.GET."+name), inbox, ask); err != nil {
		return nil, err
	}
	for least := request.Sequence; ; {
		select {
		case reply := <-replies:
			m, ok := directMessage(reply)
			if !ok {
				return msgs, nil
			}
			if m.Sequence < least || m.Sequence == math.MaxUint64 {
				return nil, nil // this message or an earlier one is forged
			}
			msgs, least = append(msgs, m), m.Sequence+1
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// directMessage removes the headers that a direct read appends to a message's own; false: the reply is not a message.
func directMessage(reply *nats.Msg) (Message, bool) {
	m := Message{Header: message.Header{}, Data: reply.Data}
	added := map[string]string{
		jetstream.StreamHeader: "", jetstream.SubjectHeader: "", jetstream.SequenceHeader: "", jetstream.TimeStampHeaer: "",
		"Nats-Num-Pending": "", "Nats-Last-Sequence": "",
	}
	for name, values := range reply.Header {
		if _, own := added[name]; own && len(values) > 0 {
			added[name] = values[len(values)-1]
			values = values[:len(values)-1]
		}
		if len(values) > 0 {
			m.Header[name] = values
		}
	}
	m.Subject = added[jetstream.SubjectHeader]
	var errs [2]error
	m.Sequence, errs[0] = strconv.ParseUint(added[jetstream.SequenceHeader], 10, 64)
	m.Time, errs[1] = time.Parse(time.RFC3339Nano, added[jetstream.TimeStampHeaer])
	return m, errors.Join(errs[:]...) == nil
}
