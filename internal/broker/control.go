package broker

import (
	"context"
	"errors"
	"iter"
	"time"

	"go.uber.org/zap"

	"example.com/unrestrict-worker/internal/broker/stream"
	"example.com/unrestrict-worker/internal/ledger"
	"example.com/unrestrict-worker/internal/message"
	"example.com/unrestrict-worker/internal/remediation"
)

// Control reads the control stream into a replica's Orders: at the start everything that the stream has, then each new order.
type Control struct {
	b      *Broker
	orders *remediation.Orders

	turn    chan struct{} // holds one token; its holder owns the fields below
	created time.Time     // of the stream
	first   uint64        // its first sequence
	next    uint64        // sequence to continue at
	news    chan struct{} // has a token when Record has not seen what was read
}

// NewControl returns a Control that reads into orders; call it after Provision.
func (b *Broker) NewControl(orders *remediation.Orders) *Control {
	c := &Control{b: b, orders: orders, turn: make(chan struct{}, 1), next: 1, news: make(chan struct{}, 1)}
	c.turn <- struct{}{}
	orders.Read = c.Read
	return c
}

// controlEvery is how often the stream is read: half of leaseRenew, so that every other read coincides with other requests to
// the broker. A call needs a read that began 3 s ago at most (Orders.Current); the difference is the allowance for a slow read.
const controlEvery = leaseRenew / 2

// Run reads until ctx ends. While it can't read, no call is made (Orders.Current).
func (c *Control) Run(ctx context.Context) error {
	for {
		if err := c.Read(ctx); err != nil && ctx.Err() == nil {
			c.b.repeating.Warn("orders can't be read: nothing is called until they can", zap.Error(err))
		}
		if Tick(ctx, controlEvery) != nil {
			return nil
		}
	}
}

// Read reads everything that is stored by now. It takes the last sequence from the stream's leader only. A flood of unverified
// messages costs the time to read it, but no memory.
func (c *Control) Read(ctx context.Context) error {
	select {
	case <-c.turn:
		defer func() { c.turn <- struct{}{} }()
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	n, began := c.b.cfg.Names, time.Now()
	s, err := c.b.open(ctx, n.ControlStream)
	if err != nil {
		return err
	}
	info := s.CachedInfo()
	next, first, was := c.next, c.first, c.orders.Lost()
	anew := !info.Created.Equal(c.created) || info.State.LastSeq+1 < c.next // a new stream; known orders stay in force
	if anew || info.State.FirstSeq != c.first || c.orders.Lost() != "" {
		_, now, lost, err := c.b.witness(ctx)
		if err != nil {
			return err
		}
		c.orders.SetLost(lost)
		s, info = now, now.CachedInfo()
	}
	if c.first = info.State.FirstSeq; anew {
		c.created, c.next = info.Created, 1
	}
	defer func() {
		if anew || c.next != next || c.first != first || c.orders.Lost() != was {
			signal(c.news)
		}
	}()
	for m, err := range c.b.scanOpened(ctx, s, part{subject: n.ControlSubject, from: c.next, most: manyMessages}) {
		if err != nil {
			return err
		}
		c.orders.Apply(c.b.order(m))
		c.next = m.Sequence + 1
	}
	c.next = max(c.next, info.State.LastSeq+1)
	c.orders.ReadTo(began)
	return nil
}

// order turns a message of the control stream into a delivery.
func (b *Broker) order(m Message) message.Delivery {
	return message.Delivery{Stream: b.cfg.Names.ControlStream, Sequence: m.Sequence, Subject: m.Subject, Header: m.Header, Data: m.Data, Published: m.Time, Attempt: 1}
}

// Ordered yields the messages that the control stream has now, in order, from any sender. If the stream does not exist, the
// error is IsMissing.
func (b *Broker) Ordered(ctx context.Context) iter.Seq2[message.Delivery, error] {
	return func(yield func(message.Delivery, error) bool) {
		for m, err := range b.scan(ctx, b.cfg.Names.ControlStream, part{subject: b.cfg.Names.ControlSubject}) {
			if !yield(b.order(m), err) {
				return
			}
		}
	}
}

// Waiting implements remediation.Queue. It reads all lanes at once, in the order of the stream.
func (c *Control) Waiting(ctx context.Context, from uint64, fn func(message.Delivery) error) (next uint64, err error) {
	n := c.b.cfg.Names
	done := map[message.Lane]uint64{} // a stream that this program did not create may keep acknowledged messages
	for l, info := range c.b.found.Load().consumers {
		if info != nil {
			done[l] = info.AckFloor.Stream
		}
	}
	s, err := c.b.open(ctx, n.Stream)
	if err != nil {
		return from, err
	}
	for m, err := range c.b.scanOpened(ctx, s, part{subject: ">", from: from}) {
		l := message.LaneOf(n.Subject, m.Subject)
		if err == nil && n.Takes(m.Subject) && m.Sequence > done[l] {
			err = fn(message.Delivery{Stream: n.Stream, Sequence: m.Sequence, Subject: m.Subject, Lane: l, Header: m.Header, Data: m.Data, Published: m.Time, Attempt: 1})
		}
		if err != nil {
			return from, err
		}
		from = m.Sequence + 1
	}
	return max(from, s.CachedInfo().State.LastSeq+1), nil
}

// Arrival implements remediation.Queue.
func (c *Control) Arrival(ctx context.Context, name string) (d message.Delivery, waits bool, err error) {
	of, seq := splitName(name)
	if seq == 0 || of != c.b.cfg.Names.Stream {
		return d, false, nil
	}
	return c.b.Arrival(ctx, seq)
}

const (
	recordAgain  = 2 * time.Second // after an error
	recordAnyway = time.Minute     // without news: the position in UNRESTRICT_STATE may have been lost
)

// Record calls record for each message of the control stream once, in order, until ctx ends. The position is in
// UNRESTRICT_STATE, so each replica continues where the previous one stopped. After a crash the last messages may be recorded
// again. While orders are lost, nothing is recorded. Run signals new messages to it.
func (c *Control) Record(ctx context.Context, record func(context.Context, message.Delivery) error) error {
	for {
		rest := recordAnyway
		if err := c.recordOn(ctx, record); err != nil && ctx.Err() == nil {
			if rest = recordAgain; !errors.Is(err, ledger.ErrConflict) {
				c.b.repeating.Warn("orders are not in the audit trail yet", zap.Error(err))
			}
		}
		select {
		case <-ctx.Done():
			return nil
		case <-c.news:
		case <-time.After(stream.UntilTick(rest)):
		}
	}
}

func (c *Control) recordOn(ctx context.Context, record func(context.Context, message.Delivery) error) error {
	if err := c.Read(ctx); err != nil { // so that Orders has every message that is recorded here
		return err
	}
	at, s, lost, err := c.b.witness(ctx)
	if err != nil || lost != "" {
		return err
	}
	state := s.CachedInfo().State
	unsaved := state.Msgs > 0 && at.First.Sequence != state.FirstSeq
	if unsaved {
		at.First = orderSpot{state.FirstSeq, state.FirstTime.UTC()}
	}
	for m, err := range c.b.scanOpened(ctx, s, part{subject: c.b.cfg.Names.ControlSubject, from: at.Next}) {
		if err == nil {
			err = record(ctx, c.b.order(m))
		}
		if err != nil {
			return errors.Join(err, at.save(ctx, c.b))
		}
		at.Next, at.Last, unsaved = m.Sequence+1, orderSpot{m.Sequence, m.Time.UTC()}, true
		if m.Sequence%readMessages == 0 {
			if err := at.save(ctx, c.b); err != nil {
				return err
			}
			unsaved = false
		}
	}
	if !unsaved {
		return nil
	}
	return at.save(ctx, c.b)
}
