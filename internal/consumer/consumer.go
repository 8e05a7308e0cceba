// Package consumer pulls JetStream deliveries, calls the handler, and acks or naks. Nothing else acknowledges.
package consumer

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"

	"example.com/unrestrict-worker/internal/message"
	"example.com/unrestrict-worker/internal/remediation"
)

// Config is what a Consumer is made of.
type Config struct {
	// Lanes are the lanes to pull; nil: all.
	Lanes []message.Lane
	// Open returns the durable pull consumer of a lane. It recreates one that was deleted.
	Open func(ctx context.Context, l message.Lane) (jetstream.Consumer, error)
	// Conn is the connection for pulling and acknowledging.
	Conn *nats.Conn
	// Domain is the JetStream domain of the consumer; "": the server's own.
	Domain string
	// Handler processes one delivery as far as it can now.
	Handler message.Handler
	// Admit is called in order; each blocks until a message of a lane may be pulled. The operator's pause and the budget are
	// checked here.
	Admit []func(ctx context.Context, l message.Lane) error
	// Paused reports whether a message that answers an earlier pull must be nakked; nil: never.
	Paused func() bool
	// Breaker is asked after Admit, because its answer may be the permission for the one probe of a pause.
	Breaker *remediation.Breaker
	// Idle is called when there was no message to probe with; nil: nothing is called.
	Idle func(ctx context.Context)
	// Slots is the number of deliveries handled at once. UrgentSlots is how many urgent ones may be handled besides, while
	// those in the other slots hang or wait.
	Slots, UrgentSlots int
	// AckWait is the consumer's real AckWait at the broker; a delivery is kept alive at a third of it.
	AckWait time.Duration
	// Grace is how long deliveries in hand may take to finish after a stop.
	Grace time.Duration

	Registerer prometheus.Registerer // nil: none
	Log        *zap.Logger
}

// Consumer pulls one message of each lane at a time. That message waits in hand until it gets a free slot. No others are
// pulled meanwhile, so that their ack timers don't run.
type Consumer struct {
	cfg      Config
	slots    *slots
	loops    []*loop
	inHand   sync.WaitGroup
	inFlight atomic.Int64
	delays   delays
}

// ErrUnfinished is returned by Run when deliveries in hand took longer than the grace.
var ErrUnfinished = errors.New("calls in flight outlasted the shutdown timeout; the next start looks them up")

// New makes a consumer. It pulls nothing before Run.
func New(cfg Config) *Consumer {
	c := &Consumer{cfg: cfg, slots: newSlots(cfg.Slots, cfg.UrgentSlots)}
	lanes := cfg.Lanes
	if lanes == nil {
		lanes = message.Lanes()
	}
	for _, l := range lanes {
		one := &loop{Consumer: c, lane: l}
		one.lastProgress.Store(time.Now().UnixNano())
		c.loops = append(c.loops, one)
	}
	if cfg.Registerer != nil {
		cfg.Registerer.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "unrestrict_in_flight", Help: "Requests in hand of this replica, WORKER_CONCURRENCY at most, and some urgent ones besides.",
		}, func() float64 { return float64(c.InFlight()) }))
	}
	return c
}

// InFlight is the number of deliveries being handled.
func (c *Consumer) InFlight() int { return int(c.inFlight.Load()) }

// Delayed is the number of deliveries that were nakked with a delay which has not passed yet.
func (c *Consumer) Delayed() int { return c.delays.count() }

// Waiting is the number of pulled messages that still wait for a slot.
func (c *Consumer) Waiting() int { return c.slots.waiting() }

// stuckAfter is many times the longest iteration of the pull loop.
const stuckAfter = time.Minute

// Alive returns nil while each loop makes progress or is in one of its known waits.
func (c *Consumer) Alive() error {
	for _, l := range c.loops {
		if d := time.Since(time.Unix(0, l.lastProgress.Load())); !l.idle.Load() && d > stuckAfter {
			return fmt.Errorf("the pull loop of the lane %s has made no progress for %s", l.lane, d.Round(time.Second))
		}
	}
	return nil
}

// Run pulls and handles until ctx ends. Then it naks the messages that no handler has begun, and waits for the others up to
// the grace.
func (c *Consumer) Run(ctx context.Context) error {
	work, cut := context.WithCancel(context.WithoutCancel(ctx))
	defer cut()
	stopped := make(chan time.Time, 1)
	defer context.AfterFunc(ctx, func() { stopped <- time.Now() })()
	var pulling sync.WaitGroup
	for _, l := range c.loops {
		pulling.Go(func() { l.run(ctx, work) })
	}
	pulling.Wait()
	return c.finish(cut, <-stopped)
}

func (c *Consumer) probed(probe bool) {
	if probe {
		c.cfg.Breaker.Probed()
	}
}

func (l *loop) handle(wait, work context.Context, msg *nats.Msg, probe bool) {
	meta, err := msg.Metadata()
	if err != nil {
		l.cfg.Log.Error("a message that is not JetStream's was left alone", zap.Error(err))
		return
	}
	l.ackOrNak(msg, l.callHandler(wait, work, message.Delivery{
		Stream: meta.Stream, Sequence: meta.Sequence.Stream, Subject: msg.Subject, Lane: l.lane, Header: message.Header(msg.Header),
		Data: msg.Data, Published: meta.Timestamp, Attempt: int(meta.NumDelivered), Probe: probe,
	}))
}

// callHandler recovers from a panic over one message, so that the others go on.
func (c *Consumer) callHandler(wait, work context.Context, d message.Delivery) (out message.Outcome) {
	defer func() { //nolint:contextcheck // the trace is in the delivery
		if r := recover(); r != nil {
			c.cfg.Log.Error("handler panicked", d.About(zap.Any("panic", r), zap.ByteString("stack", debug.Stack()))...)
			out = message.Later(time.Minute, "panic")
		}
	}()
	return c.cfg.Handler(wait, work, d)
}

// ackOrNak acks or naks the message. If the ack is lost, the message is redelivered, and the ledger shows what was done.
func (c *Consumer) ackOrNak(msg *nats.Msg, out message.Outcome) {
	if !out.Done {
		c.delays.add(out.After)
	}
	if err := acknowledge(msg, out); err != nil {
		c.cfg.Log.Debug("acknowledgement lost; the message is redelivered", zap.Error(err))
	}
}

// finish waits for the deliveries in hand. Those that outlast the grace, which began at the stop, are cut off.
func (c *Consumer) finish(cut func(), stopped time.Time) error {
	done := make(chan struct{})
	go func() { c.inHand.Wait(); close(done) }()
	grace := time.NewTimer(c.cfg.Grace - time.Since(stopped))
	defer grace.Stop()
	select {
	case <-done:
		return nil
	case <-grace.C:
	}
	cut()
	<-done
	return ErrUnfinished
}
