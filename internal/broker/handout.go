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

// Handout is a share of the results that is dealt with one by one.
type Handout struct {
	Name        string    // whoever shares it deals with each result once
	Description string    // for people who look at the consumer
	Since       time.Time // the name begins with the results that are published from then on
	// Handle deals with a result that was handed out so many times. It is handed out again after a while unless it is done.
	Handle func(ctx context.Context, m Message, times int) (again time.Duration, done bool)
	// Watch is told how many results wait to be handed out for the first time, or why none can be.
	Watch func(waiting uint64, err error)
}

const (
	handOutWait = 2 * time.Second  // of one question for a result
	handOutHeld = 45 * time.Second // a result that a process holds for longer goes to another
	handOutMany = 2                // at once in this process
)

// HandOut hands out the results until ctx ends, each until it is done: also over restarts, for the broker knows how far the name
// is. A crash hands out again what was in hand.
func (b *Broker) HandOut(ctx context.Context, h Handout) {
	var running sync.WaitGroup
	for range handOutMany {
		running.Go(func() {
			for ctx.Err() == nil {
				if err := b.handOut(ctx, h); err != nil && ctx.Err() == nil {
					h.Watch(0, err)
					_ = wait(ctx, time.Second)
				}
			}
		})
	}
	running.Wait()
}

// handOut returns when ctx ends, or when the consumer has to be looked for anew.
func (b *Broker) handOut(ctx context.Context, h Handout) error {
	consumer, err := b.handsOut(ctx, h)
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

// handsOut is the durable consumer of a name. One that is there is not altered.
func (b *Broker) handsOut(ctx context.Context, h Handout) (jetstream.Consumer, error) {
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
			// Giving up goes by time, and what waits for its next try holds up no other.
			MaxDeliver: -1, MaxAckPending: -1,
		})
	}
	if err != nil {
		return nil, fmt.Errorf("consumer %s of %s: %w", h.Name, n.ResultsStream, err)
	}
	return consumer, nil
}
