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

// Behind is how many requests of its lane are behind a message, and whether that is in the stream. The broker counts them, at no
// cost that grows with their number, where the stream allows direct reads; else they are read.
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

// countBehind asks for the message, or the first behind it. The message's own headers come before those of the broker: a
// publisher who makes his message look like something else is wrong about his own place alone.
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
		return 0, false, nil // there is none
	}
	if n, err = strconv.Atoi(pending[len(pending)-1]); err != nil {
		return 0, false, fmt.Errorf("read %s: %w", b.cfg.Names.Stream, err)
	}
	if m.Sequence == sequence {
		return n, true, nil
	}
	return n + 1, false, nil
}
