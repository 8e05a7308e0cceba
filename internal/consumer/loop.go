package consumer

import (
	"context"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"
	"go.uber.org/zap"

	"example.com/unrestrict-worker/internal/message"
)

// loop pulls one lane.
type loop struct {
	*Consumer
	lane         message.Lane
	lastProgress atomic.Int64 // unix nanoseconds of its last progress
	idle         atomic.Bool  // in a known wait: for a slot, in Admit, Breaker or Idle, for the broker, or stopped
}

// progress records that the pull loop makes progress.
func (l *loop) progress() {
	l.lastProgress.Store(time.Now().UnixNano())
	l.idle.Store(false)
}

// run pulls a lane until ctx ends.
func (l *loop) run(ctx, work context.Context) {
	for ctx.Err() == nil {
		l.lastProgress.Store(time.Now().UnixNano())
		if err := l.pull(ctx, work); err != nil && ctx.Err() == nil {
			l.cfg.Log.Warn("pulling is interrupted", zap.String("lane", string(l.lane)), zap.Error(err))
			select {
			case <-ctx.Done():
			case <-time.After(time.Second):
			}
		}
	}
	l.idle.Store(true) // the loop has ended; Grace bounds what is left
}

// pull passes messages to the handler until ctx ends or the consumer is deleted.
func (l *loop) pull(ctx, work context.Context) error {
	l.idle.Store(true) // Open waits while the broker is away, or the stream lacks the lane's subject
	cons, err := l.cfg.Open(ctx, l.lane)
	l.progress()
	if err != nil {
		return fmt.Errorf("open the consumer: %w", err)
	}
	p, err := newPuller(l.cfg.Conn, l.cfg.Domain, cons)
	if err != nil {
		return err
	}
	defer func() {
		for _, msg := range p.close() {
			l.ackOrNak(msg, message.Later(0, "shutdown"))
		}
	}()
	for {
		probe, err := l.admitted(ctx)
		if err != nil {
			return nil //nolint:nilerr // ctx ended
		}
		if err := l.pullOne(ctx, work, p, probe); err != nil {
			return err
		}
	}
}

// pullOne asks for a message, waits for its slot, and passes it to the handler.
func (l *loop) pullOne(ctx, work context.Context, p *puller, probe bool) error {
	if err := p.ask(probe, len(l.loops)); err != nil {
		l.probed(probe)
		return err
	}
	msg, err := p.next(ctx.Done())
	if msg == nil {
		l.slots.none(l.lane)
		if probe && err == nil && l.cfg.Idle != nil {
			l.idle.Store(true) // Idle calls an API that may hang
			l.cfg.Idle(ctx)
			l.progress()
		}
		l.probed(probe)
		if probe {
			l.othersProbe(ctx)
		}
		return err
	}
	beat := l.keepAlive(msg)
	l.idle.Store(true)
	release := l.slots.take(ctx, l.lane, hasMore(msg))
	l.progress()
	if release == nil || l.cfg.Paused != nil && l.cfg.Paused() {
		beat.stop()
		l.ackOrNak(msg, message.Later(0, "paused"))
		l.probed(probe)
		if release != nil {
			release()
			return nil
		}
		l.idle.Store(true)
		l.slots.vacancy(ctx, l.lane)
		l.progress()
		return nil
	}
	l.inFlight.Add(1)
	l.inHand.Go(func() {
		defer func() { release(); l.inFlight.Add(-1); l.probed(probe) }()
		defer beat.stop()
		l.handle(ctx, work, msg, probe)
	})
	return nil
}

// othersProbe gives each other lane time to look for a message to probe with.
func (l *loop) othersProbe(ctx context.Context) {
	select {
	case <-ctx.Done():
	case <-time.After(pullExpiry - pullExpiry/time.Duration(len(l.loops))):
	}
}

// hasMore reports whether the broker has more messages for the consumer that msg came from.
func hasMore(msg *nats.Msg) bool {
	meta, err := msg.Metadata()
	return err == nil && meta.NumPending > 0
}

// admitted blocks until a message may be pulled.
func (l *loop) admitted(ctx context.Context) (probe bool, err error) {
	l.idle.Store(true)
	defer l.progress()
	for _, admit := range l.cfg.Admit {
		if err := admit(ctx, l.lane); err != nil {
			return false, err
		}
	}
	if ctx.Err() != nil {
		return false, context.Cause(ctx)
	}
	return l.cfg.Breaker.Admit(ctx)
}
