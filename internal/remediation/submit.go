// Package remediation takes a request from its delivery to its final result. The pure functions of decide*.go decide
// everything. carry.go carries the decisions out for the submitter, and the tracker follows accepted actions. The package
// does not depend on NATS: internal/consumer passes it deliveries, and it declares interfaces for what it needs to store and
// publish.
package remediation

import (
	"cmp"
	"context"
	"errors"
	"time"

	"go.opentelemetry.io/otel/trace"
	"go.uber.org/zap"

	"example.com/unrestrict-worker/internal/defender"
	"example.com/unrestrict-worker/internal/ledger"
	"example.com/unrestrict-worker/internal/message"
	"example.com/unrestrict-worker/internal/policy"
)

// Publisher publishes results and dead letters. Result and DeadLetter return nil only when the broker has stored the
// message; both may be called again with the same argument after a crash and then publish nothing twice. Then a refused
// message's result may have another receivedAt, which is not before since. since is when the decision was made: past the
// stream's duplicate window they look for the earlier message before they publish again. Unacked reports whether the message
// of that name (STREAM:SEQ) is still in its stream without an acknowledgement. For a stream that keeps acknowledged messages
// too it stays true for longer, and for a stream that is gone it is false.
type Publisher interface {
	Result(ctx context.Context, r message.Result, trace message.Trace, replyTo string, since time.Time) error
	DeadLetter(ctx context.Context, d message.DeadLetter, since time.Time) error
	Unacked(ctx context.Context, message string) (bool, error)
}

// DeadLetters is the store that a replay is checked against. Load returns found=false for a dead letter that is gone; Drop
// of one that is gone is no error.
type DeadLetters interface {
	Load(ctx context.Context, seq uint64) (h message.Header, payload []byte, found bool, err error)
	Drop(ctx context.Context, seq uint64) error
}

// Quota is the budget, for callers that use several calls at once. Gather returns when n calls of a lane are available, or
// as many as the windows ever allow, and after d when one is. If none is available by then, its error has a Wait()
// time.Duration. Expect makes the messages behind one in its lane leave the next call to it, while it is in hand and may
// soon ask for one.
type Quota interface {
	Expect(l message.Lane, sequence uint64) (done func())
	Gather(ctx context.Context, l message.Lane, n int, d time.Duration) error
}

// SubmitConfig is the configuration of a Submitter. A duration of 0 means "off" only where stated.
type SubmitConfig struct {
	Owner          string        // this process, random
	Backoff        Backoff       // between attempts at one request
	GiveUpAfter    time.Duration // total wait for faults of its own
	ReconcileDelay time.Duration
	Timeout        time.Duration // one exchange with the API
	StartLimit     time.Duration // from intent to the first byte
	MaxAge         time.Duration // 0: off
	GuardAfter     time.Duration // 0: every request is checked against the machine's newer actions
	MaxAction      int           // bytes of a MachineAction that still fit into a message with everything else
	Track          bool
	DryRun         bool
	Limited        bool // calls need grants of a budget that may be exhausted
}

// Submitter takes a request from its message to an accepted call or a final decision.
type Submitter struct {
	Defender    *defender.Client
	Ledger      ledger.Ledger
	Publisher   Publisher
	DeadLetters DeadLetters
	Audit       Auditor
	Rules       message.Rules
	Breaker     *Breaker
	Config      SubmitConfig
	BrokerNow   func() time.Time // this machine's estimate of the broker's clock
	LostBefore  func() time.Time // arrival.lostBefore; nil: never
	// CheckLedger updates LostBefore in case the ledger was lost just now; nil: no check.
	CheckLedger func(context.Context) error
	Metrics     *Metrics
	Shared      *SharedState
	Policy      *policy.Policy // nil: a signer may ask anything
	Quota       Quota          // nil: calls are not limited
	Orders      *Orders        // nil: no orders
	Tracing     Tracing
	Log         *zap.Logger

	inFlight  inFlight
	ambiguous ambiguousRun
	refusals  refusals
}

// attempt is one delivery on its way through the Submitter.
type attempt struct {
	*Submitter
	scope
	incoming
	Ledger ledger.Ledger // the Submitter's, pinned at the delivery
	key    string
	e      ledger.Entry   // the entry as changed so far
	stored essence        // of the entry in the ledger
	m      ledger.Machine // the machine's record, as last read
}

// incoming is the delivery, and its content.
type incoming struct {
	d            message.Delivery // as delivered
	origin       message.Delivery // the same, or for a replay the dead letter's original
	replay       replay
	req          message.Request
	owners       map[string]ledger.Record // the records of all owners of the id
	withdrawn    bool                     // read without being pulled, to end its run without a call (withdraw.go)
	unauthorized *message.Invalid         // not nil: it was accepted before, but no further call may be made
}

// scope holds the contexts of the attempt, its start and its span.
type scope struct {
	wait, work context.Context // Handler
	began      time.Time
	span       trace.Span // nil: not traced
}

// Handle is the message.Handler of the request stream.
func (s *Submitter) Handle(wait, work context.Context, d message.Delivery) (out message.Outcome) {
	p := &attempt{Submitter: s, Ledger: ledger.Pin(s.Ledger), scope: scope{wait: message.WithDelivery(wait, d), work: work, began: time.Now()}, incoming: incoming{d: d, origin: d}}
	defer func() { p.endSpan(out) }()
	if p.Config.Limited && p.Quota != nil {
		defer p.Quota.Expect(p.lane(), d.Sequence)()
	}
	out, err := p.handle() //nolint:contextcheck // its contexts are in p
	if err != nil {
		out = p.outcomeOf(err)
	} else if out.Done {
		s.Breaker.ResetFrom(faultStore) // needed if nothing had to be written, because no other message may arrive for long
	}
	if !out.Done {
		s.Metrics.retry(out.Cause)
		if line := s.Log.Check(zap.DebugLevel, "request waits"); line != nil {
			line.Write(p.about(cmp.Or(p.e.ID, p.req.ID), zap.String("message", d.Ref()),
				zap.String("cause", out.Cause), zap.Duration("for", out.After), zap.Error(err))...)
		}
	}
	return out
}

func (p *attempt) handle() (message.Outcome, error) {
	if invalid, err := p.resolveReplay(); err != nil {
		return message.Outcome{}, err
	} else if invalid != nil && p.withdrawn {
		return message.Done(), nil
	} else if invalid != nil {
		p.req.TraceParent, p.req.TraceState = message.TraceFrom(p.d.Header, message.Content{})
		return p.refuse(p.req, invalid)
	}
	req, invalid := p.Rules.Parse(p.origin)
	p.req = req
	if invalid != nil && p.withdrawn {
		return message.Done(), nil
	}
	var err error
	if invalid != nil {
		p.key, err = p.find(p.claimed(invalid), "")
	} else {
		p.key, err = p.find(req, ledger.EntryKey(p.Rules.Stream, req, p.origin.Published))
	}
	if err != nil {
		return message.Outcome{}, err
	}
	if p.key == "" {
		return p.refuseUnknown(req, invalid)
	}
	if !p.inFlight.enter(p.key) {
		return message.Later(inHandFor, "inHand"), nil
	}
	defer p.inFlight.leave(p.key)
	p.Shared.noteQuotaWait(p.key, 0)
	if invalid != nil {
		return p.handleUnauthorized(invalid)
	}

	// A first delivery is nearly always of a request that is not in the ledger. Its first write fails if it is, and only then
	// is the ledger read. Where calls are limited the ledger is read first: a call is taken from the budget before that write,
	// and a known request would waste it.
	if p.d.Attempt == 1 && p.replay.seq == 0 && !p.Config.Limited && req.Owner() == "" {
		out, err := p.open()
		if !errors.Is(err, ledger.ErrConflict) || p.e.Revision != 0 {
			return out, err
		}
	}
	if err := p.read(); err != nil {
		return message.Outcome{}, err
	}
	// On a redelivery a missing entry may have been lost, and a call been made. At the first delivery there was no call.
	if p.e.State == "" && p.d.Attempt > 1 && p.CheckLedger != nil {
		if err := p.CheckLedger(p.work); err != nil {
			return message.Outcome{}, err
		}
	}
	return p.open()
}

// inHandFor is the redelivery delay of a message whose request another handler of this process is handling.
const inHandFor = time.Second

func (p *attempt) read() error {
	var err error
	p.e, err = ledger.Load(p.work, p.Ledger, p.key)
	p.stored, p.m = essenceOf(&p.e), ledger.Machine{}
	return err
}

// open begins a run if there is none to continue, and carries it.
func (p *attempt) open() (message.Outcome, error) {
	p.startSpan()
	refused, err := p.refusedBefore()
	if err != nil {
		return message.Outcome{}, err
	}
	if why := p.wrongLane(); why != "" {
		return p.refuse(p.req, &message.Invalid{Code: message.CodePolicy, ClaimedID: p.req.ID, Message: why})
	}
	now := p.BrokerNow()
	e, s := opened(p.e, arrival{
		fresh: ledger.NewEntry(p.req, p.d, p.origin.Published, now), message: p.d.Ref(), claimed: p.req.ID, replay: p.replay, refusedBefore: refused,
		lostBefore: p.lostBefore(),
		tooOld:     p.Config.MaxAge > 0 && now.Sub(p.origin.Published) > p.Config.MaxAge, dryRun: p.Config.DryRun,
	}, time.Now())
	if p.withdrawn && !p.isWithdrawn(&e, s) {
		return message.Done(), nil
	}
	switch s.do {
	case doRefuse:
		return p.refuse(p.req, s.invalid)
	case doDrop:
		return message.Done(), p.DeadLetters.Drop(p.work, p.replay.seq)
	}
	if p.e.State == "" || e.Run != p.e.Run { // a run begins
		if err := p.reserveID(); err != nil {
			return message.Outcome{}, err
		}
	}
	if p.e = e; p.e.State == ledger.StateWaiting {
		p.e.Lane = p.d.Lane
	}
	if s.do == doReopen {
		if err := p.reopen(); err != nil {
			return message.Outcome{}, err
		}
	}
	if s.do == doWait {
		return p.nak(s), nil
	}
	if p.withdrawn && s.do != doPublish {
		return p.carryWithdrawn()
	}
	if s.do == doPublish { // refused
		if _, err := p.write(s); err != nil {
			return message.Outcome{}, err
		}
	}
	return p.carry()
}

func (s *Submitter) lostBefore() time.Time {
	if s.LostBefore == nil {
		return time.Time{}
	}
	return s.LostBefore()
}
