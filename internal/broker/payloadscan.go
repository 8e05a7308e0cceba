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

// QueueWith is Queue without most of the messages for which may is false. It first reads only payloads, block by block, which
// takes half as long, because headers are most of the work. It yields all messages of a block if may is true for one of them.
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

// blocks yields all messages of each block in which may is true for one. If it is not known where a block ends, the rest of the
// stream is read in full.
func (b *Broker) blocks(ctx context.Context, s jetstream.Stream, p part, may func([]byte) bool) iter.Seq2[Message, error] {
	return func(yield func(Message, error) bool) {
		last := s.CachedInfo().State.LastSeq
		for next := uint64(0); p.from <= last; p.from = next {
			hit, to := true, uint64(0)
			if s.CachedInfo().Config.AllowDirect {
				hit, to = b.scanPayloads(ctx, p, may)
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
			if to < p.from { // the rest of the stream was read
				return
			}
		}
	}
}

// scanPayloads reads a block of payloads without headers. It returns whether may is true for one, and the sequence of the
// block's last message; 0: not known.
func (b *Broker) scanPayloads(ctx context.Context, p part, may func([]byte) bool) (hit bool, last uint64) {
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
			if status := reply.Header.Get("Status"); status != "" { // a status of the broker itself: messages arrive without headers
				last, _ = strconv.ParseUint(reply.Header.Get(lastSequence), 10, 64)
				return hit || status != endOfBatch, last
			}
			if reply.Header.Get(jetstream.SequenceHeader) != "" { // an older broker, which ignores no_hdr and sends headers
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
