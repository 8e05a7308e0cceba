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
// kept (contract §5).
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

	coming, comingBytes int // on their way to the stream
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

// publish publishes one more. A crash behind it leaves one too many, which the next one deletes.
func (u *unverified) publish(ctx context.Context, m *nats.Msg, publish func() (uint64, error)) error {
	size := messageSize(m)
	room, err := u.reserve(ctx, size)
	if err != nil {
		return err
	}
	if !room {
		u.notKept.Add(1)
		return nil
	}
	seq, err := publish()
	var over []unverifiedMessage
	u.locked(func() {
		u.coming--
		u.comingBytes -= size
		if err == nil {
			u.add(unverifiedMessage{seq, size})
			over = u.over()
		}
	})
	u.delete(ctx, over)
	return err
}

// stuck is while nothing can be deleted.
func (u *unverified) stuck() bool { return u.denied || time.Since(u.failed) < deleteAgain }

// locked is for what can't wait for long.
func (u *unverified) locked(do func()) {
	<-u.turn
	defer func() { u.turn <- struct{}{} }()
	do()
}

// reserve says whether one more may be written. It looks at the stream when it is time.
func (u *unverified) reserve(ctx context.Context, size int) (room bool, err error) {
	select {
	case <-u.turn:
		defer func() { u.turn <- struct{}{} }()
	case <-ctx.Done():
		return false, context.Cause(ctx)
	}
	if time.Since(u.looked) >= lookEvery {
		if err := u.look(ctx); err != nil {
			return false, fmt.Errorf("read %s: %w", u.name, err)
		}
	}
	full := len(u.kept)+u.coming >= mostUnverified || u.bytes+u.comingBytes+size > mostUnverifiedBytes
	if u.letters && full && u.stuck() {
		return false, nil
	}
	u.coming++
	u.comingBytes += size
	return true, nil
}

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
	return u.b.scan(ctx, u.name, part{subject: u.b.cfg.Names.DeadletterSubject, from: u.read + 1}, func(m Message) error {
		u.read = m.Sequence
		if m.Header.Get(message.HeaderDeadUnverified) != "" {
			u.add(unverifiedMessage{m.Sequence, messageSize(&nats.Msg{Subject: m.Subject, Header: nats.Header(m.Header), Data: m.Data})})
		}
		return nil
	})
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

// over takes out the oldest that are too many.
func (u *unverified) over() (all []unverifiedMessage) {
	if u.letters && u.stuck() {
		return nil
	}
	for len(u.kept) > mostUnverified || u.bytes > mostUnverifiedBytes {
		all = append(all, u.kept[0])
		u.bytes -= u.kept[0].size
		u.kept = u.kept[1:]
	}
	if u.stuck() {
		return nil // they stay until they are too old
	}
	return all
}

// delete deletes what was taken out. What fails comes back, for the next one to try.
func (u *unverified) delete(ctx context.Context, over []unverifiedMessage) {
	for i, m := range over {
		if stream.Delete(ctx, u.b.js, u.name, m.seq) == nil {
			u.notKept.Add(1)
			continue
		}
		u.locked(func() {
			u.failed = time.Now()
			for _, back := range over[i:] {
				u.add(back)
			}
		})
		return
	}
}
