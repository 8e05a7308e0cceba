package broker

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/nats-io/nats.go/jetstream"

	"example.com/unrestrict-worker/internal/message"
)

// foreignConsumers names the consumers of the request stream that are not the worker's. If this user may not list them, the
// result says that there are some, instead of an error: that must not keep a worker from its work.
func (b *Broker) foreignConsumers(ctx context.Context, requests jetstream.Stream) (names []string) {
	ctx, cancel := context.WithTimeout(ctx, apiTimeout)
	defer cancel()
	ctx, denied := context.WithCancelCause(ctx)
	defer denied(nil)
	defer b.denied.Store(b.denied.Swap(&denied))
	all, err := consumerNames(ctx, requests)
	if err != nil {
		return []string{fmt.Sprintf("(its name can't be read: %v)", cmp.Or(context.Cause(ctx), err))}
	}
	return slices.DeleteFunc(all, func(name string) bool {
		return slices.ContainsFunc(message.Lanes(), func(l message.Lane) bool { return name == b.cfg.Names.LaneConsumer(l) })
	})
}

func consumerNames(ctx context.Context, s jetstream.Stream) (names []string, err error) {
	list := s.ListConsumers(ctx)
	for info := range list.Info() {
		names = append(names, info.Name)
	}
	return names, list.Err()
}

// overlap returns an error that names the stream that already carries a stream's
// subject; nil if that is by now the stream itself.
func (b *Broker) overlap(ctx context.Context, spec streamSpec) error {
	other, err := within(ctx, func(ctx context.Context) (string, error) { return b.js.StreamNameBySubject(ctx, spec.subject) })
	switch {
	case errors.Is(err, jetstream.ErrStreamNotFound), other == spec.cfg.Name:
		return nil
	case err != nil:
		return fmt.Errorf("look up the stream of %s: %w", spec.subject, err)
	}
	return &UnfitError{Reasons: []string{fmt.Sprintf("stream %s can't be created: stream %s already carries %s: name that one in the configuration, narrow its subjects, or choose another subject", spec.cfg.Name, other, spec.subject)}}
}

// rival returns an error that names the other consumers of a work queue, one of
// which has the same subject; nil if that is by now the worker's own.
func (b *Broker) rival(ctx context.Context, cfg jetstream.ConsumerConfig) error {
	n := b.cfg.Names
	s, err := within(ctx, func(ctx context.Context) (jetstream.Stream, error) { return b.js.Stream(ctx, n.Stream) })
	if err != nil {
		return fmt.Errorf("look up stream %s: %w", n.Stream, err)
	}
	ctx, cancel := context.WithTimeout(ctx, apiTimeout)
	defer cancel()
	others, err := consumerNames(ctx, s)
	if err != nil {
		return fmt.Errorf("list the consumers of %s: %w", n.Stream, err)
	}
	if slices.Contains(others, cfg.Durable) {
		return nil
	}
	return &UnfitError{Reasons: []string{fmt.Sprintf("consumer %s can't be created: %s is a work queue and another consumer already takes %s (there are: %s): "+
		"name it in WORKER_CONSUMER, or delete it", cfg.Durable, n.Stream, cfg.FilterSubject, strings.Join(others, ", "))}}
}
