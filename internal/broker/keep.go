package broker

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"go.uber.org/zap"

	"example.com/unrestrict-worker/internal/health"
	"example.com/unrestrict-worker/internal/message"
)

const (
	keepEvery = 5 * time.Second
	// silentFor is how long inspections may fail with temporary errors before that is a condition: the leader may be changing.
	silentFor = 2 * keepEvery
	// sayLostFor is how long a lost ledger is reported (README, promise 2).
	sayLostFor = time.Hour
)

// Keep inspects every few seconds, until ctx ends, whether what Provision found still exists and is fit, and recreates what is
// gone, if it may. What it can't repair is a condition until it is repaired.
func (b *Broker) Keep(ctx context.Context) error {
	last := time.Now()
	for Tick(ctx, keepEvery) == nil {
		if !b.nc.IsConnected() {
			continue // that is another condition
		}
		b.retryDenied(ctx)
		_, err := b.provisionOnce(ctx)
		switch {
		case ctx.Err() != nil:
			return nil
		case err == nil:
			last = time.Now()
			b.broken.Store(nil)
		case mayPass(err) && time.Since(last) < silentFor:
		default:
			c := broken(err)
			if was := b.broken.Swap(&c); was == nil || was.Message != c.Message {
				b.log.Error("requests wait for their streams", zap.String("code", c.Code), zap.Error(err))
			}
		}
	}
	return nil
}

// mayPass reports whether an error is temporary, or may not belong to the inspection: a denial does not name its call.
func mayPass(err error) bool {
	_, denied := errors.AsType[*DeniedError](err)
	return denied || isRetryable(err)
}

// broken is the condition that an error of provisioning means.
func broken(err error) health.Condition {
	missing, isMissing := errors.AsType[*MissingError](err)
	unfit, isUnfit := errors.AsType[*UnfitError](err)
	switch {
	case isMissing && !isUnfit:
		var names []string
		for _, m := range missing.Missing {
			name, _, _ := strings.Cut(m, ":")
			names = append(names, name)
		}
		return health.New(health.Missing, "missing, and not created because WORKER_PROVISION is false: "+strings.Join(names, ", "))
	case isUnfit:
		return health.New(health.Unfit, strings.Join(unfit.Reasons, "; "))
	case isRetryable(err):
		return health.New(health.JetStream, err.Error())
	}
	return health.New(health.Missing, "what is missing can't be created: "+err.Error())
}

// Conditions are those of the streams, the buckets and the consumers.
func (b *Broker) Conditions() (all []health.Condition) {
	all = b.denials.conditions()
	if c := b.broken.Load(); c != nil && (!b.repliesDenied() || c.Code != health.JetStream) { // denied replies explain that condition
		all = append(all, *c)
	}
	f := b.found.Load()
	if len(f.full) > 0 {
		all = append(all, health.New(health.StreamFull, strings.Join(f.full, "; ")+": no more calls are made, because their results could not be published"))
	}
	if until := f.ledger.created.Add(sayLostFor); f.ledger.lost && time.Now().Before(until) {
		c := health.New(health.LedgerLost, fmt.Sprintf("the ledger was lost, and recreated at %s: for each request that was published before, the API's list of actions is searched before a call",
			f.ledger.created.UTC().Format(time.RFC3339)))
		c.Since, c.Until = f.ledger.created, until
		all = append(all, c)
	}
	for _, l := range message.Lanes() {
		if info := f.consumers[l]; info != nil {
			all = append(all, ofConsumer(info)...)
		}
	}
	return all
}

// ofConsumer are the conditions of one lane's consumer.
func ofConsumer(info *jetstream.ConsumerInfo) []health.Condition {
	switch {
	case info.Paused:
		c := health.New(health.ConsumerPaused, fmt.Sprintf("somebody has paused the consumer %s: nothing is delivered", info.Name))
		c.Until = info.TimeStamp.Add(info.PauseRemaining).UTC()
		return []health.Condition{c}
	case info.Config.MaxAckPending > 0 && info.NumAckPending >= info.Config.MaxAckPending && info.NumPending > 0:
		return []health.Condition{health.New(health.AckPending, fmt.Sprintf("the consumer %s delivers no more than %d requests that are not acknowledged (max_ack_pending), and so many are out or wait for their delay; %d wait behind them",
			info.Name, info.Config.MaxAckPending, info.NumPending))}
	}
	return nil
}

// AwaitStreams blocks while requests must not be taken because a stream is missing, unfit or full: their calls would be made,
// but the outcome could be lost, or could not be published.
func (b *Broker) AwaitStreams(ctx context.Context) error {
	for b.StreamsFaulty() {
		if err := wait(ctx, time.Second); err != nil {
			return err
		}
	}
	return nil
}

// Deliveries sums up the infos of all lanes' consumers.
type Deliveries struct {
	Waiting   int    // requests that were never delivered
	Delivered uint64 // deliveries so far, to any replica
	Out       int    // requests that are delivered and not acknowledged, nakked ones included
	Asked     bool   // every lane has a pull request that waits for messages
	Floor     uint64 // sum of the lanes' ack floors
}

// Deliveries is the sum at the last inspection; known: there was one.
func (b *Broker) Deliveries() (d Deliveries, known bool) {
	consumers := b.found.Load().consumers
	d.Asked = true
	for _, info := range consumers {
		d.Waiting, d.Delivered = d.Waiting+int(info.NumPending), d.Delivered+info.Delivered.Consumer
		d.Out, d.Floor, d.Asked = d.Out+info.NumAckPending, d.Floor+info.AckFloor.Stream, d.Asked && info.NumWaiting > 0
	}
	return d, len(consumers) > 0
}

// StreamsVisible reports whether no known fault hides the broker's streams; such a fault is a condition of its own.
func (b *Broker) StreamsVisible() bool {
	return b.nc.IsConnected() && b.broken.Load() == nil && b.StoreFault().Reason == ""
}

// StreamsFaulty reports whether a stream is missing, unfit or full.
func (b *Broker) StreamsFaulty() bool { return b.broken.Load() != nil || len(b.found.Load().full) > 0 }

// LedgerLostBefore is when the present ledger was created, if the one before was lost: requests from before that time may be
// missing in it. Zero: no ledger was lost.
func (b *Broker) LedgerLostBefore() time.Time {
	if f := b.found.Load(); f.ledger.lost {
		return f.ledger.created
	}
	return time.Time{}
}
