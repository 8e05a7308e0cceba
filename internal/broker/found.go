package broker

import (
	"context"
	"fmt"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"go.uber.org/zap"

	"example.com/unrestrict-worker/internal/broker/stream"
	"example.com/unrestrict-worker/internal/message"
)

// found is what Provision found or made.
type found struct {
	requests                        map[message.Lane]jetstream.Consumer // of the lanes that the request stream carries
	consumers                       map[message.Lane]*jetstream.ConsumerInfo
	created                         map[string]time.Time // when each stream was
	ledger                          ledgerID
	ackWait                         time.Duration
	resultsWindow, deadletterWindow time.Duration
	largest                         map[string]int // what a message of each stream may have, in bytes
	full                            []string       // streams that take nothing of what is decided, each with why
	differences                     []string
}

// found is what a look found where nothing is missing.
func (b *Broker) bind(ctx context.Context, there present) (*found, error) {
	n := b.cfg.Names
	f := &found{
		requests:         there.requests,
		consumers:        there.consumers,
		created:          map[string]time.Time{},
		ackWait:          ackWait(there.consumers),
		resultsWindow:    there.streams[n.ResultsStream].CachedInfo().Config.Duplicates,
		deadletterWindow: there.streams[n.DeadletterStream].CachedInfo().Config.Duplicates,
		largest:          map[string]int{},
		differences:      b.topology.differences(there),
	}
	for name, s := range there.streams {
		f.created[name] = s.CachedInfo().Created
		f.largest[name] = b.largest(s.CachedInfo().Config)
	}
	for _, name := range []string{n.ResultsStream, n.DeadletterStream, AuditStream} {
		if why := full(there.streams[name].CachedInfo()); why != "" {
			f.full = append(f.full, fmt.Sprintf("stream %s is full (%s)", name, why))
		}
	}
	was, ledgerName, stateName := b.found.Load(), b.topology.ledger.cfg.Name, b.topology.state.cfg.Name
	b.state.Looked(f.created[stateName], there.streams[stateName].CachedInfo().State.LastSeq)
	since, _, err := b.markedSince(ctx)
	if err != nil {
		return nil, err
	}
	if f.ledger = was.ledger; since.IsZero() || !was.ledger.created.Equal(since) || !was.created[stateName].Equal(f.created[stateName]) {
		if f.ledger, err = b.identify(ctx, f.created[ledgerName], was.ledger); err != nil {
			return nil, err
		}
		if f.ledger.lost && !was.ledger.lost {
			b.log.Error("the ledger was lost, and made anew: what was published before is looked for before it is called", zap.Time("created", f.ledger.created))
		}
	}
	b.found.Store(f) // before the ledger takes writes: who decides on one is to know whether it was lost
	b.ledger.Looked(f.ledger.created, there.streams[ledgerName].CachedInfo().State.LastSeq)
	return f, nil
}

// ackWait is after how long without a sign of life the broker hands a message
// to another, of all lanes the shortest: BackOff, where it is set, takes the place of AckWait.
func ackWait(consumers map[message.Lane]*jetstream.ConsumerInfo) (wait time.Duration) {
	for _, info := range consumers {
		c := info.Config
		for _, d := range append(c.BackOff, c.AckWait) {
			if wait == 0 || d < wait {
				wait = d
			}
		}
	}
	return wait
}

// OpenRequests provisions and returns a lane's consumer, made anew if it was deleted under us. It waits for a lane that the
// request stream does not carry.
func (b *Broker) OpenRequests(ctx context.Context, l message.Lane) (jetstream.Consumer, error) {
	if err := b.Provision(ctx); err != nil {
		return nil, err
	}
	for { // from here on Keep looks
		if c := b.Requests(l); c != nil {
			return c, nil
		}
		if err := wait(ctx, keepEvery); err != nil {
			return nil, err
		}
	}
}

// Requests is the shared consumer of a lane; nil where the request stream does not carry it. This and what follows is nil
// or zero until Provision has succeeded.
func (b *Broker) Requests(l message.Lane) jetstream.Consumer { return b.found.Load().requests[l] }

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
