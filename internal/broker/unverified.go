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

// Messages that nobody vouches for leave dead letters and results, as many as their sender likes. Of each the last are
// kept (docs/messages.md).
const (
	mostUnverified      = 10_000
	mostUnverifiedBytes = 32 << 20
)

// unverified keeps what such messages leave in one stream within bounds: who publishes one more deletes the oldest. What
// other replicas have published is read now and then.
type unverified struct {
	b    *Broker
	name string
	// letters: it is the stream of dead letters, whose earlier ones can be told by a header, and which gets no more while
	// nothing can be deleted. Else what an earlier process has left goes by age, and all are written.
	letters bool
	notKept atomic.Int64 // deleted, or not written

	turn   chan struct{} // holds one token; who has it owns what is below
	looked time.Time     // at the stream
	denied bool          // it denies deletes
	failed time.Time     // when a delete failed last
	read   uint64        // the last sequence that was looked at
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
	// lookEvery is how soon the others' messages are known. Until then each replica keeps its own within the bounds.
	lookEvery = 10 * time.Second
	// deleteAgain is when a stream is tried again where a delete failed: a broker that denies the right to does not answer.
	deleteAgain = time.Minute
)

// publish publishes one more, one at a time: only those that nobody vouches for wait for each other. A crash behind it leaves
// one too many, which the next one deletes.
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

// stuck is while nothing can be deleted.
func (u *unverified) stuck() bool { return u.denied || time.Since(u.failed) < deleteAgain }

// messageSize is what counts of a message: its subject, headers and payload.
func messageSize(m *nats.Msg) int {
	return (&nats.Msg{Subject: m.Subject, Header: m.Header, Data: m.Data}).Size()
}

// look reads what is there of earlier processes and other replicas.
func (u *unverified) look(ctx context.Context) error {
	s, err := u.b.open(ctx, u.name)
	if err != nil {
		return err
	}
	info := s.CachedInfo()
	u.denied = info.Config.DenyDelete
	if n := len(u.kept); u.read > info.State.LastSeq || n > 0 && u.kept[n-1].seq > info.State.LastSeq { // the stream was made anew
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

// add notes a message, in the order of the stream; one that is noted already is left.
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

// deleteOldest deletes the oldest that are too many. What can't be deleted now the next one tries again; of results, which are
// written all the same, it stays until it is too old.
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
