package consumer_test

import (
	"context"
	"fmt"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"example.com/unrestrict-worker/internal/consumer"
	"example.com/unrestrict-worker/internal/message"
	"example.com/unrestrict-worker/internal/remediation"
)

// While the breaker is open one message at a time is let through, with growing delay; once it is reset all are.
func TestClosedGateLetsOneProbeThroughAtATime(t *testing.T) {
	inBench(t, func(b *bench) {
		breaker := remediation.NewBreaker(time.Second, 8*time.Second)
		breaker.Trip("test", "for the test")
		for n := range 6 {
			b.publish(fmt.Sprint(n), nil)
		}
		began := time.Now()
		var up atomic.Bool
		var at []time.Duration // of one handler at a time
		b.start(consumer.Config{Slots: 4, Breaker: breaker}, b.handle(func(d message.Delivery) message.Outcome {
			if up.Load() {
				breaker.Reset()
				return message.Done()
			}
			at = append(at, time.Since(began))
			time.Sleep(500 * time.Millisecond) // another one would come now
			breaker.Trip("test", "still")
			return message.Later(breaker.NakDelay(), "test")
		}))
		b.passes(40 * time.Second)
		if i := slices.IndexFunc(b.deliveries(), func(d message.Delivery) bool { return !d.Probe }); i >= 0 {
			t.Errorf("delivery %d is no probe", i)
		}
		for i := 1; i < len(at); i++ {
			if gap, want := at[i]-at[i-1], min(time.Second<<i, 8*time.Second)+500*time.Millisecond; (gap - want).Abs() > 100*time.Millisecond {
				t.Errorf("probes at %v: gap %d is %v, want %v", at, i, gap, want)
			}
		}
		if len(at) < 5 {
			t.Errorf("probes at %v", at)
		}
		up.Store(true)
		b.passes(time.Minute)
		b.wantPending(0)
	})
}

// A probe that shows nothing does not keep the next one away.
func TestProbeThatShowsNothingIsFollowedByAnother(t *testing.T) {
	inBench(t, func(b *bench) {
		breaker := remediation.NewBreaker(time.Second, 8*time.Second)
		breaker.Trip("test", "for the test")
		for n := range 5 {
			b.publish(fmt.Sprint(n), nil)
		}
		b.start(consumer.Config{Slots: 4, Breaker: breaker}, b.handle(func(message.Delivery) message.Outcome { return message.Done() }))
		b.passes(10 * time.Second)
		b.wantPending(0)
	})
}

// Admissions stand before the breaker, so that a probe is never handed out that can't be used.
func TestNothingIsPulledThatIsNotAdmitted(t *testing.T) {
	inBench(t, func(b *bench) {
		open := make(chan struct{})
		breaker := remediation.NewBreaker(time.Second, time.Second)
		breaker.Trip("test", "for the test")
		b.publish("1", nil)
		c := b.start(consumer.Config{Slots: 4, Breaker: breaker, Admit: []func(context.Context, message.Lane) error{func(ctx context.Context, _ message.Lane) error {
			select {
			case <-open:
				return nil
			case <-ctx.Done():
				return context.Cause(ctx)
			}
		}}}, b.handle(func(message.Delivery) message.Outcome { return message.Done() }))
		b.passes(time.Hour)
		if out := b.info().NumAckPending; out != 0 || b.info().NumWaiting != 0 {
			t.Errorf("%d messages out, %d pulls waiting", out, b.info().NumWaiting)
		}
		if err := c.Alive(); err != nil {
			t.Error(err)
		}
		ctx, cancel := context.WithTimeout(b.ctx, time.Minute)
		defer cancel()
		if probe, err := breaker.Admit(ctx); !probe || err != nil {
			t.Errorf("the probe was taken: %v, %v", probe, err)
		}
		breaker.Reset()
		close(open)
		b.passes(time.Minute)
		b.wantPending(0)
		if err := b.stop(c); err != nil {
			t.Error(err)
		}
	})
}

// A message that comes to a pull from before the pause is given back as it is.
func TestPausedConsumerGivesBackWhatItHadAskedFor(t *testing.T) {
	inBench(t, func(b *bench) {
		var paused atomic.Bool
		paused.Store(true)
		b.start(consumer.Config{Slots: 1, Paused: paused.Load, Admit: []func(context.Context, message.Lane) error{func(ctx context.Context, _ message.Lane) error {
			time.Sleep(time.Second)
			return ctx.Err()
		}}}, b.handle(func(message.Delivery) message.Outcome { return message.Done() }))
		b.publish("1", nil)
		b.passes(time.Minute)
		b.wantPending(1)
		paused.Store(false)
		b.passes(10 * time.Second)
		b.wantPending(0)
	})
}

// What is asked when there is no message to probe with may take as long as the API's time-out lets it: the loop that
// waits for it is alive.
func TestIdleProbeThatHangsIsNoStuckLoop(t *testing.T) {
	inBench(t, func(b *bench) {
		breaker := remediation.NewBreaker(time.Second, time.Second)
		breaker.Trip("test", "for the test")
		asked, answer := make(chan struct{}, 1), make(chan struct{})
		c := b.start(consumer.Config{Slots: 1, Breaker: breaker, Idle: func(context.Context) {
			asked <- struct{}{}
			<-answer
			breaker.Reset()
		}}, b.handle(func(message.Delivery) message.Outcome { return message.Done() }))
		<-asked
		b.passes(2 * time.Minute)
		if err := c.Alive(); err != nil {
			t.Error(err)
		}
		close(answer)
		b.publish("1", nil)
		b.passes(10 * time.Second)
		b.wantPending(0)
	})
}
