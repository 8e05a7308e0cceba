package broker

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"example.com/unrestrict-worker/internal/ledger"
)

// If orders are lost before they expire, because their stream is deleted or they are removed from it, requests that were cancelled
// or held back would be called. So UNRESTRICT_STATE has a mark: up to which sequence orders are recorded, which order was the
// oldest and which the latest. If the stream does not have these two where the mark says, orders are lost, and no call is made
// until an operator answers that (ADR 18). Until then the mark stays as it is, so every replica finds the loss, even one that
// starts later.

// orderMark is how far orders are recorded, with two orders that prove that the stream is whole.
type orderMark struct {
	Cursor
	First orderSpot `json:"first"` // the oldest order of the stream
	Last  orderSpot `json:"last"`  // the latest order that was recorded
	Nonce string    `json:"nonce"`

	revision uint64
}

// orderSpot is where one order is in the stream; the zero value: no order.
type orderSpot struct {
	Sequence uint64    `json:"sequence"`
	Stored   time.Time `json:"stored"`
}

// lostAnswer is an operator's decision to go on without the orders that a mark shows to be lost. It holds for this mark and
// this state of the stream only.
type lostAnswer struct {
	Mark   Cursor    `json:"mark"`
	Stream time.Time `json:"stream"`
	First  uint64    `json:"first"`
}

func answerTo(at orderMark, s *jetstream.StreamInfo) lostAnswer {
	return lostAnswer{at.Cursor, s.Created.UTC(), s.State.FirstSeq}
}

// ageSlack is the tolerance on the stream's max_age: an order that has aged out may seem younger than max_age by this much.
const ageSlack = time.Minute

// lost is why the stream lacks orders that have not aged out; "": it lacks none.
func (at orderMark) lost(s *jetstream.StreamInfo) string {
	kept := func(o orderSpot) bool {
		return s.Config.MaxAge <= 0 || s.TimeStamp.Sub(o.Stored) < s.Config.MaxAge-ageSlack
	}
	removed := func(o orderSpot) bool { return o.Sequence > 0 && o.Sequence < s.State.FirstSeq && kept(o) }
	switch name := s.Config.Name; {
	case at.Next <= 1:
		return ""
	case !at.Stream.Equal(s.Created) && (at.Last.Sequence == 0 || kept(at.Last)):
		return fmt.Sprintf("the stream %s was deleted and recreated at %s", name, s.Created.UTC().Format(time.RFC3339))
	case !at.Stream.Equal(s.Created):
		return ""
	case s.State.LastSeq+1 < at.Next:
		return fmt.Sprintf("the stream %s went back to order %d, and %d was recorded", name, s.State.LastSeq, at.Next-1)
	case removed(at.First), removed(at.Last):
		return fmt.Sprintf("orders were taken out of the stream %s, which begins at %d now", name, s.State.FirstSeq)
	}
	return ""
}

// witness returns the mark, the stream, and why orders are lost. It reads the mark first, so that the mark is not ahead of the
// stream. A loss that an operator has answered counts no more: the mark starts over, and all present orders are recorded again.
func (b *Broker) witness(ctx context.Context) (at orderMark, s jetstream.Stream, lost string, err error) {
	keys := b.cfg.Names.stateKeys()
	stored, err := b.state.Load(ctx, keys.orders)
	if err != nil {
		return at, nil, "", fmt.Errorf("read how far orders are recorded: %w", err)
	}
	if stored.Value != nil && json.Unmarshal(stored.Value, &at) != nil {
		at = orderMark{}
	}
	at.revision = stored.Revision
	if s, err = b.open(ctx, b.cfg.Names.ControlStream); err != nil {
		return at, nil, "", err
	}
	info := s.CachedInfo()
	if lost = at.lost(info); lost != "" {
		answer, err := b.state.Load(ctx, keys.answer)
		if err != nil {
			return at, nil, "", fmt.Errorf("read whether the loss of orders was answered: %w", err)
		}
		var given lostAnswer
		if json.Unmarshal(answer.Value, &given) != nil || given != answerTo(at, info) {
			return at, s, lost, nil
		}
	}
	if lost != "" || !at.Stream.Equal(info.Created) {
		at = orderMark{Cursor: Cursor{Stream: info.Created.UTC(), Next: max(info.State.FirstSeq, 1)}, revision: at.revision}
	}
	return at, s, "", nil
}

// OrdersLost is why orders are lost, if no operator has answered that yet; "": none are lost.
func (b *Broker) OrdersLost(ctx context.Context) (string, error) {
	_, _, lost, err := b.witness(ctx)
	return lost, err
}

// AcceptLostOrders lets the replicas make calls again, without the orders that are lost.
func (b *Broker) AcceptLostOrders(ctx context.Context) error {
	at, s, lost, err := b.witness(ctx)
	if err != nil || lost == "" {
		return err
	}
	value, err := json.Marshal(answerTo(at, s.CachedInfo()))
	if err != nil {
		return err
	}
	if err := b.state.Put(ctx, b.cfg.Names.stateKeys().answer, value, 0); err != nil {
		return fmt.Errorf("write the answer: %w", err)
	}
	return nil
}

// save stores the mark by compare-and-set.
func (at *orderMark) save(ctx context.Context, b *Broker) error {
	at.Nonce = ledger.Nonce()
	value, err := json.Marshal(at)
	if err != nil {
		return err
	}
	at.revision, err = b.state.Save(ctx, ledger.Write{Key: b.cfg.Names.stateKeys().orders, Value: value, Revision: at.revision})
	return err
}
