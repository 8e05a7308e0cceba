package why

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"time"

	"example.com/unrestrict-worker/internal/admin"
	"example.com/unrestrict-worker/internal/broker"
	"example.com/unrestrict-worker/internal/cli/session"
	"example.com/unrestrict-worker/internal/config"
	"example.com/unrestrict-worker/internal/health"
	"example.com/unrestrict-worker/internal/ledger"
	"example.com/unrestrict-worker/internal/message"
	"example.com/unrestrict-worker/internal/service"
)

// stage is the state of a request, as far as it matters for what it waits for.
type stage int

const (
	ended       stage = iota
	queued            // in its stream, with no open entry
	waiting           // open, and not accepted
	accepted          // its action is followed
	decided           // its result is to be published
	messageGone       // open, and its message is gone: nobody takes it up
	vanished          // accepted, and its entry is gone: nobody follows it
)

func (s *History) stage() stage {
	switch e := s.Entry; {
	case e == nil || e.State == ledger.StateFinal && e.Published:
		if len(s.Queued) > 0 {
			return queued
		}
		if e == nil && s.unfinished() {
			return vanished
		}
		return ended
	case e.State == ledger.StateSubmitted && e.Follow:
		return accepted
	case e.State == ledger.StateSubmitted:
		return ended
	case e.State == ledger.StateFinal:
		return decided
	case s.MessageGone:
		return messageGone
	}
	return waiting
}

// look finds out what the request waits for, and its place in the queue. One that nothing will happen to has no place.
func (s *History) look(ctx context.Context, conn *broker.Broker, set config.Settings) error {
	at := s.stage()
	switch at {
	case ended, messageGone, vanished:
		s.waits = s.Waits(time.Now(), nil)
		return nil
	}
	if err := s.readHolder(ctx, conn); err != nil {
		return err
	}
	conn.AwaitPresence(ctx)
	o, err := conn.Overview(ctx, config.Windows(set.Rates))
	if err != nil {
		return err
	}
	if err := s.findPlace(ctx, conn, o, set); err != nil {
		return err
	}
	s.waits = s.Waits(time.Now(), health.HoldingUp(service.Conditions(o), at == accepted || at == decided))
	return nil
}

// findPlace finds its place in the queue; of several messages the one that is called first counts.
func (s *History) findPlace(ctx context.Context, conn *broker.Broker, o broker.Overview, set config.Settings) error {
	line, err := service.LookAtLine(ctx, conn, o, set)
	if err != nil {
		return err
	}
	for _, q := range s.Queued {
		p, waits, err := line.Of(ctx, conn, q.Lane, q.Sequence)
		if err != nil {
			return err
		}
		if waits && (s.place == nil || p.Ahead < s.place.Ahead) {
			s.place = &p
		}
	}
	switch {
	case s.stage() == queued: // its entry, if it has one, is of an earlier run
		return nil
	case s.place == nil:
		s.place = &service.Place{Lane: cmp.Or(s.Entry.Lane, message.LaneNormal)}
	}
	own := s.place.Own(s.Entry, line.AsOf())
	s.place = &own
	return nil
}

// Waits returns what the request itself waits for, and what holds up all requests like it. It promises nothing that will not
// happen.
func (s *History) Waits(now time.Time, held []health.Condition) (waits []string) {
	e := s.Entry
	switch s.stage() {
	case queued:
		waits = []string{"being taken" + s.turn()}
	case accepted:
		waits = append([]string{"the end of action " + e.ActionID}, ownCause(e)...)
	case decided:
		waits = append([]string{"its result to be published; it is decided: " + e.Outcome}, ownCause(e)...)
	case waiting:
		waits = s.ownWaits(now, held)
	case messageGone:
		return []string{"nothing that will come: its message is gone from its stream (purged, deleted, or past the stream's limits), and no replica takes " +
			"a request up without it. Publish it again, with the same id, machine and comment: it goes on from here, and a call that was made is looked up first"}
	case vanished:
		return []string{"nothing that will come: it was accepted, and its entry is gone from the ledger, so that no replica follows its action; see the action in Defender's portal"}
	}
	for _, c := range held {
		waits = append(waits, session.Condition(c, now))
	}
	return waits
}

// turn is its place in the queue in words; "" if it has none.
func (s *History) turn() string {
	p := s.place
	if p == nil || p.Unavailable == service.WaitTaken {
		return ""
	}
	text := fmt.Sprintf(": %s before it, lane %s", session.Count(p.Ahead, "call comes", "calls come"), p.Lane)
	if p.Unavailable == "" {
		text += "; it " + p.When()
	}
	return text
}

// ownWaits returns what a request that is not accepted waits for. Its next attempt is listed only while nothing holds up all
// requests. A fault that does is listed once.
func (s *History) ownWaits(now time.Time, held []health.Condition) (waits []string) {
	e := s.Entry
	switch {
	case e.Awaits():
		return []string{awaits(e)}
	case e.State == ledger.StateCalled:
		return []string{fmt.Sprintf("the answer to the call of %s, or the look-up of what became of it", admin.Clock(e.LastCall))}
	case e.State == ledger.StateUnknown:
		waits = append(waits, fmt.Sprintf("a look-up of whether the call of %s took place (%d of 3 have not shown it)", admin.Clock(e.LastCall), e.Looks))
		if e.Failures > 0 {
			waits = append(waits, health.StillUnclear+": its calls, or the look-ups for them, have had no clear answer more than once")
		}
	case len(held) == 0 && len(ownCause(e)) == 0:
		waits = []string{"its next attempt" + s.turn()}
	}
	if e.NotBefore.After(now) {
		waits = append(waits, "its time: not tried again before "+admin.Clock(e.NotBefore))
	}
	if own := ownCause(e); own != nil {
		if s.holder != "" {
			own = append(own, s.holder)
		}
		return append(waits, own...)
	}
	if e.LastError == nil {
		return waits
	}
	if _, listed := health.Has(held, e.LastError.Code); !listed {
		waits = append(waits, "an end of this fault: "+e.LastError.Code+": "+e.LastError.Message)
	}
	return waits
}

// ownCause returns what the worker found that holds up this request alone: a busy machine, or a message about it that fits into no
// stream.
func ownCause(e *ledger.Entry) []string {
	if e.LastError == nil || e.LastError.Origin != message.OriginWorker {
		return nil
	}
	return []string{e.LastError.Code + ": " + e.LastError.Message}
}

// readHolder finds the request that holds the machine, if this one waits for its machine.
func (s *History) readHolder(ctx context.Context, conn *broker.Broker) error {
	if s.stage() != waiting || ownCause(s.Entry) == nil {
		return nil
	}
	_, holder, err := ledger.LoadMachine(ctx, conn.NewLedger(), conn.Names().Stream, s.Entry.MachineID, "", ledger.Retention)
	if errors.Is(err, ledger.ErrGarbled) || err == nil && (holder == nil || holder.ID == s.id) {
		return nil // the request's own cause is enough
	}
	if err != nil {
		return err
	}
	s.holder = fmt.Sprintf("the machine is held by the request %s, called %s", holder.ID, admin.Clock(holder.LastCall))
	waits, err := conn.NewPublisher().Unacked(ctx, holder.Source)
	if err == nil && !waits {
		s.holder += ", whose message is gone from its stream: no replica takes that one up, and it loses the machine some minutes after its last attempt"
	}
	return err
}
