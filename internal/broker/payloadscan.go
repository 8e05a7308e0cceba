package broker

import (
	"context"
	"encoding/json"
	"iter"
	"strconv"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"example.com/unrestrict-worker/internal/broker/stream"
	"example.com/unrestrict-worker/internal/message"
)

// QueueWith is Queue without most of the messages of which may is false. It looks at their payloads alone first, a block at a
// time, which takes half as long: a message's headers are most of the work. A block with one of which may is true comes whole.
func (b *Broker) QueueWith(ctx context.Context, may func(payload []byte) bool) iter.Seq2[Message, error] {
	return func(yield func(Message, error) bool) {
		s, err := b.open(ctx, b.cfg.Names.Stream)
		if err != nil {
			yield(Message{}, err)
			return
		}
		for _, l := range message.Lanes() {
			for m, err := range b.blocks(ctx, s, part{subject: b.cfg.Names.LaneSubject(l), most: manyMessages}, may) {
				if !yield(m, err) || err != nil {
					return
				}
			}
		}
	}
}

// blocks are the messages of the blocks in which may is true of one. What the glance does not show to the end is read in full.
func (b *Broker) blocks(ctx context.Context, s jetstream.Stream, p part, may func([]byte) bool) iter.Seq2[Message, error] {
	return func(yield func(Message, error) bool) {
		last := s.CachedInfo().State.LastSeq
		for next := uint64(0); p.from <= last; p.from = next {
			hit, to := true, uint64(0)
			if s.CachedInfo().Config.AllowDirect {
				hit, to = b.glance(ctx, p, may)
			}
			if next = to + 1; !hit && to >= p.from {
				continue
			}
			for m, err := range b.scanOpened(ctx, s, p) {
				if err == nil && to >= p.from && m.Sequence > to {
					break
				}
				if !yield(m, err) {
					return
				}
			}
			if to < p.from { // all that was left
				return
			}
		}
	}
}

// glance reads a block of payloads, and says whether may is true of one and with which message the block ends; 0: that is not
// known.
func (b *Broker) glance(ctx context.Context, p part, may func([]byte) bool) (hit bool, last uint64) {
	ctx, cancel := context.WithTimeout(ctx, apiTimeout)
	defer cancel()
	query := p.ask()
	query.Batch, query.MaxBytes, query.NoHeaders = p.most, readBytes, true
	ask, err := json.Marshal(query)
	if err != nil {
		return true, 0
	}
	replies, inbox := make(chan *nats.Msg, p.most+1), b.nc.NewInbox()
	sub, err := b.nc.ChanSubscribe(inbox, replies)
	if err != nil {
		return true, 0
	}
	defer func() { _ = sub.Unsubscribe() }()
	if err := b.nc.PublishRequest(stream.API(b.js, "DIRECT.GET."+b.cfg.Names.Stream), inbox, ask); err != nil {
		return true, 0
	}
	for {
		select {
		case reply := <-replies:
			if status := reply.Header.Get("Status"); status != "" { // the broker's own word: messages come without their headers
				last, _ = strconv.ParseUint(reply.Header.Get(lastSequence), 10, 64)
				return hit || status != endOfBatch, last
			}
			if reply.Header.Get(jetstream.SequenceHeader) != "" { // of a broker that does not leave them out
				return true, 0
			}
			hit = hit || may(reply.Data)
		case <-ctx.Done():
			return true, 0
		}
	}
}

// How the broker ends a batch. [doc] nats-architecture-and-design ADR-31
const (
	endOfBatch   = "204"
	lastSequence = "Nats-Last-Sequence"
)
