package remediation

import (
	"context"
	"sync"
	"time"

	"go.uber.org/zap"
	"golang.org/x/sync/errgroup"

	"example.com/unrestrict-worker/internal/ledger"
	"example.com/unrestrict-worker/internal/message"
)

// Runs that were cancelled or denied, or not approved in time, end without being pulled, because pulling may be paused, or the
// budget exhausted or closed, for hours. One replica at a time reads the queue for them: all of it after each order, then new
// messages as they arrive. For runs whose time has expired it reads only their messages, which the tracker knows. It handles each
// as a delivery for which no call is made and which is not acknowledged: the message stays in the stream, and the replica that
// pulls it finds that its run has ended. The compare-and-swap of the entry decides whether this or a call is first.

// Queue is the request stream, read without consuming it. Waiting calls fn for each present message without an
// acknowledgement, in order, beginning at sequence from. next is the sequence to continue from. Arrival returns one of them
// by its name (STREAM:SEQ); waits is false if it is gone, acknowledged, or of another stream.
type Queue interface {
	Waiting(ctx context.Context, from uint64, fn func(message.Delivery) error) (next uint64, err error)
	Arrival(ctx context.Context, name string) (d message.Delivery, waits bool, err error)
}

const (
	withdrawEvery   = 2 * time.Second
	withdrawAgain   = 5 * time.Second // retry interval for a run that is being handled, or whose call is under way
	withdrawWorkers = 32
)

// withdrawal is one replica's reading of the queue.
type withdrawal struct {
	*Submitter
	queue    Queue
	unpulled func() []string
	next     uint64 // the sequence to continue from

	mu   sync.Mutex
	open map[uint64]message.Delivery // runs to end that have not ended yet, by sequence
	due  time.Time                   // when they are next tried
}

// Withdraw ends the runs that are cancelled or denied by orders, and those of the messages that unpulled returns
// (Tracker.Unpulled), until ctx ends.
func (s *Submitter) Withdraw(ctx context.Context, q Queue, unpulled func() []string) error {
	w := &withdrawal{Submitter: s, queue: q, unpulled: unpulled, open: map[uint64]message.Delivery{}}
	for news := s.Orders.changed(); ; {
		if err := w.round(ctx); err != nil && ctx.Err() == nil {
			s.Log.Warn("what is to end without a call has not ended yet", zap.Error(err))
			w.next = 0
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(withdrawEvery):
		case <-news: // the order may be about any message, and more orders usually follow
			if sleep(ctx, withdrawEvery/10) != nil {
				return nil
			}
			w.next, news = 0, s.Orders.changed()
		}
	}
}

// round ends the unpulled runs, reads new messages, and tries again those that have not ended.
func (w *withdrawal) round(ctx context.Context) error {
	if err := w.endUnpulled(ctx); err != nil || !w.Orders.exist() {
		return err
	}
	work, cancel := context.WithCancel(ctx)
	defer cancel()
	var g errgroup.Group
	g.SetLimit(withdrawWorkers)
	try := func(d message.Delivery) {
		g.Go(func() error {
			open := w.withdraw(work, d)
			w.mu.Lock()
			defer w.mu.Unlock()
			if delete(w.open, d.Sequence); open {
				w.open[d.Sequence] = d
			}
			return nil
		})
	}
	if time.Now().After(w.due) {
		w.mu.Lock()
		again := make([]message.Delivery, 0, len(w.open))
		for _, d := range w.open {
			again = append(again, d)
		}
		w.mu.Unlock()
		for _, d := range again {
			try(d)
		}
		w.due = time.Now().Add(withdrawAgain)
	}
	next, err := w.queue.Waiting(ctx, w.next, func(d message.Delivery) error {
		if w.concerns(d) { //nolint:contextcheck // the trace is in the delivery
			try(d)
		}
		return ctx.Err()
	})
	if err == nil {
		w.next = next
	}
	_ = g.Wait() // withdraw logs its own errors
	return err
}

// endUnpulled tries once to end the unpulled runs; the tracker returns again those that have not ended.
func (w *withdrawal) endUnpulled(ctx context.Context) error {
	var g errgroup.Group
	g.SetLimit(withdrawWorkers)
	for _, name := range w.unpulled() {
		g.Go(func() error {
			d, waits, err := w.queue.Arrival(ctx, name)
			if waits && err == nil {
				w.withdraw(ctx, d)
			}
			return err
		})
	}
	return g.Wait()
}

// concerns reports whether an order may be about a message, at next to no cost. handle then finds out whose request and
// which run it is.
func (w *withdrawal) concerns(d message.Delivery) bool {
	if seq, is, _ := message.ParseReplay(d.Header); is && seq > 0 {
		return true // its id is in the dead letter
	}
	req, invalid := message.Rules{Stream: w.Rules.Stream}.Parse(d)
	return invalid == nil && w.Orders.mentions(req.ID, req.Batch)
}

// withdraw ends the run of a message if it is to end and nothing was called; open reports whether to try again.
func (s *Submitter) withdraw(ctx context.Context, d message.Delivery) (open bool) {
	p := &attempt{Submitter: s, Ledger: ledger.Pin(s.Ledger), scope: scope{wait: ctx, work: ctx, began: time.Now()}, incoming: incoming{d: d, origin: d, withdrawn: true}}
	var out message.Outcome
	defer func() { p.endSpan(out) }()
	out, err := p.handle() //nolint:contextcheck // its contexts are in p
	if err != nil {
		out = p.outcomeOf(err)
	}
	return !out.Done
}

// isWithdrawn reports whether the message is of a run that is to end without a call: the run was cancelled or denied, was
// not approved in time, or the process that decided on its dead letter has died. e is the run that the message opens or
// continues, by the step s.
func (p *attempt) isWithdrawn(e *ledger.Entry, s step) bool {
	switch {
	case s.do == doRefuse || s.do == doDrop:
		return false
	case e.State == ledger.StateFinal:
		return isAbandonedLetter(e) && e.Source == p.d.Ref() && time.Since(e.DecidedAt) > letterWithin
	case p.Orders.about(targetOf(e)).cancel != nil:
		return true
	}
	a := p.approval(e)
	return a.denied != nil || a.expired(e.Approval, time.Now())
}

// carryWithdrawn is carry for a withdrawn message: its run ends if no call of it took place or can be under way. Otherwise
// the run is left to the handler that pulls the message.
func (p *attempt) carryWithdrawn() (message.Outcome, error) {
	if p.e.State == ledger.StateSubmitted {
		return message.Done(), nil
	}
	e, s, err := p.next()
	if err != nil {
		return message.Outcome{}, err
	}
	if s.do == doCall {
		p.e = e
		f := p.facts()
		f.refusal, f.allowed = p.refusal()
		e, s = decider(p.Config).beforeCall(e, f)
	}
	if e.State != ledger.StateFinal {
		return message.Later(withdrawAgain, "unclear"), nil
	}
	p.e = e
	if _, err := p.write(s); err != nil {
		return message.Outcome{}, err
	}
	return message.Done(), p.publish()
}
