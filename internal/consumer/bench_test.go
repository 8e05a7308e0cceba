package consumer_test

import (
	"context"
	"errors"
	"runtime"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"go.uber.org/zap"

	"example.com/unrestrict-worker/internal/broker"
	"example.com/unrestrict-worker/internal/consumer"
	"example.com/unrestrict-worker/internal/message"
	"example.com/unrestrict-worker/internal/remediation"
)

const (
	ackWait = 20 * time.Second
	grace   = 25 * time.Second
)

// bench is a broker with consumers, in fake time.
type bench struct {
	t        *testing.T
	ctx      context.Context
	broker   *broker.Broker
	requests jetstream.Stream
	running  map[*consumer.Consumer]*run

	mu       sync.Mutex
	received []message.Delivery
	failing  int // how often Open fails yet
}

type run struct {
	stop  context.CancelFunc
	ended chan error
}

func inBench(t *testing.T, test func(b *bench)) {
	t.Helper()
	dir := t.TempDir()
	// nats.go keeps timers in a sync.Pool, and a timer must not leave its bubble: two collections empty every pool.
	runtime.GC()
	runtime.GC()
	synctest.Test(t, func(t *testing.T) {
		b := &bench{t: t, running: map[*consumer.Consumer]*run{}}
		ctx, cancel := context.WithCancel(t.Context())
		b.ctx = ctx
		var err error
		b.broker, err = broker.Open(ctx, broker.Config{DataDir: dir, SyncInterval: true, Provision: true, AckWait: ackWait}, zap.NewNop())
		b.must(err)
		defer func() {
			for c := range b.running {
				_ = b.stop(c)
			}
			if err := b.broker.Close(ctx); err != nil {
				t.Error(err)
			}
			cancel()
		}()
		b.must(b.broker.Provision(ctx))
		b.requests, err = b.broker.JS().Stream(ctx, b.broker.Names().Stream)
		b.must(err)
		test(b)
	})
}

func (b *bench) must(err error) {
	b.t.Helper()
	if err != nil {
		b.t.Fatal(err)
	}
}

func (b *bench) publish(data string, h message.Header) uint64 {
	b.t.Helper()
	stored, err := b.broker.Publish(b.ctx, message.LaneNormal, h, []byte(data))
	b.must(err)
	return stored.Sequence
}

// handle records each delivery and leaves the rest to fn.
func (b *bench) handle(fn func(message.Delivery) message.Outcome) message.Handler {
	return func(_, _ context.Context, d message.Delivery) message.Outcome {
		b.mu.Lock()
		b.received = append(b.received, d)
		b.mu.Unlock()
		return fn(d)
	}
}

func (b *bench) deliveries() []message.Delivery {
	b.mu.Lock()
	defer b.mu.Unlock()
	return slices.Clone(b.received)
}

func (b *bench) config(cfg consumer.Config, h message.Handler) consumer.Config {
	cfg.Open, cfg.Conn, cfg.Handler, cfg.AckWait, cfg.Grace, cfg.Log = b.open, b.broker.Conn(), h, ackWait, grace, zap.NewNop()
	if cfg.Lanes == nil {
		cfg.Lanes = []message.Lane{message.LaneNormal}
	}
	if cfg.Breaker == nil {
		cfg.Breaker = remediation.NewBreaker(time.Second, time.Minute)
	}
	return cfg
}

var errAway = errors.New("the broker is away")

func (b *bench) open(ctx context.Context, l message.Lane) (jetstream.Consumer, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.failing > 0 {
		b.failing--
		return nil, errAway
	}
	return b.broker.OpenRequests(ctx, l)
}

// away makes Open fail for some times.
func (b *bench) away(times int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.failing = times
}

func (b *bench) start(cfg consumer.Config, h message.Handler) *consumer.Consumer {
	c := consumer.New(b.config(cfg, h))
	b.run(c)
	return c
}

func (b *bench) run(c *consumer.Consumer) {
	ctx, cancel := context.WithCancel(b.ctx)
	r := &run{cancel, make(chan error, 1)}
	b.running[c] = r
	go func() { r.ended <- c.Run(ctx) }()
}

func (b *bench) stop(c *consumer.Consumer) error {
	r := b.running[c]
	delete(b.running, c)
	r.stop()
	return <-r.ended
}

func (b *bench) passes(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

func (b *bench) info() *jetstream.ConsumerInfo {
	b.t.Helper()
	c, err := b.requests.Consumer(b.ctx, b.broker.Names().Consumer)
	b.must(err)
	return c.CachedInfo()
}

// wantPending is how many messages nobody has acknowledged.
func (b *bench) wantPending(want int) {
	b.t.Helper()
	synctest.Wait()
	info, err := b.requests.Info(b.ctx)
	b.must(err)
	if got := int(info.State.Msgs); got != want {
		b.t.Errorf("%d messages are not acknowledged, want %d", got, want)
	}
}
