package broker

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"example.com/unrestrict-worker/internal/ledger"
)

// Orders that vanish before their time, with their stream or out of it, would free what was cancelled or held back. How far
// orders are recorded stands in UNRESTRICT_STATE, with the oldest and the latest of them: as long as these are not where they
// should be, and no operator has answered that, nothing is called (ADR 18). Until somebody answers it stays as it is, so every
// replica, also one that starts later, finds the same.

// orderMark is how far orders are recorded.
type orderMark struct {
	Cursor
	First orderSpot `json:"first"` // the oldest that there was
	Last  orderSpot `json:"last"`  // the latest that was recorded
	Nonce string    `json:"nonce"`

	revision uint64
}

// orderSpot is one order of the stream; the zero value is none.
type orderSpot struct {
	Sequence uint64    `json:"sequence"`
	Stored   time.Time `json:"stored"`
}

// lostAnswer is an operator's word that nothing is to wait any longer for what a mark shows to be lost.
type lostAnswer struct {
	Mark   Cursor    `json:"mark"`
	Stream time.Time `json:"stream"`
	First  uint64    `json:"first"`
}

func answerTo(at orderMark, s *jetstream.StreamInfo) lostAnswer {
	return lostAnswer{at.Cursor, s.Created.UTC(), s.State.FirstSeq}
}

// ageSlack is how much younger than the stream's limit an order that has aged out may seem.
const ageSlack = time.Minute

// lost is why orders are missing whose time in the stream was not over; "": none are.
func (at orderMark) lost(s *jetstream.StreamInfo) string {
	kept := func(o orderSpot) bool {
		return s.Config.MaxAge <= 0 || s.TimeStamp.Sub(o.Stored) < s.Config.MaxAge-ageSlack
	}
	gone := func(o orderSpot) bool { return o.Sequence > 0 && o.Sequence < s.State.FirstSeq && kept(o) }
	switch name := s.Config.Name; {
	case at.Next <= 1:
		return ""
	case !at.Stream.Equal(s.Created) && (at.Last.Sequence == 0 || kept(at.Last)):
		return fmt.Sprintf("the stream %s was deleted and made anew at %s", name, s.Created.UTC().Format(time.RFC3339))
	case !at.Stream.Equal(s.Created):
		return ""
	case s.State.LastSeq+1 < at.Next:
		return fmt.Sprintf("the stream %s went back to order %d, and %d was recorded", name, s.State.LastSeq, at.Next-1)
	case gone(at.First), gone(at.Last):
		return fmt.Sprintf("orders were taken out of the stream %s, which begins at %d now", name, s.State.FirstSeq)
	}
	return ""
}

// witness is the mark, the stream, and why orders are lost. The mark is read first, so that it is not ahead of the stream. What an
// operator has answered is lost no more: all that the stream has now is recorded anew.
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
		var said lostAnswer
		if json.Unmarshal(answer.Value, &said) != nil || said != answerTo(at, info) {
			return at, s, lost, nil
		}
	}
	if lost != "" || !at.Stream.Equal(info.Created) {
		at = orderMark{Cursor: Cursor{Stream: info.Created.UTC(), Next: max(info.State.FirstSeq, 1)}, revision: at.revision}
	}
	return at, s, "", nil
}

// OrdersLost is why orders are lost that nobody has answered yet; "": none are.
func (b *Broker) OrdersLost(ctx context.Context) (string, error) {
	_, _, lost, err := b.witness(ctx)
	return lost, err
}

// AnswerLostOrders has the replicas call again without the orders that are lost.
func (b *Broker) AnswerLostOrders(ctx context.Context) error {
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

// save writes the mark down.
func (at *orderMark) save(ctx context.Context, b *Broker) error {
	at.Nonce = ledger.Nonce()
	value, err := json.Marshal(at)
	if err != nil {
		return err
	}
	at.revision, err = b.state.Save(ctx, ledger.Write{Key: b.cfg.Names.stateKeys().orders, Value: value, Revision: at.revision})
	return err
}
