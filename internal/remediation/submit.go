// Package remediation takes a request from its delivery to its final result. The pure functions of decide*.go decide
// everything. carry.go carries the decisions out for the submitter, and the tracker follows accepted actions. The package
// does not depend on NATS: internal/consumer hands it deliveries, and it declares what it needs to store and publish as
// interfaces.
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
// message; both may be called again with the same argument after a crash and then publish nothing twice. A refused message's
// result may have another receivedAt then, which is not before since. since is when the
// decision was made: past the stream's duplicate window they look for the earlier message before they publish again. Unacked
// says whether the message of that name (STREAM:SEQ) is still in its stream, where nobody has acknowledged it; of a stream
// that keeps acknowledged messages too it says so for longer, and of one that is gone it says no.
type Publisher interface {
	Result(ctx context.Context, r message.Result, trace message.Trace, replyTo string, since time.Time) error
	DeadLetter(ctx context.Context, d message.DeadLetter, since time.Time) error
	Unacked(ctx context.Context, message string) (bool, error)
}

// DeadLetters is what a replay is held against. Load returns found=false for a dead letter that is gone; Drop of one
// that is gone is no error.
type DeadLetters interface {
	Load(ctx context.Context, seq uint64) (h message.Header, payload []byte, found bool, err error)
	Drop(ctx context.Context, seq uint64) error
}

// Quota is where calls come from, to those who have a use for several at once. Gather returns when n calls of a lane may be
// had, or as many as ever, and from d on when one may. Its error has a Wait() time.Duration if there is none by then. Expect
// has those behind a message in its lane leave the next call to it, while it is in hand and may soon ask for one.
type Quota interface {
	Expect(l message.Lane, sequence uint64) (gone func())
	Gather(ctx context.Context, l message.Lane, n int, d time.Duration) error
}

// SubmitConfig is the configuration of a Submitter. A duration of 0 means "off" only where stated.
type SubmitConfig struct {
	Owner          string        // this process, random
	Backoff        Backoff       // between attempts at one request
	GiveUpAfter    time.Duration // of waiting for faults of its own
	ReconcileDelay time.Duration
	Timeout        time.Duration // one exchange with the API
	StartLimit     time.Duration // from intent to the first byte
	MaxAge         time.Duration // 0: off
	GuardAfter     time.Duration // 0: every request is held against the machine's newer actions
	MaxAction      int           // bytes of a MachineAction that still fit into a message beside all else
	Track          bool
	DryRun         bool
	Limited        bool // calls are granted by a budget that may run out
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
	// CheckLedger has LostBefore know of a loss of this very moment; nil: it is never asked.
	CheckLedger func(context.Context) error
	Metrics     *Metrics
	Shared      *SharedState
	Policy      *policy.Policy // nil: a signer may ask anything
	Quota       Quota          // nil: calls are not limited
	Orders      *Orders        // nil: nobody orders anything
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
	Ledger ledger.Ledger // the Submitter's, as it was when the delivery came
	key    string
	e      ledger.Entry   // as it is to become
	stored essence        // as the ledger has it
	m      ledger.Machine // the machine's record, as read last
}

// incoming is what came: the delivery, and what it asks for.
type incoming struct {
	d            message.Delivery // as it came
	origin       message.Delivery // what it says: the same, or for a replay what the dead letter held
	replay       replay
	req          message.Request
	owners       map[string]ledger.Record // all that the ledger has of the id, whoever's it is
	withdrawn    bool                     // nobody pulled it: its run is to end without a call (withdraw.go)
	unauthorized *message.Invalid         // not nil: it was taken before, and may not be called for any more
}

// scope is where and how long the attempt may work, and its span.
type scope struct {
	wait, work context.Context // Handler
	began      time.Time
	span       trace.Span // nil: not traced
}

// Handle is the remediation.Handler of the request stream.
func (s *Submitter) Handle(wait, work context.Context, d message.Delivery) (out message.Outcome) {
	p := &attempt{Submitter: s, Ledger: ledger.Pin(s.Ledger), scope: scope{wait: message.InHand(wait, d), work: work, began: time.Now()}, incoming: incoming{d: d, origin: d}}
	defer func() { p.endSpan(out) }()
	if p.Config.Limited && p.Quota != nil {
		defer p.Quota.Expect(p.lane(), d.Sequence)()
	}
	out, err := p.handle() //nolint:contextcheck // its contexts are in p
	if err != nil {
		out = p.outcomeOf(err)
	} else if out.Done {
		s.Breaker.ResetFrom(faultStore) // perhaps nothing had to be written, and no other message arrives for long
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

	// A first delivery is nearly always of a request that the ledger does not have. Its first write fails if the ledger has
	// it, and only then is the ledger read. Where calls are limited it is read first: a call is taken from the budget before
	// that write, and a known request would waste it.
	if p.d.Attempt == 1 && p.replay.seq == 0 && !p.Config.Limited && req.Owner() == "" {
		out, err := p.open()
		if !errors.Is(err, ledger.ErrConflict) || p.e.Revision != 0 {
			return out, err
		}
	}
	if err := p.read(); err != nil {
		return message.Outcome{}, err
	}
	// It may have been called for before, and its entry be gone. What nobody has had in hand yet was not.
	if p.e.State == "" && p.d.Attempt > 1 && p.CheckLedger != nil {
		if err := p.CheckLedger(p.work); err != nil {
			return message.Outcome{}, err
		}
	}
	return p.open()
}

// inHandFor is the redelivery delay of a message whose request another handler of this process has in hand.
const inHandFor = time.Second

func (p *attempt) read() error {
	var err error
	p.e, err = ledger.Load(p.work, p.Ledger, p.key)
	p.stored, p.m = essenceOf(&p.e), ledger.Machine{}
	return err
}

// open begins a run where there is none to go on with, and carries it.
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
		return p.carryBack()
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
