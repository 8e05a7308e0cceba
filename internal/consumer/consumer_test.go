package consumer_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"go.uber.org/zap"

	"example.com/unrestrict-worker/internal/consumer"
	"example.com/unrestrict-worker/internal/message"
)

func TestDeliveryIsWhatTheBrokerHas(t *testing.T) {
	inBench(t, func(b *bench) {
		at := time.Now()
		seq := b.publish("data", message.Header{"X-Mine": {"a"}})
		b.start(consumer.Config{Slots: 1}, b.handle(func(message.Delivery) message.Outcome { return message.Done() }))
		b.passes(time.Second)
		want := message.Delivery{
			Stream: "REMEDIATION", Sequence: seq, Subject: "remediation.unrestrict", Lane: message.LaneNormal, Header: message.Header{"X-Mine": {"a"}},
			Data: []byte("data"), Published: at, Attempt: 1,
		}
		if diff := cmp.Diff([]message.Delivery{want}, b.deliveries(), cmp.Comparer(time.Time.Equal)); diff != "" {
			t.Errorf("delivered (-want +got):\n%s", diff)
		}
		b.wantPending(0)
	})
}

// What is out at the broker is in hand here, but for one that waits for a slot, for some seconds: there is no pile of messages
// whose ack timers run.
func TestNoMoreIsPulledThanThereAreSlots(t *testing.T) {
	inBench(t, func(b *bench) {
		const slots = 3
		for n := range 20 {
			b.publish(fmt.Sprint(n), nil)
		}
		registry := prometheus.NewPedanticRegistry()
		c := b.start(consumer.Config{Slots: slots, Registerer: registry}, b.handle(func(message.Delivery) message.Outcome {
			time.Sleep(3*ackWait/2 - time.Second) // never over at a moment that is looked at
			return message.Done()
		}))
		for range 10 {
			b.passes(ackWait / 2)
			if out := b.info().NumAckPending; out < slots || out > slots+1 || c.InFlight() != slots {
				t.Errorf("%d messages out, %d in flight, with %d slots", out, c.InFlight(), slots)
			}
		}
		if n, err := testutil.GatherAndCount(registry, "unrestrict_in_flight"); n != 1 || err != nil {
			t.Errorf("%d metrics, %v", n, err)
		}
		b.passes(time.Hour)
		b.wantPending(0)
		for _, d := range b.deliveries() {
			if d.Attempt > 2 {
				t.Errorf("message %d was delivered %d times", d.Sequence, d.Attempt)
			}
		}
	})
}

// Once the request under way has expired, a stopped consumer pulls no more, whatever comes.
func TestAStopPullsNoMore(t *testing.T) {
	inBench(t, func(b *bench) {
		for n := range 10 {
			c := b.start(consumer.Config{Slots: 2}, b.handle(func(message.Delivery) message.Outcome { return message.Done() }))
			b.passes(100 * time.Millisecond)
			b.running[c].stop()
			b.passes(1200 * time.Millisecond)
			b.publish(fmt.Sprint(n), nil)
			b.passes(5 * time.Second)
			if err := b.stop(c); err != nil {
				t.Error(err)
			}
			b.wantPending(1)
			b.must(b.requests.Purge(b.ctx))
		}
		if n := len(b.deliveries()); n != 0 {
			t.Errorf("%d messages were handed out after the stop", n)
		}
	})
}

// An idle consumer asks less often, takes a message at once all the same, and is stopped at once.
func TestIdleConsumer(t *testing.T) {
	inBench(t, func(b *bench) {
		c := b.start(consumer.Config{Slots: 2}, b.handle(func(message.Delivery) message.Outcome { return message.Done() }))
		b.passes(5 * time.Minute)
		before := b.broker.Conn().Stats().OutMsgs
		b.passes(time.Minute)
		if n := b.broker.Conn().Stats().OutMsgs - before; n > 20 {
			t.Errorf("%d messages to the broker in a minute in which nothing happened", n)
		}
		b.publish("one", nil)
		b.passes(100 * time.Millisecond)
		if n := len(b.deliveries()); n != 1 {
			t.Errorf("%d messages were handed out", n)
		}
		for n := range 10 {
			b.passes(time.Minute + time.Duration(n)*370*time.Millisecond)
			stopped := time.Now()
			b.running[c].stop()
			b.passes(100 * time.Millisecond)
			b.publish(fmt.Sprint(n), nil)
			if err := b.stop(c); err != nil {
				t.Error(err)
			}
			if took := time.Since(stopped); took > 200*time.Millisecond {
				t.Errorf("the stop took %v", took)
			}
			if out := b.info().NumAckPending; out != 0 {
				t.Errorf("%d messages were taken after the stop", out)
			}
			b.must(b.requests.Purge(b.ctx))
			c = b.start(consumer.Config{Slots: 2}, b.handle(func(message.Delivery) message.Outcome { return message.Done() }))
		}
	})
}

// Limits that somebody else sets on the consumer's pull requests are kept to, also when they are set under a running worker,
// which asks no more often for it.
func TestLimitsOfPullRequests(t *testing.T) {
	inBench(t, func(b *bench) {
		b.start(consumer.Config{Slots: 16}, b.handle(func(message.Delivery) message.Outcome { return message.Done() }))
		b.passes(time.Minute)
		cfg := b.info().Config
		cfg.MaxRequestBatch, cfg.MaxRequestExpires = 4, 500*time.Millisecond
		_, err := b.requests.UpdateConsumer(b.ctx, cfg)
		b.must(err)
		before := b.broker.Conn().Stats().OutMsgs
		b.passes(time.Minute)
		if n := b.broker.Conn().Stats().OutMsgs - before; n > 200 {
			t.Errorf("%d messages to the broker in a minute in which nothing happened", n)
		}
		for n := range 20 {
			b.publish(fmt.Sprint(n), nil)
		}
		b.passes(5 * time.Second)
		if n := len(b.deliveries()); n != 20 {
			t.Errorf("%d of 20 messages were handed out", n)
		}
	})
}

func TestMessageInHandIsKept(t *testing.T) {
	inBench(t, func(b *bench) {
		b.publish("long", nil)
		slow := b.handle(func(message.Delivery) message.Outcome {
			time.Sleep(10*ackWait + time.Second)
			return message.Done()
		})
		for range 2 { // of which one is free all the time
			b.start(consumer.Config{Slots: 2}, slow)
		}
		b.passes(time.Hour)
		if n := len(b.deliveries()); n != 1 {
			t.Errorf("delivered %d times", n)
		}
		b.wantPending(0)
	})
}

func TestLaterIsHonoured(t *testing.T) {
	inBench(t, func(b *bench) {
		b.publish("again", nil)
		began := time.Now()
		var at []time.Duration
		delays := []time.Duration{7 * time.Second, 1500 * time.Millisecond, 0, time.Hour}
		b.start(consumer.Config{Slots: 1}, b.handle(func(d message.Delivery) message.Outcome {
			at = append(at, time.Since(began).Round(time.Millisecond))
			if len(at) > len(delays) {
				return message.Done()
			}
			return message.Later(delays[len(at)-1], "test")
		}))
		b.passes(2 * time.Hour)
		b.wantPending(0)
		sum, want := time.Duration(0), []time.Duration{0}
		for _, d := range delays {
			sum += d
			want = append(want, sum)
		}
		near := cmp.Comparer(func(a, b time.Duration) bool { return (a - b).Abs() < 10*time.Millisecond })
		if diff := cmp.Diff(want, at, near); diff != "" {
			t.Errorf("delivered after (-want +got):\n%s", diff)
		}
		if last := b.deliveries()[len(delays)]; last.Attempt != len(delays)+1 {
			t.Errorf("attempt %d", last.Attempt)
		}
	})
}

func TestPanicHoldsNothingElseUp(t *testing.T) {
	inBench(t, func(b *bench) {
		for n := range 5 {
			b.publish(fmt.Sprint(n), nil)
		}
		c := b.start(consumer.Config{Slots: 1}, b.handle(func(d message.Delivery) message.Outcome {
			if string(d.Data) == "2" && d.Attempt == 1 {
				panic("for the test")
			}
			return message.Done()
		}))
		b.passes(time.Second)
		b.wantPending(1)
		if c.InFlight() != 0 {
			t.Errorf("%d in flight", c.InFlight())
		}
		b.passes(2 * time.Minute)
		b.wantPending(0)
	})
}

// A stop ends the waits at once, and what was not finished goes straight to another replica.
func TestStopGivesBackAtOnce(t *testing.T) {
	inBench(t, func(b *bench) {
		stopped := b.start(consumer.Config{Slots: 4}, func(wait, work context.Context, d message.Delivery) message.Outcome {
			<-wait.Done()
			if work.Err() != nil {
				t.Error("work was cut off before the grace had passed")
			}
			return message.Later(0, "shutdown")
		})
		for n := range 3 {
			b.publish(fmt.Sprint(n), nil)
		}
		b.passes(time.Second)
		began := time.Now()
		if err := b.stop(stopped); err != nil || time.Since(began) != 0 {
			t.Errorf("stopped after %v: %v", time.Since(began), err)
		}
		b.start(consumer.Config{Slots: 4}, b.handle(func(message.Delivery) message.Outcome { return message.Done() }))
		b.publish("3", nil) // nobody asks for it any more but the one that is there
		b.passes(100 * time.Millisecond)
		if n := len(b.deliveries()); n != 4 {
			t.Errorf("%d of 4 messages went to the other replica at once", n)
		}
		b.wantPending(0)
	})
}

func TestStopWaitsForWhatIsInHand(t *testing.T) {
	for name, c := range map[string]struct {
		takes, want time.Duration
		err         error
	}{
		"within the grace": {10 * time.Second, 10 * time.Second, nil},
		"past the grace":   {time.Hour, grace, consumer.ErrUnfinished},
	} {
		t.Run(name, func(t *testing.T) {
			inBench(t, func(b *bench) {
				b.publish("long", nil)
				cons := b.start(consumer.Config{Slots: 1}, func(_, work context.Context, _ message.Delivery) message.Outcome {
					select {
					case <-time.After(c.takes):
						return message.Done()
					case <-work.Done():
						return message.Later(0, "cut off")
					}
				})
				b.passes(0)
				began := time.Now()
				if err := b.stop(cons); !errors.Is(err, c.err) || time.Since(began) != c.want {
					t.Errorf("stopped after %v: %v", time.Since(began), err)
				}
				b.passes(time.Second)
				b.wantPending(map[bool]int{true: 0, false: 1}[c.err == nil])
			})
		})
	}
}

func TestDeletedConsumerIsOpenedAnew(t *testing.T) {
	inBench(t, func(b *bench) {
		b.start(consumer.Config{Slots: 2}, b.handle(func(message.Delivery) message.Outcome { return message.Done() }))
		b.publish("before", nil)
		b.passes(time.Minute)
		b.must(b.requests.DeleteConsumer(b.ctx, b.broker.Names().Consumer))
		b.passes(time.Second)
		b.publish("after", nil)
		b.passes(10 * time.Second)
		b.wantPending(0)
		if n := len(b.deliveries()); n != 2 {
			t.Errorf("%d deliveries", n)
		}
	})
}

// The loop goes on when Open fails for a while.
func TestOpenIsTriedAgain(t *testing.T) {
	inBench(t, func(b *bench) {
		cons := consumer.New(b.config(consumer.Config{Slots: 1, Log: zap.NewNop()}, b.handle(func(message.Delivery) message.Outcome { return message.Done() })))
		b.away(5)
		b.publish("1", nil)
		b.run(cons)
		b.passes(10 * time.Second)
		b.wantPending(0)
		synctest.Wait()
	})
}

// A loop that is stuck says so.
func TestStuckLoopIsNotAlive(t *testing.T) {
	inBench(t, func(b *bench) {
		stuck := make(chan struct{})
		b.publish("1", nil)
		c := b.start(consumer.Config{Slots: 1, Paused: func() bool { <-stuck; return false }},
			b.handle(func(message.Delivery) message.Outcome { return message.Done() }))
		b.passes(30 * time.Second)
		if err := c.Alive(); err != nil {
			t.Error(err)
		}
		b.passes(time.Minute)
		if err := c.Alive(); err == nil {
			t.Error("a loop that hangs for a minute is alive")
		}
		close(stuck)
		b.passes(10 * time.Minute)
		if err := c.Alive(); err != nil {
			t.Error(err)
		}
	})
}

// To restart a worker helps neither a broker that is away nor the calls in hand at a stop.
func TestWaitingLoopIsAlive(t *testing.T) {
	inBench(t, func(b *bench) {
		back, slow := make(chan struct{}), make(chan struct{})
		cfg := b.config(consumer.Config{Slots: 1}, b.handle(func(message.Delivery) message.Outcome { <-slow; return message.Done() }))
		cfg.Open = func(ctx context.Context, l message.Lane) (jetstream.Consumer, error) {
			<-back
			return b.open(ctx, l)
		}
		cfg.Grace = time.Hour
		b.publish("1", nil)
		c := consumer.New(cfg)
		b.run(c)
		for _, waits := range []func(){
			func() {},              // for the broker
			func() { close(back) }, // for a slot
			b.running[c].stop,      // for the message in hand
		} {
			waits()
			b.passes(10 * time.Minute)
			if err := c.Alive(); err != nil {
				t.Error(err)
			}
		}
		if len(b.deliveries()) != 1 {
			t.Errorf("%d deliveries, want 1", len(b.deliveries()))
		}
		close(slow)
		if err := b.stop(c); err != nil {
			t.Error(err)
		}
	})
}
