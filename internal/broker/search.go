package broker

import (
	"context"
	"fmt"
	"time"

	"github.com/nats-io/nats.go/jetstream"
)

// searchBatch is how many messages a search asks for at once. It gets their headers alone.
const searchBatch = 1000

// published searches a stream for a message id from a time on; 0: it is not there.
func (p *Publisher) published(ctx context.Context, stream, subject, id string, since time.Time) (seq uint64, err error) {
	from := since.Add(-time.Minute)
	err = p.b.headers(ctx, stream, jetstream.ConsumerConfig{
		FilterSubject: subject, DeliverPolicy: jetstream.DeliverByStartTimePolicy, OptStartTime: &from,
	}, func(m jetstream.Msg, at uint64) bool {
		if m.Headers().Get(jetstream.MsgIDHeader) == id {
			seq = at
		}
		return seq == 0
	})
	if err != nil {
		return 0, fmt.Errorf("search %s: %w", stream, err)
	}
	return seq, nil
}

// headers calls fn with the headers of what a stream has now, until fn returns false. It goes on as long as ctx lets it and
// it gets on: each of its steps may take apiTimeout. The broker forgets the consumer when nobody has asked it for a while.
func (b *Broker) headers(ctx context.Context, stream string, cfg jetstream.ConsumerConfig, fn func(m jetstream.Msg, seq uint64) bool) error {
	cfg.HeadersOnly, cfg.AckPolicy, cfg.InactiveThreshold = true, jetstream.AckNonePolicy, time.Minute
	cfg.MemoryStorage, cfg.Replicas = true, 1
	cons, err := within(ctx, func(ctx context.Context) (jetstream.Consumer, error) { return b.js.CreateConsumer(ctx, stream, cfg) })
	if err != nil {
		return err
	}
	for left := cons.CachedInfo().NumPending; left > 0; {
		batch, err := within(ctx, func(ctx context.Context) ([]jetstream.Msg, error) {
			return fetch(ctx, cons, int(min(left, searchBatch)))
		})
		if err != nil {
			return err
		}
		for _, msg := range batch {
			meta, err := msg.Metadata()
			if err != nil {
				return err
			}
			if !fn(msg, meta.Sequence.Stream) {
				return nil
			}
			left = meta.NumPending
		}
	}
	return nil
}

// fetch gets the next n messages of a consumer that has so many, all of them: nobody would bring one again that got lost.
func fetch(ctx context.Context, cons jetstream.Consumer, n int) (all []jetstream.Msg, err error) {
	batch, err := cons.Fetch(n, jetstream.FetchContext(ctx))
	if err != nil {
		return nil, err
	}
	for msg := range batch.Messages() {
		all = append(all, msg)
	}
	if err := batch.Error(); err != nil {
		return nil, err
	}
	if len(all) < n {
		return nil, fmt.Errorf("%d of %d messages came", len(all), n)
	}
	return all, nil
}
