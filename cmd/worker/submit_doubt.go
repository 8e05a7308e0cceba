package main

import (
	"bytes"
	"context"
	"iter"
	"slices"
	"time"

	"example.com/unrestrict-worker/internal/broker"
	"example.com/unrestrict-worker/internal/remediation"
)

// doubt is a row that the broker calls a duplicate. That proves nothing: a row's message id follows from what is in the
// row, so that anybody who may publish can have taken it before us, and our message is dropped all the same.
type doubt struct {
	row int    // counted from 0
	seq uint64 // of the message that bears its message id
}

// lostRows are the rows in doubt that nothing shows to be in the worker's hands.
type lostRows struct {
	rows    []int
	foreign int // of them, those whose message id another message has for certain
}

// settle finds out which duplicates are ours, and publishes the others again under message ids that nobody can guess.
// stored is called for each row that has a place. Where it can't be told, the row goes out again too: the id of the request is the
// same, and the worker carries out one id, machine and comment once, however often it comes. A message too many costs nothing,
// a row that is lost does.
func (s *submission) settle(ctx context.Context, doubts []doubt, stored func(row int, r broker.Stored)) error {
	if len(doubts) == 0 {
		return nil
	}
	lost, err := s.lost(ctx, doubts, stored)
	if err != nil {
		return err
	}
	s.foreign = lost.foreign
	next := 0
	return s.broker.PublishAll(ctx, s.outgoingAnew(lost.rows), func(r broker.Stored) {
		r.Duplicate = false // if it is one, of itself: sent again when its acknowledgement was lost
		stored(lost.rows[next], r)
		next++
	})
}

// outgoingAnew are some rows, in their order, under message ids that nobody has had.
func (s *submission) outgoingAnew(rows []int) iter.Seq2[broker.Outgoing, error] {
	return func(yield func(broker.Outgoing, error) bool) {
		row := 0
		for p := range s.bulk.requests() {
			if len(rows) == 0 {
				return
			}
			if rows[0] == row {
				rows = rows[1:]
				o := s.bulk.outgoing(p, s.again(row))
				o.MessageID += "/" + randomID()
				if !yield(o, p.err) {
					return
				}
			}
			row++
		}
	}
}

// lost looks for each row in doubt, in the queue and, if its message was acknowledged, in the results: the worker tells
// of a request under its own id before it acknowledges it, and of a message that it refuses never under that id.
func (s *submission) lost(ctx context.Context, doubts []doubt, stored func(row int, r broker.Stored)) (lost lostRows, err error) {
	gone, goneRows := newHarvest(s.bulk.rules.Stream), []int(nil)
	gone.signer = s.bulk.signer
	reading := true
	for chunk := range s.inDoubt(doubts) {
		var kept map[uint64]broker.Message
		if reading { // who may not is refused once
			kept, err = s.broker.Kept(ctx, chunk.seqs)
			reading = err == nil
		}
		if ctx.Err() != nil {
			return lost, context.Cause(ctx)
		}
		for i, p := range chunk.rows {
			row, seq := chunk.numbers[i], chunk.seqs[i]
			switch m, there := kept[seq]; {
			case !there:
				gone.add(p)
				goneRows = append(goneRows, row)
			case s.bulk.isOf(p, m):
				stored(row, broker.Stored{Sequence: seq, Duplicate: true})
			default:
				lost.rows = append(lost.rows, row)
				lost.foreign++
			}
		}
	}
	if reading && len(goneRows) > 0 { // a publisher may read neither, and goes on at once
		o := broker.FollowOptions{Since: time.Now().Add(-remembered), ToPresent: true}
		_ = followResults(ctx, s.broker, o, gone.take) // an error only says that no more is known
	}
	if ctx.Err() != nil {
		return lost, context.Cause(ctx)
	}
	for i, row := range goneRows {
		if gone.fates[i].run >= max(s.again(row), 1) {
			stored(row, broker.Stored{Duplicate: true}) // whose the message was is not known: it has no sequence
			continue
		}
		lost.rows = append(lost.rows, row)
	}
	slices.Sort(lost.rows)
	return lost, nil
}

// doubtful are some rows in doubt, as many as are read at once, so that memory does not grow with the file.
type doubtful struct {
	rows    []prepared
	numbers []int
	seqs    []uint64
}

const doubtsAtOnce = 256

func (s *submission) inDoubt(doubts []doubt) iter.Seq[doubtful] {
	return func(yield func(doubtful) bool) {
		var d doubtful
		number := 0
		for p := range s.bulk.requests() {
			if len(doubts) > 0 && doubts[0].row == number {
				d.rows, d.numbers, d.seqs = append(d.rows, p), append(d.numbers, number), append(d.seqs, doubts[0].seq)
				doubts = doubts[1:]
			}
			if len(d.rows) == doubtsAtOnce {
				if !yield(d) {
					return
				}
				d = doubtful{}
			}
			number++
		}
		if len(d.rows) > 0 {
			yield(d)
		}
	}
}

// isOf tells whether a message in the stream asks for a row as we do. A signed row must have our signature, though it
// can be of an earlier run and expire sooner; without one it must be what we publish, byte for byte. No other header may
// come along, for the worker acts on some.
func (b *bulk) isOf(p prepared, m broker.Message) bool {
	for name := range m.Header {
		if _, ours := p.header[name]; !ours && name != "Nats-Msg-Id" {
			return false
		}
	}
	if b.seed == nil {
		return bytes.Equal(m.Data, p.payload)
	}
	kept, invalid := b.rules.Parse(remediation.Delivery{Stream: b.rules.Stream, Subject: b.subject, Header: m.Header, Data: m.Data})
	row, wrong := b.rules.Parse(remediation.Delivery{Stream: b.rules.Stream, Subject: b.subject, Header: p.header, Data: p.payload})
	return invalid == nil && wrong == nil && kept.ID == row.ID && kept.MachineID == row.MachineID && kept.Comment == row.Comment &&
		time.Now().Before(kept.ExpiresAt)
}
