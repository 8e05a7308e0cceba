package broker

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"example.com/unrestrict-worker/internal/message"
)

// ResultConsumer is a durable consumer of the results, whose handler gets them one by one.
type ResultConsumer struct {
	Name        string    // of the consumer; processes with the same name share its results
	Description string    // of the consumer, for people
	Since       time.Time // a new consumer begins with the results published from then on
	// Handle processes a result that was delivered so many times. Unless it is done, the result is redelivered after again.
	Handle func(ctx context.Context, m Message, times int) (again time.Duration, done bool)
	// Watch is called with the number of results that wait for their first delivery, or with why none can be delivered.
	Watch func(waiting uint64, err error)
}

const (
	handOutWait = 2 * time.Second  // of one pull request
	handOutHeld = 45 * time.Second // AckWait: a result that is in hand for longer is redelivered, maybe to another process
	handOutMany = 2                // results in hand at once in this process
)

// ConsumeResults calls Handle for each result until ctx ends, and again until Handle is done with it. The consumer is durable,
// so a restart continues where it was. After a crash, the results that were in hand are redelivered.
func (b *Broker) ConsumeResults(ctx context.Context, h ResultConsumer) {
	var running sync.WaitGroup
	for range handOutMany {
		running.Go(func() {
			for ctx.Err() == nil {
				if err := b.consumeResults(ctx, h); err != nil && ctx.Err() == nil {
					h.Watch(0, err)
					_ = wait(ctx, time.Second)
				}
			}
		})
	}
	running.Wait()
}

// consumeResults returns when ctx ends, or with an error after which the consumer must be opened again.
func (b *Broker) consumeResults(ctx context.Context, h ResultConsumer) error {
	consumer, err := b.openResultConsumer(ctx, h)
	if err != nil {
		return err
	}
	for ctx.Err() == nil {
		m, err := consumer.Next(jetstream.FetchMaxWait(handOutWait))
		if errors.Is(err, nats.ErrTimeout) || errors.Is(err, jetstream.ErrNoMessages) {
			h.Watch(0, nil)
			continue
		}
		if err != nil {
			return err
		}
		meta, err := m.Metadata()
		if err != nil {
			return err
		}
		h.Watch(meta.NumPending, nil)
		again, done := h.Handle(ctx, Message{
			Sequence: meta.Sequence.Stream, Subject: m.Subject(), Time: meta.Timestamp, Header: message.Header(m.Headers()), Data: m.Data(),
		}, int(meta.NumDelivered)) // #nosec G115 -- a count
		if done {
			err = m.Ack()
		} else {
			err = m.NakWithDelay(again)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// openResultConsumer opens the durable consumer, or creates it. It does not alter one that exists.
func (b *Broker) openResultConsumer(ctx context.Context, h ResultConsumer) (jetstream.Consumer, error) {
	ctx, cancel := context.WithTimeout(ctx, apiTimeout)
	defer cancel()
	n := b.cfg.Names
	consumer, err := b.js.Consumer(ctx, n.ResultsStream, h.Name)
	if errors.Is(err, jetstream.ErrConsumerNotFound) && !b.cfg.Provision {
		return nil, fmt.Errorf("consumer %s of %s is missing, and WORKER_PROVISION is false: run this once with true as a user who may create it", h.Name, n.ResultsStream)
	}
	if errors.Is(err, jetstream.ErrConsumerNotFound) {
		consumer, err = b.js.CreateConsumer(ctx, n.ResultsStream, jetstream.ConsumerConfig{
			Name: h.Name, Durable: h.Name, Description: h.Description, FilterSubject: n.ResultsSubject,
			DeliverPolicy: jetstream.DeliverByStartTimePolicy, OptStartTime: &h.Since,
			AckPolicy: jetstream.AckExplicitPolicy, AckWait: handOutHeld,
			// Handle gives up by time, and a result that waits for redelivery must not hold up others.
			MaxDeliver: -1, MaxAckPending: -1,
		})
	}
	if err != nil {
		return nil, fmt.Errorf("consumer %s of %s: %w", h.Name, n.ResultsStream, err)
	}
	return consumer, nil
}
