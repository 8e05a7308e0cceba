package remediation_test

import (
	"cmp"
	"context"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"go.uber.org/zap"
	"golang.org/x/sync/errgroup"

	"example.com/unrestrict-worker/internal/broker"
	"example.com/unrestrict-worker/internal/broker/rates"
	"example.com/unrestrict-worker/internal/budget"
	"example.com/unrestrict-worker/internal/consumer"
	"example.com/unrestrict-worker/internal/defender"
	"example.com/unrestrict-worker/internal/health"
	"example.com/unrestrict-worker/internal/ledger"
	"example.com/unrestrict-worker/internal/message"
	"example.com/unrestrict-worker/internal/remediation"
)

const (
	timeout        = 30 * time.Second // DEFENDER_TIMEOUT
	startLimit     = budget.StartLimit
	reconcileDelay = 5 * time.Second
	giveUpAfter    = 24 * time.Hour
	pollInterval   = 15 * time.Second
	leaseLife      = 8 * time.Second // of a dead replica's lease
)

// replica is one process of the worker.
type replica struct {
	w     *world
	id    string
	newer bool // of the world's dialect

	breaker   *remediation.Breaker
	notices   *remediation.SharedState
	rates     *rates.Store // nil: calls are free
	budget    *budget.Budget
	tokens    *defender.Tokens
	client    *defender.Client
	submitter *remediation.Submitter
	tracker   *remediation.Tracker
	orders    *remediation.Orders // nil: nobody reads them
	control   *broker.Control
	consumer  *consumer.Consumer
	shared    *broker.Replicas
	conn      *nats.Conn // of the consumer: a dead process acknowledges nothing

	ctx         context.Context // of all that serves the consumer
	leave       context.CancelFunc
	pulling     context.Context
	stopPull    context.CancelFunc
	cut         chan struct{} // closed when the process is killed
	dead        atomic.Bool
	tracking    atomic.Bool
	astray      atomic.Bool  // its own way to the API is broken
	lastStarved atomic.Int64 // unix nanoseconds: when requests last waited untaken for want of quota
	parts       sync.WaitGroup
	drained     chan struct{} // closed when the consumer has ended
	ended       error         // of the consumer
}

func (w *world) newReplica(id string) *replica {
	r := &replica{
		w: w, id: id, breaker: remediation.NewBreaker(time.Second, 15*time.Second), notices: &remediation.SharedState{},
		cut: make(chan struct{}), drained: make(chan struct{}),
	}
	r.ctx, r.leave = context.WithCancel(w.ctx)
	r.pulling, r.stopPull = context.WithCancel(w.ctx)
	r.tokens = defender.NewTokens(&credential{tokenSource: &w.tokens}, "scope")
	var err error
	r.shared = w.broker.NewReplicas(id)
	w.must(r.shared.Measure(w.ctx))
	r.client, err = defender.New(defender.Config{
		BaseURL: "http://127.0.0.1", UserAgent: id, Timeout: timeout, StartLimit: startLimit,
		Transport: &http.Transport{DialContext: w.net.dial}, TracerProvider: w.provider(),
	}, r.tokens, r.newBudget())
	w.must(err)
	store := w.broker.NewLedger()
	own := w.broker.NewPublisher()
	public, trail := publisher{own, own, r}, auditor{w.broker.NewAuditor(id), r}
	metrics, tracing := w.metrics, remediation.NewTracing(w.provider(), w.broker.SpanAttributes()...)
	r.submitter = &remediation.Submitter{
		Defender: r.client, Ledger: faultyLedger{store, r}, Publisher: public, DeadLetters: public, Audit: trail, Breaker: r.breaker, Shared: r.notices,
		Metrics: metrics, Tracing: tracing, Log: w.log.Named(id), BrokerNow: r.shared.Now,
		Rules: message.Rules{Stream: w.broker.Names().Stream, OwnSubjects: w.broker.Names().OwnSubjects()},
		Config: remediation.SubmitConfig{
			Owner: id, Backoff: remediation.Backoff{Initial: 500 * time.Millisecond, Max: time.Minute, Multiplier: 2},
			GiveUpAfter: giveUpAfter, ReconcileDelay: reconcileDelay, Timeout: timeout, StartLimit: startLimit,
			MaxAction: 512 << 10, Track: true, GuardAfter: time.Hour, Limited: len(w.set.limits) > 0,
		},
	}
	if r.budget != nil {
		r.submitter.Quota = r.budget
	}
	r.tracker = &remediation.Tracker{
		Defender: r.client, Ledger: faultyLedger{store, r}, Publisher: public, Audit: trail, Feed: store, Breaker: r.breaker, Metrics: metrics, Shared: r.notices, Tracing: tracing, Log: w.log.Named(id),
		Config: remediation.TrackConfig{
			Interval: pollInterval, Timeout: 72 * time.Hour, MaxAction: 512 << 10, Contended: r.quotaContended, Others: r.shared.OtherReady,
		},
	}
	for _, limit := range w.set.limits {
		r.tracker.Config.Windows = append(r.tracker.Config.Windows, remediation.Window{Calls: limit.Limit, Per: limit.Per})
	}
	if w.set.submit != nil {
		w.set.submit(&r.submitter.Config)
	}
	if w.set.follow != nil {
		w.set.follow(&r.tracker.Config)
	}
	if w.set.rules != nil {
		w.set.rules(r.submitter)
	}
	if w.set.ordered {
		r.orders = &remediation.Orders{Rules: message.Rules{Signers: r.submitter.Rules.Signers}, Policy: r.submitter.Policy}
		r.control = w.broker.NewControl(r.orders)
		r.submitter.Orders, r.tracker.Orders = r.orders, r.orders
	}
	r.conn, err = nats.Connect("", nats.InProcessServer(w.broker.Conn().Opts.InProcessServer))
	w.must(err)
	r.consumer = consumer.New(consumer.Config{
		Open: r.open, Conn: r.conn, Handler: r.handle, Breaker: r.breaker, Lanes: w.set.lanes, UrgentSlots: w.set.ownSlots,
		Admit:  []func(context.Context, message.Lane) error{func(ctx context.Context, _ message.Lane) error { return r.shared.Unpaused(ctx) }, func(ctx context.Context, _ message.Lane) error { return r.orders.Await(ctx) }, r.budgetOpen},
		Paused: func() bool { return r.shared.Paused() != nil },
		Idle: func(ctx context.Context) {
			_, n, err := w.broker.Pending(ctx)
			r.submitter.Idle(ctx, err == nil && n == 0)
		},
		Slots: cmp.Or(w.set.slots, 16), AckWait: w.broker.AckWait(), Grace: 25 * time.Second, Log: w.log.Named(id),
	})
	return r
}

func (r *replica) newBudget() defender.Budget {
	if r.w.set.free {
		return free{}
	}
	limits := r.w.set.limits
	if limits == nil {
		limits = budget.Limits(0, 0)
	}
	var err error
	for _, window := range limits { // in fake time the file store lets go of grants too early, which counts as a loss
		cfg := rates.StreamConfig(window, 1)
		if cfg.Storage = jetstream.MemoryStorage; window.Limit > 0 {
			_, err := r.w.broker.JS().CreateOrUpdateStream(r.w.ctx, cfg)
			r.w.must(err)
		}
	}
	r.rates, err = rates.New(r.w.ctx, r.w.broker.JS(), r.w.broker.State(), limits, 1, r.shared)
	r.w.must(err)
	var store budget.Store = r.rates
	if r.w.set.grants != nil {
		store = r.w.set.grants(store)
	}
	r.budget = budget.New(store, limits, zap.NewNop(), nil)
	r.budget.UrgentReserve = r.w.set.urgent
	return r.budget
}

// holds says whether a cause is known by this code.
func (r *replica) holds(code string) bool {
	_, is := health.Has(r.notices.Conditions(), code)
	return is
}

// free is a budget without end.
type free struct{}

func (free) Take(context.Context, string) (time.Time, error) { return time.Now(), nil }
func (free) Fresh(time.Time) bool                            { return true }
func (free) Close(context.Context, time.Duration) error      { return nil }

func (r *replica) open(ctx context.Context, l message.Lane) (jetstream.Consumer, error) {
	if err := r.w.broker.Provision(ctx); err != nil {
		return nil, err
	}
	return r.w.broker.Requests(l), nil
}

// handle is the Submitter as long as the process lives. An acknowledgement that is lost is one that is never sent:
// the message then comes again when AckWait has passed.
func (r *replica) handle(wait, work context.Context, d message.Delivery) message.Outcome {
	wait, stop := r.mortal(wait)
	defer stop()
	work, cut := r.mortal(work)
	defer cut()
	out := r.submitter.Handle(wait, work, d)
	if !out.Done {
		return out
	}
	switch f := r.meet(atAck); {
	case f == nil:
	case f.dies && f.done:
		time.AfterFunc(time.Millisecond, r.kill)
	case f.dies:
		r.kill()
	case !f.done:
		return message.Later(r.w.broker.AckWait(), "acknowledgement lost")
	}
	return out
}

func (r *replica) mortal(ctx context.Context) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancel(ctx)
	go func() {
		select {
		case <-r.cut:
			cancel()
		case <-ctx.Done():
		}
	}()
	return ctx, cancel
}

// budgetOpen blocks while it is known that no call of a lane can be had, as the service does.
func (r *replica) budgetOpen(ctx context.Context, l message.Lane) error {
	for r.budget != nil {
		d, _ := r.budget.OpensIn(l)
		if d <= 0 {
			break
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-time.After(min(d, time.Second)):
		}
	}
	return nil
}

// keepReserve is what the service does each second about the quota.
func (r *replica) keepReserve() {
	for {
		select {
		case <-r.ctx.Done():
			return
		case <-time.After(time.Second):
		}
		following := r.tracker.Following() > 0
		r.budget.SetReserve(following || r.submitter.Config.Track || r.notices.Guarding())
		if d, _ := r.budget.OpensIn(message.LaneNormal); following && d > 0 {
			if _, n, err := r.w.broker.Pending(r.ctx); err == nil && n > 0 {
				r.lastStarved.Store(time.Now().UnixNano())
			}
		}
	}
}

func (r *replica) quotaContended() bool {
	return r.notices.QuotaAwaited() || time.Since(time.Unix(0, r.lastStarved.Load())) < 5*time.Second
}

func (r *replica) run() {
	if r.rates != nil {
		r.parts.Go(func() { _ = r.rates.Run(r.ctx) })
	}
	if r.w.set.limits != nil {
		r.parts.Go(r.keepReserve)
	}
	r.parts.Go(func() { _ = r.submitter.RecordRefusals(r.ctx) })
	r.parts.Go(func() {
		_ = r.shared.Run(r.ctx, func() broker.Presence {
			return broker.Presence{Ready: true, Conditions: r.notices.Conditions(), Limits: rates.Limits(r.w.set.limits)}
		})
	})
	if r.control != nil {
		r.parts.Go(func() { _ = r.control.Run(r.ctx) })
	}
	if !r.w.set.untended {
		r.parts.Go(func() { _ = r.shared.Hold(r.ctx, "tracker", r.track) })
	}
	r.parts.Go(func() {
		defer close(r.drained)
		r.ended = r.consumer.Run(r.pulling)
	})
}

func (r *replica) track(ctx context.Context) error {
	r.tracking.Store(true)
	defer r.tracking.Store(false)
	if r.control == nil {
		return r.tracker.Run(ctx)
	}
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return r.tracker.Run(ctx) })
	g.Go(func() error {
		return r.control.Record(ctx, func(ctx context.Context, d message.Delivery) error { return r.submitter.RecordOrder(ctx, r.control, d) })
	})
	g.Go(func() error { return r.submitter.Withdraw(ctx, r.control, r.tracker.Unpulled) })
	return g.Wait()
}

// stop is a shutdown as the service does it: first the consumer drains, then the rest ends.
func (r *replica) stop() {
	r.stopPull()
	<-r.drained
	r.leave()
	r.wait()
}

// kill ends the process there and then: from here on nothing of it is written, acknowledged or sent. Its lease stays
// behind until it expires. It may be called from within any operation of the replica.
func (r *replica) kill() {
	if r.dead.Swap(true) {
		return
	}
	if r.tracking.Load() {
		lease := "$KV." + broker.StateBucket + ".lease." + ledger.DeploymentDigest(r.w.broker.Names().Stream) + ".tracker"
		_, err := r.w.broker.JS().PublishMsg(r.w.ctx, &nats.Msg{Subject: lease, Data: []byte("left by " + r.id)}, jetstream.WithMsgTTL(leaseLife))
		if err != nil {
			r.w.t.Error(err)
		}
	}
	r.conn.Close()
	close(r.cut)
	r.stopPull()
	r.leave()
}

// wait returns when nothing of a stopped or killed replica runs any more.
func (r *replica) wait() {
	r.parts.Wait()
	r.conn.Close()
	r.client.Close()
	r.tokens.Close()
}
