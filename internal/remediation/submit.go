package remediation

import (
	"cmp"
	"context"
	"errors"
	"sync/atomic"
	"time"

	"go.opentelemetry.io/otel/trace"
	"go.uber.org/zap"

	"example.com/unrestrict-worker/internal/defender"
)

// Publisher tells the world. Result and DeadLetter return nil only when the broker has stored the message; both may be
// called again with the same argument after a crash and then publish nothing twice. A refused message's result may have another
// receivedAt then, which is not before since. since is when the decision was made:
// past the stream's duplicate window they look for the earlier message before they publish again. Waits says whether the
// message of that name (STREAM:SEQ) is still in its stream, where nobody has acknowledged it; of a stream that keeps
// acknowledged messages too it says so for longer, and of one that is gone it says no.
type Publisher interface {
	Result(ctx context.Context, r Result, trace Trace, replyTo string, since time.Time) error
	DeadLetter(ctx context.Context, d DeadLetter, since time.Time) error
	Waits(ctx context.Context, message string) (bool, error)
}

// DeadLetters is what a replay is held against. Load returns found=false for a dead letter that is gone; Drop of one
// that is gone is no error.
type DeadLetters interface {
	Load(ctx context.Context, seq uint64) (h Header, payload []byte, found bool, err error)
	Drop(ctx context.Context, seq uint64) error
}

// SubmitConfig is what a Submitter is told by its operator. Durations of 0 mean "off" only where said.
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
	Ledger      Ledger
	Publisher   Publisher
	DeadLetters DeadLetters
	Audit       Auditor
	Rules       Rules
	Gate        *Gate
	Config      SubmitConfig
	BrokerNow   func() time.Time // this machine's estimate of the broker's clock
	Metrics     *Metrics
	Notes       *Notes
	Tracing     Tracing
	Log         *zap.Logger

	flights  flights
	streak   streak
	intended atomic.Int64 // how long the last intent took
	guards   few
	refusals refusals
}

// passage is one delivery on its way through the Submitter.
type passage struct {
	*Submitter
	wait, work context.Context
	d          Delivery // as it came
	origin     Delivery // what it says: the same, or for a replay what the dead letter held
	replay     replay
	req        Request
	key        string
	e          Entry // as it is to become; p.stored is what the ledger has
	stored     State
	m          machine
	probing    bool // it may call though the gate is closed
	guarded    bool // the guard was asked in this passage, and let the run through: to be written down
	queued     bool // the wait for quota began in this passage
	suspecting bool // it holds others' calls back

	began   time.Time
	span    trace.Span // nil: not traced
	refused string     // the code, of a message without a claim on an entry
	bar     *Invalid   // not nil: it was taken before, and may not be called for any more
}

// Handle is the remediation.Handler of the request stream.
func (s *Submitter) Handle(wait, work context.Context, d Delivery) (out Outcome) {
	p := &passage{Submitter: s, wait: wait, work: work, d: d, origin: d, began: time.Now()}
	defer func() { p.end(out) }()
	out, err := p.run() //nolint:contextcheck // its contexts are in p
	if err != nil {
		out = p.stumble(err)
	} else if out.Done {
		s.Gate.HealthyAgain(faultStore) // perhaps nothing had to be written, and no other message comes for long
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

func (p *passage) run() (Outcome, error) {
	if invalid, err := p.unwrap(); err != nil {
		return Outcome{}, err
	} else if invalid != nil {
		p.req.TraceParent, p.req.TraceState = traceFrom(p.d.Header, content{})
		return p.refuse(p.req, invalid)
	}
	req, invalid := p.Rules.Parse(p.origin)
	p.req = req
	if invalid != nil {
		return p.barred(req, invalid)
	}
	p.key = EntryKey(p.Rules.Stream, req, p.origin.Published)
	if !p.flights.enter(p.key) {
		return Later(inHandFor, "inHand"), nil
	}
	defer p.flights.leave(p.key)
	p.Notes.waitsForQuota(p.key, 0)

	// A first delivery is nearly always of a request that the ledger does not know. Whatever it does first is a write
	// that fails if it does, and then the ledger is read. Where calls are limited it is read first: before that write a call
	// is taken from the budget, which a request known already would waste.
	if p.d.Attempt > 1 || p.replay.seq != 0 || p.Config.Limited {
		if err := p.read(); err != nil {
			return Outcome{}, err
		}
		return p.proceed()
	}
	out, err := p.proceed()
	if errors.Is(err, ErrConflict) && p.e.Revision == 0 {
		if err := p.read(); err != nil {
			return Outcome{}, err
		}
		return p.proceed()
	}
	return out, err
}

// inHandFor is when a message comes again whose request another handler of this process has in hand.
const inHandFor = time.Second

func (p *passage) read() error {
	var err error
	p.e, err = load(p.work, p.Ledger, p.key)
	p.stored, p.m, p.guarded, p.queued = p.e.State, machine{}, false, false
	return err
}

// proceed carries the request on from what is known of it.
func (p *passage) proceed() (Outcome, error) {
	p.begin()
	if p.e.State != "" && p.e.Print != fingerprint(p.req.MachineID, p.req.Comment) {
		return p.refuse(p.req, &Invalid{
			Code: CodeIDConflict, ClaimedID: p.req.ID,
			Message: "id: another request with this id, for another machine or with another comment, came first; give each request its own id",
		})
	}
	if p.e.State == "" {
		refused, err := p.refusedBefore()
		if err != nil {
			return Outcome{}, err
		}
		if refused {
			return p.refuse(p.req, &Invalid{Code: CodeExpiresTooLate, ClaimedID: p.req.ID, Message: refusedAlready})
		}
	}
	if out, err := p.open(); out != (Outcome{}) || err != nil {
		return out, err
	}
	return p.step()
}

// open begins a run where there is none to go on with.
func (p *passage) open() (Outcome, error) {
	switch {
	case p.replay.seq != 0:
		return p.openReplay()
	case p.e.State == "":
		rev := p.e.Revision
		p.e = newEntry(p.req, p.d, p.origin.Published, p.BrokerNow())
		p.e.Revision = rev
		if p.Config.MaxAge > 0 && p.BrokerNow().Sub(p.origin.Published) > p.Config.MaxAge {
			return p.reject(&Failure{Code: CodeTooOld, Origin: OriginRequest, Message: "the request was older than WORKER_MAX_REQUEST_AGE when it was first taken; publish it anew if it still holds"})
		}
	case p.e.State == StateFinal && p.e.Outcome == DryRun && !p.Config.DryRun && p.e.Source != p.d.Ref():
		// The request coming again; the dry run's own message, whose acknowledgement was lost, is answered already.
		if _, err := p.announce(); err != nil {
			return Outcome{}, err
		}
		p.e = nextRun(p.e, p.req, p.d, p.origin.Published, p.BrokerNow())
	}
	return Outcome{}, nil
}

// step goes on from wherever the run stands.
func (p *passage) step() (Outcome, error) {
	switch p.e.State {
	case StateSubmitted, StateFinal:
		return p.told()
	case StateCalled:
		if rest := p.alive(); rest > 0 {
			return Later(rest, "inFlight"), nil
		}
		return p.reconcile()
	case StateUnknown:
		return p.reconcile()
	}
	// The slack keeps a delivery that is on time from being sent back for a millisecond.
	if rest := time.Until(p.e.Due); rest > 50*time.Millisecond {
		return p.handBack(rest, "notDue")
	}
	return p.call()
}

// alive is how much longer another process may be in the middle of its call; past that it is dead, or its answer lost.
// A call of this process that no handler is at any more ended without being recorded.
func (p *passage) alive() time.Duration {
	if p.e.Owner == p.Config.Owner {
		return 0
	}
	end := p.e.Written.Add(p.startLimit() + p.Config.Timeout + p.Config.ReconcileDelay)
	return end.Sub(p.BrokerNow())
}

// save makes the entry durable as it is now.
func (p *passage) save(ttl time.Duration) error {
	w, err := p.e.write(p.key, ttl)
	if err != nil {
		return err
	}
	rev, err := p.Ledger.Save(p.work, w)
	return p.saved(Saved{rev, err})
}

func (p *passage) saved(s Saved) error {
	if err := p.e.wrote(s); err != nil {
		return err
	}
	p.stored = p.e.State
	p.Gate.HealthyAgain(faultStore)
	return nil
}
