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

// found is what Provision found or created.
type found struct {
	requests                        map[message.Lane]jetstream.Consumer // of the lanes that the request stream carries
	consumers                       map[message.Lane]*jetstream.ConsumerInfo
	created                         map[string]time.Time // when each stream was created
	ledger                          ledgerID
	ackWait                         time.Duration
	resultsWindow, deadletterWindow time.Duration
	largest                         map[string]int // how many bytes a message of each stream may have
	full                            []string       // the streams for decisions that are full, each with why
	differences                     []string
}

// bind makes the Broker's found from an inventory in which nothing is missing, and stores it.
func (b *Broker) bind(ctx context.Context, existing inventory) (*found, error) {
	n := b.cfg.Names
	f := &found{
		requests:         existing.requests,
		consumers:        existing.consumers,
		created:          map[string]time.Time{},
		ackWait:          ackWait(existing.consumers),
		resultsWindow:    existing.streams[n.ResultsStream].CachedInfo().Config.Duplicates,
		deadletterWindow: existing.streams[n.DeadletterStream].CachedInfo().Config.Duplicates,
		largest:          map[string]int{},
		differences:      b.topology.differences(existing),
	}
	for name, s := range existing.streams {
		f.created[name] = s.CachedInfo().Created
		f.largest[name] = b.largest(s.CachedInfo().Config)
	}
	for _, name := range []string{n.ResultsStream, n.DeadletterStream, AuditStream} {
		if why := full(existing.streams[name].CachedInfo()); why != "" {
			f.full = append(f.full, fmt.Sprintf("stream %s is full (%s)", name, why))
		}
	}
	was, ledgerName, stateName := b.found.Load(), b.topology.ledger.cfg.Name, b.topology.state.cfg.Name
	b.state.SetCreated(f.created[stateName], existing.streams[stateName].CachedInfo().State.LastSeq)
	since, _, err := b.markedSince(ctx)
	if err != nil {
		return nil, err
	}
	if f.ledger = was.ledger; since.IsZero() || !was.ledger.created.Equal(since) || !was.created[stateName].Equal(f.created[stateName]) {
		if f.ledger, err = b.identify(ctx, f.created[ledgerName], was.ledger); err != nil {
			return nil, err
		}
		if f.ledger.lost && !was.ledger.lost {
			b.log.Error("the ledger was lost, and recreated: for each request that was published before, the API's list of actions is searched before a call", zap.Time("created", f.ledger.created))
		}
	}
	b.found.Store(f) // before the ledger accepts writes: whoever decides on an entry must know whether the ledger was lost
	b.ledger.SetCreated(f.ledger.created, existing.streams[ledgerName].CachedInfo().State.LastSeq)
	return f, nil
}

// ackWait is after how long without an acknowledgement or a progress signal the broker redelivers a message: the shortest of
// all lanes. If BackOff is set, it replaces AckWait.
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

// OpenRequests provisions, and returns a lane's consumer, which it recreates if it was deleted. If the request stream does not
// carry the lane, it waits until it does.
func (b *Broker) OpenRequests(ctx context.Context, l message.Lane) (jetstream.Consumer, error) {
	if err := b.Provision(ctx); err != nil {
		return nil, err
	}
	for { // from here on Keep updates what Requests returns
		if c := b.Requests(l); c != nil {
			return c, nil
		}
		if err := wait(ctx, keepEvery); err != nil {
			return nil, err
		}
	}
}

// Requests is the shared consumer of a lane; nil if the request stream does not carry the lane. This and the following methods
// return nil or zero until Provision has succeeded.
func (b *Broker) Requests(l message.Lane) jetstream.Consumer { return b.found.Load().requests[l] }

// State is the bucket StateBucket.
func (b *Broker) State() *stream.Bucket { return b.state }

// AckWait is the consumers' effective AckWait, with BackOff taken into account.
func (b *Broker) AckWait() time.Duration { return b.found.Load().ackWait }

// ResultsWindow is the effective duplicate window of the stream of results: for
// how long it recognises a repeated message id.
func (b *Broker) ResultsWindow() time.Duration { return b.found.Load().resultsWindow }

// DeadletterWindow is the same for the stream of dead letters.
func (b *Broker) DeadletterWindow() time.Duration { return b.found.Load().deadletterWindow }

// Differences are the settings that differ from what Provision would create.
func (b *Broker) Differences() []string { return b.found.Load().differences }
