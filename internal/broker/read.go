package broker

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"example.com/unrestrict-worker/internal/remediation"
)

// Commands read without consumers. A work queue has no second one; and who may make a consumer may have its messages
// delivered to any subject of the account, and so write where it may not publish.

// part is what to read of a stream.
type part struct {
	subject string    // may have wildcards
	from    uint64    // sequence to begin at; 0: the first
	since   time.Time // begin here instead; zero: at from
	most    uint64    // how many at once; 0: readMessages
	bucket  bool      // read on into what is written meanwhile: a key that is written again has no earlier message
}

// after is what is left once a message was read.
func (p part) after(m Message) part {
	p.from, p.since = m.Sequence+1, time.Time{}
	return p
}

func (b *Broker) open(ctx context.Context, stream string) (jetstream.Stream, error) {
	s, err := within(ctx, func(ctx context.Context) (jetstream.Stream, error) { return b.js.Stream(ctx, stream) })
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", stream, explain(err))
	}
	return s, nil
}

// scan reads what a stream has now. Messages that are deleted meanwhile are left out.
func (b *Broker) scan(ctx context.Context, stream string, p part, fn func(Message) error) error {
	s, err := b.open(ctx, stream)
	if err != nil {
		return err
	}
	last := s.CachedInfo().State.LastSeq
	for p.bucket || p.from <= last {
		msgs, err := b.readOn(ctx, s, p)
		if err != nil {
			return fmt.Errorf("read %s: %w", stream, err)
		}
		if len(msgs) == 0 {
			return nil
		}
		for _, m := range msgs {
			if m.Sequence > last && !p.bucket {
				return nil
			}
			if err := fn(m); err != nil {
				return err
			}
			p = p.after(m)
		}
	}
	return nil
}

// Limits of one read of several messages.
const (
	readMessages = 256
	readBytes    = 4 << 20
)

// readOn reads the next messages of a part; none: there are no more. A stream that somebody made
// without direct reads gives them one by one.
func (b *Broker) readOn(ctx context.Context, s jetstream.Stream, p part) ([]Message, error) {
	ctx, cancel := context.WithTimeout(ctx, apiTimeout)
	defer cancel()
	cfg := s.CachedInfo().Config
	if cfg.AllowDirect {
		return b.readBatch(ctx, cfg.Name, p)
	}
	for {
		m, err := s.GetMsg(ctx, max(p.from, 1), jetstream.WithGetMsgSubject(p.subject))
		if errors.Is(err, jetstream.ErrMsgNotFound) {
			return nil, nil
		}
		if err != nil {
			return nil, err
		}
		if !m.Time.Before(p.since) {
			return []Message{{Subject: m.Subject, Sequence: m.Sequence, Time: m.Time, Header: remediation.Header(m.Header), Data: append([]byte{}, m.Data...)}}, nil
		}
		p.from = m.Sequence + 1
	}
}

// readBatch is a batched direct read, which the client library does not have. [doc] nats-architecture-and-design ADR-31
func (b *Broker) readBatch(ctx context.Context, stream string, p part) ([]Message, error) {
	fields := map[string]any{"batch": cmp.Or(p.most, readMessages), "max_bytes": readBytes, "next_by_subj": p.subject}
	if !p.since.IsZero() {
		fields["start_time"] = p.since
	} else {
		fields["seq"] = max(p.from, 1)
	}
	ask, err := json.Marshal(fields)
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
	m.Subject = added[jetstream.SubjectHeader]
	var errs [2]error
	m.Sequence, errs[0] = strconv.ParseUint(added[jetstream.SequenceHeader], 10, 64)
	m.Time, errs[1] = time.Parse(time.RFC3339Nano, added[jetstream.TimeStampHeaer])
	return m, errors.Join(errs[:]...)
}
