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

// Handle deals with a result that was handed out so many times. It is handed out again after a while unless it is done.
type Handle func(ctx context.Context, m Message, times int) (again time.Duration, done bool)

const (
	handOutWait = 2 * time.Second  // of one question for a result
	handOutHeld = 45 * time.Second // a result that a process holds for longer goes to another
	handOutMany = 2                // at once in this process
)

// HandOut hands the results to whoever shares a name, each until it is done, until ctx ends: also over restarts, for the broker knows
// how far they are. The name begins with the results that are published from since on. A crash hands out again what was in hand.
func (b *Broker) HandOut(ctx context.Context, name, description string, since time.Time, handle Handle) {
	var running sync.WaitGroup
	for range handOutMany {
		running.Go(func() {
			for ctx.Err() == nil {
				if err := b.handOut(ctx, name, description, since, handle); err != nil {
					_ = wait(ctx, time.Second)
				}
			}
		})
	}
	running.Wait()
}

// handOut returns when ctx ends, or when the consumer has to be looked for anew.
func (b *Broker) handOut(ctx context.Context, name, description string, since time.Time, handle Handle) error {
	consumer, err := b.handsOut(ctx, name, description, since)
	if err != nil {
		return err
	}
	for ctx.Err() == nil {
		m, err := consumer.Next(jetstream.FetchMaxWait(handOutWait))
		if errors.Is(err, nats.ErrTimeout) || errors.Is(err, jetstream.ErrNoMessages) {
			continue
		}
		if err != nil {
			return err
		}
		meta, err := m.Metadata()
		if err != nil {
			return err
		}
		again, done := handle(ctx, Message{
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
func (b *Broker) handsOut(ctx context.Context, name, description string, since time.Time) (jetstream.Consumer, error) {
	ctx, cancel := context.WithTimeout(ctx, apiTimeout)
	defer cancel()
	n := b.cfg.Names
	consumer, err := b.js.Consumer(ctx, n.ResultsStream, name)
	if errors.Is(err, jetstream.ErrConsumerNotFound) {
		consumer, err = b.js.CreateConsumer(ctx, n.ResultsStream, jetstream.ConsumerConfig{
			Name: name, Durable: name, Description: description, FilterSubject: n.ResultsSubject,
			DeliverPolicy: jetstream.DeliverByStartTimePolicy, OptStartTime: &since,
			AckPolicy: jetstream.AckExplicitPolicy, AckWait: handOutHeld,
			// Giving up goes by time, and what waits for its next try holds up no other.
			MaxDeliver: -1, MaxAckPending: -1,
		})
	}
	if err != nil {
		return nil, fmt.Errorf("consumer %s of %s: %w", name, n.ResultsStream, err)
	}
	return consumer, nil
}
