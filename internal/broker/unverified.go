package broker

import (
	"context"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"

	"example.com/unrestrict-worker/internal/broker/stream"
	"example.com/unrestrict-worker/internal/message"
)

// Bounds of the dead letters and of the results of unverified messages, of which anybody can send any number. Only the latest
// are kept (docs/messages.md).
const (
	mostUnverified      = 10_000
	mostUnverifiedBytes = 32 << 20
)

// unverified keeps one stream's dead letters or results of unverified messages within these bounds: publishing one more deletes
// the oldest. It reads periodically what other replicas have published.
type unverified struct {
	b    *Broker
	name string
	// letters: this is the stream of dead letters. Its earlier unverified ones are recognised by a header, and while deletes fail,
	// no more are written. Otherwise it is the stream of results: those of earlier processes age out, and all are written.
	letters bool
	notKept atomic.Int64 // deleted, or not written

	turn   chan struct{} // holds one token; its holder owns the fields below
	looked time.Time     // when the stream was last read
	denied bool          // the stream denies deletes
	failed time.Time     // when a delete last failed
	read   uint64        // the last sequence that was read
	kept   []unverifiedMessage
	bytes  int
}

type unverifiedMessage struct {
	seq  uint64
	size int
}

func (b *Broker) newUnverified(stream string, letters bool) *unverified {
	u := &unverified{b: b, name: stream, letters: letters, turn: make(chan struct{}, 1)}
	u.turn <- struct{}{}
	return u
}

const (
	// lookEvery is how soon other replicas' messages are known. Until then each replica counts only its own.
	lookEvery = 10 * time.Second
	// deleteAgain is how long after a failed delete the next one is tried: a delete without permission gets no reply, and so
	// costs a timeout.
	deleteAgain = time.Minute
)

// publish publishes one more message, one at a time; only unverified messages wait for each other. A crash after publishing
// leaves one message too many, which the next publish deletes.
func (u *unverified) publish(ctx context.Context, m *nats.Msg, publish func() (uint64, error)) error {
	select {
	case <-u.turn:
		defer func() { u.turn <- struct{}{} }()
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	if time.Since(u.looked) >= lookEvery {
		if err := u.look(ctx); err != nil {
			return fmt.Errorf("read %s: %w", u.name, err)
		}
	}
	size := messageSize(m)
	full := len(u.kept) >= mostUnverified || u.bytes+size > mostUnverifiedBytes
	if u.letters && full && u.stuck() {
		u.notKept.Add(1)
		return nil
	}
	seq, err := publish()
	if err == nil {
		u.add(unverifiedMessage{seq, size})
		u.deleteOldest(ctx)
	}
	return err
}

// stuck reports whether nothing can be deleted at present.
func (u *unverified) stuck() bool { return u.denied || time.Since(u.failed) < deleteAgain }

// messageSize is a message's size as the bounds count it: subject, headers and payload.
func messageSize(m *nats.Msg) int {
	return (&nats.Msg{Subject: m.Subject, Header: m.Header, Data: m.Data}).Size()
}

// look reads what earlier processes and other replicas have published.
func (u *unverified) look(ctx context.Context) error {
	s, err := u.b.open(ctx, u.name)
	if err != nil {
		return err
	}
	info := s.CachedInfo()
	u.denied = info.Config.DenyDelete
	if n := len(u.kept); u.read > info.State.LastSeq || n > 0 && u.kept[n-1].seq > info.State.LastSeq { // the stream was recreated
		u.kept, u.bytes, u.read = nil, 0, 0
	}
	if u.letters {
		err = u.readLetters(ctx)
	}
	if err == nil {
		u.looked = time.Now()
	}
	return err
}

func (u *unverified) readLetters(ctx context.Context) error {
	for m, err := range u.b.scan(ctx, u.name, part{subject: u.b.cfg.Names.DeadletterSubject, from: u.read + 1}) {
		if err != nil {
			return err
		}
		u.read = m.Sequence
		if m.Header.Get(message.HeaderDeadUnverified) != "" {
			u.add(unverifiedMessage{m.Sequence, messageSize(&nats.Msg{Subject: m.Subject, Header: nats.Header(m.Header), Data: m.Data})})
		}
	}
	return nil
}

// add inserts a message in the order of the stream, unless it is known already.
func (u *unverified) add(m unverifiedMessage) {
	i := len(u.kept)
	for i > 0 && u.kept[i-1].seq >= m.seq {
		if u.kept[i-1].seq == m.seq {
			return
		}
		i--
	}
	u.kept = append(u.kept, unverifiedMessage{})
	copy(u.kept[i+1:], u.kept[i:])
	u.kept[i] = m
	u.bytes += m.size
}

// deleteOldest deletes the oldest messages beyond the bounds. If a delete fails, the next publish tries it again. While deletes
// fail, results are written all the same, and the surplus stays until it ages out.
func (u *unverified) deleteOldest(ctx context.Context) {
	for len(u.kept) > mostUnverified || u.bytes > mostUnverifiedBytes {
		oldest := u.kept[0]
		switch {
		case u.stuck() && u.letters:
			return
		case u.stuck():
		case stream.Delete(ctx, u.b.js, u.name, oldest.seq) == nil:
			u.notKept.Add(1)
		default:
			u.failed = time.Now()
			return
		}
		u.kept, u.bytes = u.kept[1:], u.bytes-oldest.size
	}
}
