package broker

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/nats-io/nats.go/jetstream"
)

// Kept are those messages on the request subject that have one of the sequences and are still in the stream, by
// sequence. What was acknowledged is in a work queue no more. An error is a *DeniedError for who may not read it.
func (b *Broker) Kept(ctx context.Context, seqs []uint64) (map[uint64]Message, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	b.denied.Store(&cancel)
	defer b.denied.Store(nil)
	kept, err := b.kept(ctx, seqs)
	if denied, ok := errors.AsType[*DeniedError](context.Cause(ctx)); ok && err != nil {
		return nil, denied
	}
	return kept, err
}

func (b *Broker) kept(ctx context.Context, seqs []uint64) (map[uint64]Message, error) {
	n := b.cfg.Names
	s, err := b.open(ctx, n.Stream)
	if err != nil {
		return nil, err
	}
	kept := map[uint64]Message{}
	left := slices.Sorted(slices.Values(seqs))
	for len(left) > 0 {
		most := min(left[len(left)-1]-left[0]+1, readMessages)
		msgs, err := b.readOn(ctx, s, part{subject: n.Subject, from: left[0], most: most})
		if err != nil {
			return nil, fmt.Errorf("read %s: %w", n.Stream, err)
		}
		if len(msgs) == 0 {
			break
		}
		for _, m := range msgs {
			if _, asked := slices.BinarySearch(left, m.Sequence); asked {
				kept[m.Sequence] = m
			}
		}
		passed, _ := slices.BinarySearch(left, msgs[len(msgs)-1].Sequence+1)
		left = left[passed:]
	}
	return kept, nil
}

// DuplicateWindow is for how long the broker drops a request that bears a message id it has seen.
func (b *Broker) DuplicateWindow(ctx context.Context) (time.Duration, error) {
	n := b.cfg.Names
	s, err := within(ctx, func(ctx context.Context) (jetstream.Stream, error) { return b.js.Stream(ctx, n.Stream) })
	if err != nil {
		return 0, fmt.Errorf("stream %s: %w", n.Stream, err)
	}
	return s.CachedInfo().Config.Duplicates, nil
}
