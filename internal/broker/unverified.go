package broker

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"example.com/unrestrict-worker/internal/remediation"
)

// Messages that nobody vouches for leave dead letters and results, as many as their sender likes. Of each the last are
// kept (contract §5).
const (
	mostUnverified      = 10_000
	mostUnverifiedBytes = 32 << 20
)

// unverified keeps what such messages leave in one stream within bounds: who publishes one more deletes the oldest. One
// at a time does so in a process; what other replicas have published is read now and then.
type unverified struct {
	b    *Broker
	name string
	// letters: it is the stream of dead letters, whose earlier ones can be told by a header, and which takes no more where
	// it denies deletes. Else what an earlier process has left goes by age, and deletes that are denied are done without.
	letters bool
	notKept atomic.Int64 // deleted, or not written

	turn   chan struct{} // holds one token; who has it owns what is below
	looked time.Time     // at the stream
	denied bool          // the broker deletes nothing there, as far as was seen since
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

// lookEvery is how soon the others' messages are known. Until then each replica keeps its own within the bounds.
const lookEvery = 10 * time.Second

// publish publishes one more. A crash behind publish leaves one too many, which the next one deletes.
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
	if u.letters && u.denied && (len(u.kept) >= mostUnverified || u.bytes+size > mostUnverifiedBytes) {
		u.notKept.Add(1)
		return nil
	}
	seq, err := publish()
	if err != nil {
		return err
	}
	u.add(unverifiedMessage{seq, size})
	return u.prune(ctx)
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
	u.denied, u.looked = info.Config.DenyDelete, time.Now()
	if n := len(u.kept); u.read > info.State.LastSeq || n > 0 && u.kept[n-1].seq > info.State.LastSeq { // the stream was made anew
		u.kept, u.bytes, u.read = nil, 0, 0
	}
	if !u.letters {
		return nil
	}
	return u.b.headers(ctx, u.name, jetstream.ConsumerConfig{
		FilterSubject: u.b.cfg.Names.DeadletterSubject, DeliverPolicy: jetstream.DeliverByStartSequencePolicy, OptStartSeq: u.read + 1,
	}, func(m jetstream.Msg, seq uint64) bool {
		u.read = seq
		if m.Headers().Get(remediation.HeaderDeadUnverified) != "" {
			payload, _ := strconv.Atoi(m.Headers().Get("Nats-Msg-Size"))
			u.add(unverifiedMessage{seq, payload + messageSize(&nats.Msg{Subject: m.Subject(), Header: m.Headers()})})
		}
		return true
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

// prune deletes the oldest that are too many.
func (u *unverified) prune(ctx context.Context) error {
	for len(u.kept) > mostUnverified || u.bytes > mostUnverifiedBytes {
		if u.denied {
			if u.letters {
				return nil // no more are written; it is looked again whether that has changed
			}
		} else if err := u.b.deleteMessage(ctx, u.name, u.kept[0].seq); err != nil {
			if _, refused := errors.AsType[*jetstream.APIError](err); !refused && u.letters {
				return fmt.Errorf("delete message %d of %s: %w", u.kept[0].seq, u.name, err)
			}
			u.denied = true
			continue
		}
		u.bytes -= u.kept[0].size
		u.kept = u.kept[1:]
		u.notKept.Add(1)
	}
	return nil
}
