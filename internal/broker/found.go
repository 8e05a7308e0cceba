package broker

import (
	"context"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"example.com/unrestrict-worker/internal/broker/stream"
)

// found is what Provision found or made.
type found struct {
	requests                        jetstream.Consumer
	ackWait                         time.Duration
	resultsWindow, deadletterWindow time.Duration
	resultsMax, deadletterMax       int32 // bytes of a message; 0 or less: no limit of the stream's own
	differences                     []string
}

// found is what a look found where nothing is missing.
func (b *Broker) found_(there present) *found {
	n := b.cfg.Names
	return &found{
		requests:         there.requests,
		ackWait:          ackWait(there.consumer.Config),
		resultsWindow:    there.streams[n.ResultsStream].CachedInfo().Config.Duplicates,
		deadletterWindow: there.streams[n.DeadletterStream].CachedInfo().Config.Duplicates,
		resultsMax:       there.streams[n.ResultsStream].CachedInfo().Config.MaxMsgSize,
		deadletterMax:    there.streams[n.DeadletterStream].CachedInfo().Config.MaxMsgSize,
		differences:      b.topology.differences(there),
	}
}

// ackWait is after how long without a sign of life the broker hands a message
// to another: BackOff, where it is set, takes the place of AckWait.
func ackWait(c jetstream.ConsumerConfig) time.Duration {
	wait := c.AckWait
	for _, d := range c.BackOff {
		wait = min(wait, d)
	}
	return wait
}

// OpenRequests provisions and returns the consumer: made anew if it was deleted under us.
func (b *Broker) OpenRequests(ctx context.Context) (jetstream.Consumer, error) {
	if err := b.Provision(ctx); err != nil {
		return nil, err
	}
	return b.Requests(), nil
}

// Requests is the shared consumer of the requests. This and what follows is nil
// or zero until Provision has succeeded.
func (b *Broker) Requests() jetstream.Consumer { return b.found.Load().requests }

// State is the bucket StateBucket.
func (b *Broker) State() *stream.Bucket { return b.state }

// AckWait is the consumer's real one, BackOff considered.
func (b *Broker) AckWait() time.Duration { return b.found.Load().ackWait }

// ResultsWindow is for how long the stream of results really tells a repeated
// message id.
func (b *Broker) ResultsWindow() time.Duration { return b.found.Load().resultsWindow }

// DeadletterWindow is the same for the stream of dead letters.
func (b *Broker) DeadletterWindow() time.Duration { return b.found.Load().deadletterWindow }

// Differences are the settings that are not as they would be provisioned.
func (b *Broker) Differences() []string { return b.found.Load().differences }
