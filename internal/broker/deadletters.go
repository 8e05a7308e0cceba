package broker

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"slices"
	"strconv"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"example.com/unrestrict-worker/internal/remediation"
)

// DeadLetters are the dead letters that there are now, the oldest first. What others have put into the stream is left
// out. An error ends it; that of a stream that is not there is IsMissing.
func (b *Broker) DeadLetters(ctx context.Context) iter.Seq2[Message, error] {
	n := b.cfg.Names
	return func(yield func(Message, error) bool) {
		err := b.scan(ctx, n.DeadletterStream, n.DeadletterSubject, func(m Message) error {
			if m.Header.Get(remediation.HeaderDeadReason) != "" && !yield(m, nil) {
				return errEnough
			}
			return nil
		})
		if err != nil && !errors.Is(err, errEnough) {
			yield(Message{}, err)
		}
	}
}

// Queue are the requests that nobody has acknowledged yet, in hand or not, the oldest first.
func (b *Broker) Queue(ctx context.Context) iter.Seq2[Message, error] {
	n := b.cfg.Names
	return func(yield func(Message, error) bool) {
		err := b.scan(ctx, n.Stream, n.Subject, func(m Message) error {
			if !yield(m, nil) {
				return errEnough
			}
			return nil
		})
		if err != nil && !errors.Is(err, errEnough) {
			yield(Message{}, err)
		}
	}
}

// scan reads what a stream has now, without a consumer: a work queue has no second one. Messages that are deleted
// meanwhile are left out.
func (b *Broker) scan(ctx context.Context, stream, subject string, fn func(Message) error) error {
	s, err := within(ctx, func(ctx context.Context) (jetstream.Stream, error) { return b.js.Stream(ctx, stream) })
	if err != nil {
		return fmt.Errorf("read %s: %w", stream, err)
	}
	last := s.CachedInfo().State.LastSeq
	for seq := max(s.CachedInfo().State.FirstSeq, 1); seq <= last; {
		msgs, err := b.readOn(ctx, s, subject, seq, readMessages)
		if err != nil {
			return fmt.Errorf("read %s: %w", stream, err)
		}
		if len(msgs) == 0 {
			return nil
		}
		for _, m := range msgs {
			if m.Sequence > last {
				return nil
			}
			if err := fn(m); err != nil {
				return err
			}
			seq = m.Sequence + 1
		}
	}
	return nil
}

// Limits of one read of several messages.
const (
	readMessages = 256
	readBytes    = 4 << 20
)

// Kept are those messages on the request subject that have one of the sequences and are still in the stream, by
// sequence. What was acknowledged is in a work queue no more. An error is a *DeniedError for who may not read it.
func (b *Broker) Kept(ctx context.Context, seqs []uint64) (map[uint64]Message, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	b.denied.Store(&cancel)
	defer b.denied.Store(nil)
	kept, err := b.kept(ctx, seqs)
	if denied, ok := errors.AsType[*DeniedError](context.Cause(ctx)); ok && err != nil {
		return nil, denied
	}
	return kept, err
}

func (b *Broker) kept(ctx context.Context, seqs []uint64) (map[uint64]Message, error) {
	n := b.cfg.Names
	s, err := within(ctx, func(ctx context.Context) (jetstream.Stream, error) { return b.js.Stream(ctx, n.Stream) })
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", n.Stream, err)
	}
	kept := map[uint64]Message{}
	left := slices.Sorted(slices.Values(seqs))
	for len(left) > 0 {
		most := min(left[len(left)-1]-left[0]+1, readMessages)
		msgs, err := b.readOn(ctx, s, n.Subject, left[0], most)
		if err != nil {
			return nil, fmt.Errorf("read %s: %w", n.Stream, err)
		}
		if len(msgs) == 0 {
			break
		}
		for _, m := range msgs {
			if _, asked := slices.BinarySearch(left, m.Sequence); asked {
				kept[m.Sequence] = m
			}
		}
		passed, _ := slices.BinarySearch(left, msgs[len(msgs)-1].Sequence+1)
		left = left[passed:]
	}
	return kept, nil
}

// DuplicateWindow is for how long the broker drops a request that bears a message id it has seen.
func (b *Broker) DuplicateWindow(ctx context.Context) (time.Duration, error) {
	n := b.cfg.Names
	s, err := within(ctx, func(ctx context.Context) (jetstream.Stream, error) { return b.js.Stream(ctx, n.Stream) })
	if err != nil {
		return 0, fmt.Errorf("stream %s: %w", n.Stream, err)
	}
	return s.CachedInfo().Config.Duplicates, nil
}

// readOn reads the next messages on a subject from a sequence on, at most so many; none: there are no more. A stream
// that somebody made without direct reads gives them one by one.
func (b *Broker) readOn(ctx context.Context, s jetstream.Stream, subject string, from, most uint64) ([]Message, error) {
	ctx, cancel := context.WithTimeout(ctx, apiTimeout)
	defer cancel()
	cfg := s.CachedInfo().Config
	if cfg.AllowDirect {
		return b.readBatch(ctx, cfg.Name, subject, from, most)
	}
	m, err := s.GetMsg(ctx, from, jetstream.WithGetMsgSubject(subject))
	if errors.Is(err, jetstream.ErrMsgNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	return []Message{{Sequence: m.Sequence, Time: m.Time, Header: remediation.Header(m.Header), Data: m.Data}}, nil
}

// readBatch is a batched direct read, which the client library does not have. [doc] nats-architecture-and-design ADR-31
func (b *Broker) readBatch(ctx context.Context, stream, subject string, from, most uint64) ([]Message, error) {
	ask, err := json.Marshal(map[string]any{"batch": most, "max_bytes": readBytes, "seq": from, "next_by_subj": subject})
	if err != nil {
		return nil, err
	}
	inbox := b.nc.NewInbox()
	sub, err := b.nc.SubscribeSync(inbox)
	if err != nil {
		return nil, err
	}
	defer func() { _ = sub.Unsubscribe() }()
	if err := b.nc.PublishRequest("$JS.API.DIRECT.GET."+stream, inbox, ask); err != nil {
		return nil, err
	}
	var msgs []Message
	for {
		reply, err := sub.NextMsgWithContext(ctx)
		if err != nil {
			return nil, err
		}
		switch status := reply.Header.Get("Status"); {
		case status == "204" || status == "404": // the end of the batch; nothing there
			return msgs, nil
		case status == "503" && len(reply.Data) == 0:
			return nil, nats.ErrNoResponders
		case status != "" && reply.Header.Get(jetstream.SequenceHeader) == "":
			return nil, fmt.Errorf("status %s %s", status, reply.Header.Get("Description"))
		}
		m, err := directMessage(reply)
		if err != nil {
			return nil, err
		}
		msgs = append(msgs, m)
	}
}

// directMessage undoes what a direct read adds to a message's own headers, behind them.
func directMessage(reply *nats.Msg) (Message, error) {
	m := Message{Header: remediation.Header{}, Data: reply.Data}
	added := map[string]string{
		jetstream.StreamHeader: "", jetstream.SubjectHeader: "", jetstream.SequenceHeader: "", jetstream.TimeStampHeaer: "",
		"Nats-Num-Pending": "", "Nats-Last-Sequence": "", "Nats-UpTo-Sequence": "",
	}
	for name, values := range reply.Header {
		if _, own := added[name]; own && len(values) > 0 {
			added[name] = values[len(values)-1]
			values = values[:len(values)-1]
		}
		if len(values) > 0 {
			m.Header[name] = values
		}
	}
	var errs [2]error
	m.Sequence, errs[0] = strconv.ParseUint(added[jetstream.SequenceHeader], 10, 64)
	m.Time, errs[1] = time.Parse(time.RFC3339Nano, added[jetstream.TimeStampHeaer])
	return m, errors.Join(errs[:]...)
}
