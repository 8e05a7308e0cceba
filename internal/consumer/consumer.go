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
	// Open returns the durable pull consumer, making it anew if it was deleted.
	Open func(ctx context.Context) (jetstream.Consumer, error)
	// Conn is the connection to pull and acknowledge on.
	Conn *nats.Conn
	// Domain is the JetStream domain of the consumer; "": the server's own.
	Domain string
	// Handler carries one delivery as far as it can go.
	Handler message.Handler
	// Admit blocks, in order, until a message may be pulled; the operator's pause and the budget stand here.
	Admit []func(ctx context.Context) error
	// Paused reports whether a message that answers an earlier pull must be nakked; nil: never.
	Paused func() bool
	// Breaker is asked last, for it hands out the one probe of a pause.
	Breaker *remediation.Breaker
	// Idle is called when there was no message to probe with; nil: nothing is done then.
	Idle func(ctx context.Context)
	// Slots is how many deliveries are in hand at once.
	Slots int
	// AckWait is the broker's real one; a delivery in hand is kept alive at a third of it.
	AckWait time.Duration
	// Grace is how long deliveries in hand may take to finish after a stop was asked for.
	Grace time.Duration

	Registerer prometheus.Registerer // nil: none
	Log        *zap.Logger
}

// Consumer pulls a message only when there is a free slot to handle it: no prefetched messages wait while their ack timers
// run.
type Consumer struct {
	cfg          Config
	slots        chan struct{} // holds one element for each delivery in hand or asked for
	inHand       sync.WaitGroup
	inFlight     atomic.Int64
	delays       delays
	lastProgress atomic.Int64 // unix nanoseconds of the pull loop's last progress
	idle         atomic.Bool  // waiting for a slot, for what Admit, Breaker and Idle wait for, for the broker, or for what is in hand at the end
}

// ErrUnfinished is returned by Run when deliveries in hand outlasted the grace.
var ErrUnfinished = errors.New("calls in flight outlasted the shutdown timeout; the next start looks them up")

// New makes a consumer; it pulls nothing before Run.
func New(cfg Config) *Consumer {
	c := &Consumer{cfg: cfg, slots: make(chan struct{}, cfg.Slots)}
	if cfg.Registerer != nil {
		cfg.Registerer.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "unrestrict_in_flight", Help: "Requests in hand of this replica, WORKER_CONCURRENCY at most.",
		}, func() float64 { return float64(c.InFlight()) }))
	}
	c.lastProgress.Store(time.Now().UnixNano())
	return c
}

// InFlight is how many deliveries are in hand.
func (c *Consumer) InFlight() int { return int(c.inFlight.Load()) }

// Delayed is how many deliveries were handed back with a delay that still runs.
func (c *Consumer) Delayed() int { return c.delays.count() }

// stuckAfter is many times as long as one iteration of the pull loop can take.
const stuckAfter = time.Minute

// Alive is nil while the loop makes progress or waits for something that it knows of.
func (c *Consumer) Alive() error {
	if d := time.Since(time.Unix(0, c.lastProgress.Load())); !c.idle.Load() && d > stuckAfter {
		return fmt.Errorf("the pull loop has made no progress for %s", d.Round(time.Second))
	}
	return nil
}

// progress records that the pull loop makes progress.
func (c *Consumer) progress() {
	c.lastProgress.Store(time.Now().UnixNano())
	c.idle.Store(false)
}

// Run pulls and handles until ctx ends. Then it naks what has not begun, and waits for the rest up to the grace.
func (c *Consumer) Run(ctx context.Context) error {
	work, cut := context.WithCancel(context.WithoutCancel(ctx))
	defer cut()
	stopped := make(chan time.Time, 1)
	defer context.AfterFunc(ctx, func() { stopped <- time.Now() })()
	for ctx.Err() == nil {
		c.lastProgress.Store(time.Now().UnixNano())
		if err := c.pull(ctx, work); err != nil && ctx.Err() == nil {
			c.cfg.Log.Warn("pulling is interrupted", zap.Error(err))
			select {
			case <-ctx.Done():
			case <-time.After(time.Second):
			}
		}
	}
	c.idle.Store(true) // there is no loop any more; Grace bounds what is left
	return c.finish(cut, <-stopped)
}

// pull hands messages to the handler until ctx ends or the consumer is gone.
func (c *Consumer) pull(ctx, work context.Context) error {
	c.idle.Store(true) // Open waits for a broker that is away
	cons, err := c.cfg.Open(ctx)
	c.progress()
	if err != nil {
		return fmt.Errorf("open the consumer: %w", err)
	}
	p, err := newPuller(c.cfg.Conn, c.cfg.Domain, cons)
	if err != nil {
		return err
	}
	defer func() {
		for _, msg := range p.close() {
			c.ackOrNak(msg, message.Later(0, "shutdown"))
		}
	}()
	for {
		probe, err := c.admitted(ctx)
		if err != nil {
			return nil //nolint:nilerr // ctx ended
		}
		if err := c.batch(ctx, work, p, probe); err != nil {
			return err
		}
	}
}

// batch asks for a message for each free slot, and hands the messages of that pull request to the handler.
func (c *Consumer) batch(ctx, work context.Context, p *puller, probe bool) error {
	n := 1
	if !probe {
		n += c.acquireMore(p.most - 1)
	}
	defer func() {
		for ; n > 0; n-- { // slots that no message came for
			c.releaseSlot()
		}
	}()
	if err := p.ask(n); err != nil {
		c.probed(probe)
		return err
	}
	for n > 0 {
		msg, err := p.next(ctx.Done())
		if msg == nil {
			if probe && err == nil && c.cfg.Idle != nil {
				c.idle.Store(true) // it asks an API that may well be what hangs
				c.cfg.Idle(ctx)
				c.progress()
			}
			c.probed(probe)
			return err
		}
		n--
		if c.cfg.Paused != nil && c.cfg.Paused() {
			c.ackOrNak(msg, message.Later(0, "paused"))
			c.releaseSlot()
			c.probed(probe)
			continue
		}
		c.inFlight.Add(1)
		c.inHand.Go(func() {
			defer func() { c.releaseSlot(); c.inFlight.Add(-1); c.probed(probe) }()
			c.handle(ctx, work, msg, probe)
		})
	}
	return nil
}

// admitted blocks until there is a free slot and a message may be pulled. It has taken the slot when it returns nil.
func (c *Consumer) admitted(ctx context.Context) (probe bool, err error) {
	c.idle.Store(true)
	defer c.progress()
	select {
	case <-ctx.Done():
		return false, context.Cause(ctx)
	case c.slots <- struct{}{}:
	}
	if ctx.Err() != nil { // select chooses at random
		c.releaseSlot()
		return false, context.Cause(ctx)
	}
	for _, admit := range c.cfg.Admit {
		if err := admit(ctx); err != nil {
			c.releaseSlot()
			return false, err
		}
	}
	if probe, err = c.cfg.Breaker.Admit(ctx); err != nil {
		c.releaseSlot()
	}
	return probe, err
}

// acquireMore takes up to most free slots, without waiting.
func (c *Consumer) acquireMore(most int) (n int) {
	for ; n < most; n++ {
		select {
		case c.slots <- struct{}{}:
		default:
			return n
		}
	}
	return n
}

// releaseSlot releases a slot.
func (c *Consumer) releaseSlot() { <-c.slots }

func (c *Consumer) probed(probe bool) {
	if probe {
		c.cfg.Breaker.Probed()
	}
}

func (c *Consumer) handle(wait, work context.Context, msg *nats.Msg, probe bool) {
	meta, err := msg.Metadata()
	if err != nil {
		c.cfg.Log.Error("a message that is not JetStream's was left alone", zap.Error(err))
		return
	}
	beat := c.keepAlive(msg)
	defer beat.stop()
	c.ackOrNak(msg, c.callHandler(wait, work, message.Delivery{
		Stream: meta.Stream, Sequence: meta.Sequence.Stream, Subject: msg.Subject, Header: message.Header(msg.Header),
		Data: msg.Data, Published: meta.Timestamp, Attempt: int(meta.NumDelivered), Probe: probe,
	}))
}

// callHandler keeps a panic over one message from ending the others.
func (c *Consumer) callHandler(wait, work context.Context, d message.Delivery) (out message.Outcome) {
	defer func() { //nolint:contextcheck // the trace is in the delivery
		if r := recover(); r != nil {
			c.cfg.Log.Error("handler panicked", d.About(zap.Any("panic", r), zap.ByteString("stack", debug.Stack()))...)
			out = message.Later(time.Minute, "panic")
		}
	}()
	return c.cfg.Handler(wait, work, d)
}

// ackOrNak acks or naks the message. If that is lost, the message is redelivered, and the ledger shows what was done.
func (c *Consumer) ackOrNak(msg *nats.Msg, out message.Outcome) {
	if !out.Done {
		c.delays.add(out.After)
	}
	if err := acknowledge(msg, out); err != nil {
		c.cfg.Log.Debug("acknowledgement lost; the message is redelivered", zap.Error(err))
	}
}

// finish waits for the deliveries in hand; what outlasts the grace, which began when the stop was asked for, is cut off.
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
