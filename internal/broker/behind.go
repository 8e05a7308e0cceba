package broker

import (
	"context"
	"encoding/json"
	"fmt"
	"strconv"

	"github.com/nats-io/nats.go"

	"example.com/unrestrict-worker/internal/broker/stream"
	"example.com/unrestrict-worker/internal/message"
)

// Behind returns how many requests of a message's lane are behind it, and whether the message itself is in the stream. If the
// stream allows direct reads, the broker counts them, at a cost that does not grow with their number; otherwise all are read.
func (b *Broker) Behind(ctx context.Context, lane message.Lane, sequence uint64) (n int, there bool, err error) {
	s, err := b.open(ctx, b.cfg.Names.Stream)
	if IsMissing(err) {
		return 0, false, nil
	}
	if err != nil {
		return 0, false, err
	}
	subject := lane.Subject(b.cfg.Names.Subject)
	if s.CachedInfo().Config.AllowDirect {
		return b.countBehind(ctx, subject, sequence)
	}
	for m, err := range b.scanOpened(ctx, s, part{subject: subject, from: sequence}) {
		if err != nil {
			return 0, false, err
		}
		if m.Sequence == sequence {
			there = true
		} else {
			n++
		}
	}
	return n, there, nil
}

// countBehind reads the message, or the first one behind it, with the broker's count of those that follow. The broker's headers
// follow the message's own, so a publisher who forges them can falsify only his own place.
func (b *Broker) countBehind(ctx context.Context, subject string, sequence uint64) (n int, there bool, err error) {
	ask, err := json.Marshal(stream.Query{Sequence: sequence, Next: subject, Batch: 1})
	if err != nil {
		return 0, false, err
	}
	reply, err := within(ctx, func(ctx context.Context) (*nats.Msg, error) {
		return b.nc.RequestWithContext(ctx, stream.API(b.js, "DIRECT.GET."+b.cfg.Names.Stream), ask)
	})
	if err != nil {
		return 0, false, fmt.Errorf("read %s: %w", b.cfg.Names.Stream, err)
	}
	m, is := directMessage(reply)
	pending := reply.Header.Values("Nats-Num-Pending")
	if !is || len(pending) == 0 {
		return 0, false, nil // the message does not exist, nor any behind it
	}
	if n, err = strconv.Atoi(pending[len(pending)-1]); err != nil {
		return 0, false, fmt.Errorf("read %s: %w", b.cfg.Names.Stream, err)
	}
	if m.Sequence == sequence {
		return n, true, nil
	}
	return n + 1, false, nil
}
