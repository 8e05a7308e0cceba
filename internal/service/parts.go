package service

import (
	"cmp"
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"example.com/unrestrict-worker/internal/broker"
	"example.com/unrestrict-worker/internal/broker/rates"
	"example.com/unrestrict-worker/internal/budget"
	"example.com/unrestrict-worker/internal/config"
	"example.com/unrestrict-worker/internal/consumer"
	"example.com/unrestrict-worker/internal/defender"
	"example.com/unrestrict-worker/internal/ledger"
	"example.com/unrestrict-worker/internal/message"
	"example.com/unrestrict-worker/internal/remediation"
)

// parts are the components of a worker once the broker is connected.
type parts struct {
	apiURL      string
	rates       *rates.Store
	Budget      *budget.Budget
	tokens      *defender.Tokens
	client      *defender.Client
	replicas    *broker.Replicas
	breaker     *remediation.Breaker
	shared      *remediation.SharedState
	Tracker     *remediation.Tracker
	orders      *remediation.Orders
	control     *broker.Control
	record      func(context.Context, message.Delivery) error                   // records an order in the audit trail
	withdraw    func(context.Context, remediation.Queue, func() []string) error // ends requests that were cancelled, denied or not approved, and that nobody pulls
	Consumer    *consumer.Consumer
	Tally       *broker.Tally
	digest      *PageDigest
	awaiting    awaiting
	present     func() broker.Presence
	refusals    func(context.Context) error // records how many messages were refused
	notKept     func() int
	dryRun      bool
	watch       *watch
	out         *outWatch
	tokenSeen   atomic.Bool
	lastStarved sync.Map // by lane: when its requests last waited in the stream for a call of the budget
}

// Delays between the breaker's probes.
const (
	probeFirst   = time.Second
	probeLongest = 15 * time.Second
)

// assemble builds the parts. It waits for the stores, as long as ctx allows.
func (s *Service) assemble(ctx context.Context) (*parts, error) {
	set := s.Settings
	breaker := remediation.NewBreaker(probeFirst, probeLongest)
	breaker.Log = s.Log
	before, _ := s.Broker.Deliveries()
	p := &parts{breaker: breaker, dryRun: set.DryRun, shared: &remediation.SharedState{}, Tally: s.Broker.NewTally(answerWithin), digest: NewPageDigest()}
	p.watch, p.out = &watch{after: cmp.Or(s.StillAfter, stillAfter(set.Defender.Timeout))}, newOutWatch(set, time.Now(), before.Out)
	var store *broker.Ledger
	err := s.Broker.Await(ctx, "open budget, ledger and shared state", func(ctx context.Context) (err error) {
		store, err = s.openStores(ctx, p)
		return err
	})
	if err != nil {
		return nil, err
	}
	p.Budget = budget.New(p.rates, config.Windows(set.Rates), s.Log.Named("budget"), s.metrics)
	p.Budget.UrgentReserve = set.Rates.UrgentReserve
	p.Budget.SetReserve(set.Track.Enabled)
	if err := s.assembleClient(p); err != nil {
		return nil, err
	}
	requestRoom, actionRoom := ledger.Room(s.Broker.MaxPayload())
	publisher, auditor, metrics := s.Broker.NewPublisher(), s.Broker.NewAuditor(s.Owner), remediation.NewMetrics(s.metrics)
	p.orders = &remediation.Orders{Rules: message.Rules{Signers: set.Accept.Signers}, Policy: set.Accept.Policy}
	p.control = s.Broker.NewControl(p.orders)
	tracing := remediation.NewTracing(s.tracing.Spans(), s.Broker.SpanAttributes()...)
	submitter := &remediation.Submitter{
		Defender: p.client, Ledger: store, Publisher: publisher, DeadLetters: publisher, Audit: auditor, Breaker: p.breaker, Shared: p.shared, Quota: p.Budget, Orders: p.orders,
		Metrics: metrics, Tracing: tracing, Log: s.Log, BrokerNow: p.replicas.Now, LostBefore: s.Broker.LedgerLostBefore, CheckLedger: s.Broker.CheckLedger,
		Rules: message.Rules{Stream: set.Names.Stream, OwnSubjects: s.Broker.Names().OwnSubjects(), Signers: set.Accept.Signers, Fits: ledger.Fits(requestRoom)}, Policy: set.Accept.Policy,
		Config: remediation.SubmitConfig{
			Owner: s.Owner, Backoff: remediation.Backoff(set.Backoff), GiveUpAfter: set.GiveUpAfter,
			ReconcileDelay: set.ReconcileDelay, Timeout: set.Defender.Timeout, StartLimit: budget.StartLimit,
			Limited: set.Rates.PerMinute > 0 || set.Rates.PerHour > 0,
			MaxAge:  set.Accept.MaxRequestAge, GuardAfter: set.Accept.GuardAfter, MaxAction: actionRoom, Track: set.Track.Enabled, DryRun: set.DryRun,
		},
	}
	p.record = func(ctx context.Context, d message.Delivery) error { return submitter.RecordOrder(ctx, p.control, d) }
	p.withdraw = submitter.Withdraw
	p.refusals, p.notKept = submitter.RecordRefusals, publisher.NotKept
	p.Tracker = &remediation.Tracker{
		Defender: p.client, Ledger: store, Publisher: publisher, Audit: auditor, Feed: store, Orders: p.orders, Breaker: p.breaker, Metrics: metrics, Shared: p.shared, Tracing: tracing, Log: s.Log,
		Config: remediation.TrackConfig{
			Interval: set.Track.PollInterval, Timeout: set.Track.Timeout, MaxAction: actionRoom,
			Contended: p.quotaContended, Others: p.replicas.OtherReady,
			Windows: []remediation.Window{{Calls: set.Rates.PerMinute, Per: time.Minute}, {Calls: set.Rates.PerHour, Per: time.Hour}},
		},
	}
	p.Consumer = s.newConsumer(p, submitter)
	p.present = func() broker.Presence { return p.presence(s) }
	s.Mu.Lock()
	s.Parts = p
	s.Mu.Unlock()
	return p, nil
}

// newConsumer creates the consumer, which pulls requests for the submitter.
func (s *Service) newConsumer(p *parts, submitter *remediation.Submitter) *consumer.Consumer {
	set := s.Settings
	return consumer.New(consumer.Config{
		Open: s.Broker.OpenRequests, Conn: s.Broker.Conn(), Domain: s.Broker.Domain(),
		Handler: p.withPresence(submitter.Handle),
		Breaker: p.breaker, Admit: []func(context.Context, message.Lane) error{
			ofAny(p.replicas.Unpaused), ofAny(p.inTouch), ofAny(p.alone), ofAny(s.Broker.AwaitStreams), ofAny(p.orders.Await),
			func(ctx context.Context, l message.Lane) error { return s.budgetOpen(ctx, p, l) },
		},
		Paused: func() bool { return p.holdsBack() || s.Broker.StreamsFaulty() },
		Idle: func(ctx context.Context) {
			_, n, err := s.Broker.Pending(ctx)
			submitter.Idle(ctx, err == nil && n == 0)
		},
		Slots: set.Concurrency, UrgentSlots: urgentSlots(set.Rates), AckWait: s.Broker.AckWait(), Grace: set.ShutdownTimeout, Registerer: s.metrics, Log: s.Log,
	})
}

// withPresence wraps a handler so that this replica soon publishes its presence record, which each message changes.
func (p *parts) withPresence(handle message.Handler) message.Handler {
	return func(ctx, work context.Context, d message.Delivery) message.Outcome {
		p.replicas.RefreshPresence()
		return handle(ctx, work, d)
	}
}

// openStores opens the call budget, the ledger and the shared state. It may be called again after an error.
func (s *Service) openStores(ctx context.Context, p *parts) (*broker.Ledger, error) {
	var err error
	p.replicas = s.Broker.NewReplicas(s.Owner)
	created := s.Settings.Replicas
	if !s.Settings.Provision {
		created = 0
	}
	p.rates, err = rates.New(ctx, s.Broker.JS(), s.Broker.State(), config.Windows(s.Settings.Rates), created, p.replicas)
	if err != nil {
		return nil, fmt.Errorf("call budget: %w", err)
	}
	if err := p.replicas.Measure(ctx); err != nil {
		return nil, err
	}
	return s.Broker.NewLedger(), nil
}

func (s *Service) assembleClient(p *parts) error {
	d := s.Settings.Defender
	apiURL, scope, _, err := defender.Endpoints(d.Cloud)
	if err != nil {
		return err
	}
	if d.APIURL != "" {
		apiURL = d.APIURL
	}
	if d.Scope != "" {
		scope = d.Scope
	}
	p.apiURL = apiURL
	p.tokens = defender.NewTokens(s.credential, scope)
	_, actionRoom := ledger.Room(s.Broker.MaxPayload())
	p.client, err = defender.New(defender.Config{
		BaseURL: apiURL, UserAgent: "unrestrict-worker/" + ThisBuild().Version, Timeout: d.Timeout, StartLimit: budget.StartLimit,
		MaxAction: actionRoom, Registerer: s.metrics, TracerProvider: s.tracing.Spans(),
	}, p.tokens, p.Budget)
	return err
}

// urgentSlots returns how many slots are urgent's own: as many as its reserve has calls a minute, and 16 at most.
func urgentSlots(r config.Rates) int {
	const most = 16
	if r.PerMinute == 0 {
		return most
	}
	return min(most, budget.Floor(message.LaneNormal, r.PerMinute, r.UrgentReserve, 0))
}

// Tenant returns the tenant of the API's token; "" if the token names none.
func (p *parts) Tenant() string { return p.tokens.Tenant() }
