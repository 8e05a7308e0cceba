package broker

import (
	"context"
	"fmt"
	"time"

	"github.com/nats-io/nats.go/jetstream"
)

// found is what Provision found or made.
type found struct {
	requests     jetstream.Consumer
	ledger       jetstream.KeyValue
	ledgerStream jetstream.Stream
	state        jetstream.KeyValue

	ackWait                         time.Duration
	resultsWindow, deadletterWindow time.Duration
	resultsMax, deadletterMax       int32 // bytes of a message; 0 or less: no limit of the stream's own
	differences                     []string
}

func (b *Broker) bind(ctx context.Context, there present) (*found, error) {
	n := b.cfg.Names
	f := &found{
		requests:         there.requests,
		ledgerStream:     there.streams[b.topology.ledger.cfg.Name],
		ackWait:          ackWait(there.consumer.Config),
		resultsWindow:    there.streams[n.ResultsStream].CachedInfo().Config.Duplicates,
		deadletterWindow: there.streams[n.DeadletterStream].CachedInfo().Config.Duplicates,
		resultsMax:       there.streams[n.ResultsStream].CachedInfo().Config.MaxMsgSize,
		deadletterMax:    there.streams[n.DeadletterStream].CachedInfo().Config.MaxMsgSize,
		differences:      b.topology.differences(there),
	}
	for name, bucket := range map[string]*jetstream.KeyValue{LedgerBucket: &f.ledger, StateBucket: &f.state} {
		kv, err := within(ctx, func(ctx context.Context) (jetstream.KeyValue, error) { return b.js.KeyValue(ctx, name) })
		if err != nil {
			return nil, fmt.Errorf("open bucket %s: %w", name, err)
		}
		*bucket = kv
	}
	return f, nil
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

// Ledger is the bucket LedgerBucket.
func (b *Broker) Ledger() jetstream.KeyValue { return b.found.Load().ledger }

// LedgerStream is the stream that LedgerBucket is.
func (b *Broker) LedgerStream() jetstream.Stream { return b.found.Load().ledgerStream }

// State is the bucket StateBucket.
func (b *Broker) State() jetstream.KeyValue { return b.found.Load().state }

// AckWait is the consumer's real one, BackOff considered.
func (b *Broker) AckWait() time.Duration { return b.found.Load().ackWait }

// ResultsWindow is for how long the stream of results really tells a repeated
// message id.
func (b *Broker) ResultsWindow() time.Duration { return b.found.Load().resultsWindow }

// DeadletterWindow is the same for the stream of dead letters.
func (b *Broker) DeadletterWindow() time.Duration { return b.found.Load().deadletterWindow }

// Differences are the settings that are not as they would be provisioned.
func (b *Broker) Differences() []string { return b.found.Load().differences }
