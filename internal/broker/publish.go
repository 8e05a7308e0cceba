package broker

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"go.opentelemetry.io/otel/trace"

	"example.com/unrestrict-worker/internal/broker/stream"
	"example.com/unrestrict-worker/internal/message"
	"example.com/unrestrict-worker/internal/remediation"
)

// Publisher implements remediation's Publisher and DeadLetters on the streams of results and dead letters.
type Publisher struct {
	b      *Broker
	source string       // ce-source
	tracer trace.Tracer // nil: no spans

	unverifiedLetters, unverifiedResults *unverified
}

var (
	_ remediation.Publisher   = (*Publisher)(nil)
	_ remediation.DeadLetters = (*Publisher)(nil)
)

// NewPublisher returns a Publisher for the Broker's subjects; call it after Provision.
func (b *Broker) NewPublisher() *Publisher {
	p := &Publisher{
		b: b, source: source(b.cfg),
		unverifiedLetters: b.newUnverified(b.cfg.Names.DeadletterStream, true),
		unverifiedResults: b.newUnverified(b.cfg.Names.ResultsStream, false),
	}
	if b.cfg.TracerProvider != nil {
		p.tracer = b.cfg.TracerProvider.Tracer("example.com/unrestrict-worker/internal/broker")
	}
	return p
}

// source is the ce-source of results.
func source(cfg Config) string {
	urn := "urn:unrestrict-worker:"
	if cfg.Tenant != "" {
		urn += cfg.Tenant + ":"
	}
	return urn + cfg.Names.Stream
}

// NotKept is how many dead letters of unverified messages this process has deleted or not written.
func (p *Publisher) NotKept() int { return int(p.unverifiedLetters.notKept.Load()) }

// Result implements remediation.Publisher. The result carries the trace context of its own span, or without spans parent.
func (p *Publisher) Result(ctx context.Context, r message.Result, parent message.Trace, replyTo string, since time.Time) (err error) {
	if p.tracer != nil {
		var span trace.Span
		ctx, span = p.startSpan(ctx, p.b.cfg.Names.ResultsSubject, r.MessageID(), r.RequestID)
		defer func() { published(span, err) }()
		parent = message.TraceIn(ctx)
	}
	h, body, err := r.Render(p.source, parent, p.b.limit(p.b.cfg.Names.ResultsStream))
	if err != nil {
		return fmt.Errorf("publish on %s: %w", p.b.cfg.Names.ResultsStream, err)
	}
	if replyTo != "" {
		// Before the result itself, and so at least once: nothing records whether it was sent.
		if err := p.b.nc.PublishMsg(&nats.Msg{Subject: replyTo, Header: nats.Header(h), Data: body}); err != nil {
			return fmt.Errorf("send the result of %s to its replyTo: %w", r.RequestID, err)
		}
	}
	n := p.b.cfg.Names
	msg := &nats.Msg{Subject: n.ResultsSubject, Header: nats.Header(h), Data: body}
	same := func(earlier []byte) bool { return sameRun(earlier, body, since) }
	once := func() (uint64, error) {
		return p.once(ctx, n.ResultsStream, msg, r.MessageID(), since, p.b.ResultsWindow(), same)
	}
	if r.Unverified {
		err = p.unverifiedResults.publish(ctx, msg, once)
	} else {
		_, err = once()
	}
	if err != nil {
		return fmt.Errorf("publish the result of %s: %w", r.RequestID, err)
	}
	signal(p.b.results)
	signal(p.b.presenceStale)
	return nil
}

// sameRun reports whether an earlier result with the same message id is of the same run. If not, it is of another message with
// the same name STREAM:SEQ, because the stream was recreated and counts from 1 again: that message was received before
// this one was published. For a rejected message, since is when it was published, because it may have been received twice.
func sameRun(earlier, body []byte, since time.Time) bool {
	type run struct {
		ReceivedAt time.Time `json:"receivedAt"`
	}
	var x, y run
	if json.Unmarshal(earlier, &x) != nil || json.Unmarshal(body, &y) != nil {
		return false
	}
	return x.ReceivedAt.Equal(y.ReceivedAt) || !x.ReceivedAt.Before(since)
}

// DeadLetter implements remediation.Publisher. The dead-lettered message keeps its own trace context.
func (p *Publisher) DeadLetter(ctx context.Context, d message.DeadLetter, since time.Time) (err error) {
	if p.tracer != nil {
		var span trace.Span
		ctx, span = p.startSpan(ctx, p.b.cfg.Names.DeadletterSubject, d.MessageID(), d.RequestID)
		defer func() { published(span, err) }()
	}
	n, most := p.b.cfg.Names, p.b.limit(p.b.cfg.Names.DeadletterStream)
	h, body := d.Render(most)
	msg := &nats.Msg{Subject: n.DeadletterSubject, Header: nats.Header(h), Data: body}
	if size := messageSize(msg) - len(msg.Subject); size > most { // a stream with max_bytes would accept it, and drop it
		return fmt.Errorf("publish the dead letter of %s: %w: %d bytes at least, where the limits of %s leave %d", d.RequestID, message.ErrTooLarge, size, n.DeadletterStream, most)
	}
	same := func(earlier []byte) bool { return bytes.Equal(earlier, body) }
	once := func() (uint64, error) {
		return p.once(ctx, n.DeadletterStream, msg, d.MessageID(), since, p.b.DeadletterWindow(), same)
	}
	if d.Unverified {
		err = p.unverifiedLetters.publish(ctx, msg, once)
	} else {
		_, err = once()
	}
	if err != nil {
		return fmt.Errorf("publish the dead letter of %s: %w", d.RequestID, err)
	}
	return nil
}

// once publishes a message that may have been published already, before a crash. Within the stream's duplicate window the
// broker recognises the message id; past it, once searches the stream from the time of the decision on. seq is the message's
// sequence.
func (p *Publisher) once(ctx context.Context, name string, msg *nats.Msg, id string, since time.Time, window time.Duration, same func([]byte) bool) (seq uint64, err error) {
	if time.Since(since) > window-min(window/10, time.Minute) {
		seq, err := p.published(ctx, name, msg.Subject, id, since)
		if err != nil || seq > 0 {
			return seq, err
		}
	}
	ack, err := stream.Publish(p.b.js, msg, jetstream.WithMsgID(id))(ctx)
	if err != nil {
		return 0, err
	}
	if !ack.Duplicate {
		return ack.Sequence, nil
	}
	if held, err := p.holds(ctx, name, ack.Sequence, same); err != nil || held {
		return ack.Sequence, err
	}
	ack, err = stream.Publish(p.b.js, msg, jetstream.WithMsgID(id+":"+strconv.FormatInt(since.UnixNano(), 36)))(ctx)
	if err != nil {
		return 0, err
	}
	return ack.Sequence, nil
}

// holds reports whether the stream has, or once had, the message that the broker calls the original of a duplicate. It may have
// aged out, or been deleted, as operators do with a dead letter that is dealt with. But it may also never have been stored: a
// leader that is deposed can know the id of such a message. That leaves no gap: its sequence belongs to another message, or is
// beyond the last one. holds reads from the present leader only, because a direct read may be answered by a replica that is
// behind.
func (p *Publisher) holds(ctx context.Context, name string, seq uint64, same func([]byte) bool) (bool, error) {
	if seq == 0 {
		return false, nil // no message has the sequence 0
	}
	ctx, cancel := context.WithTimeout(ctx, apiTimeout)
	defer cancel()
	s, err := p.b.js.Stream(ctx, name)
	if err != nil {
		return false, err
	}
	last := s.CachedInfo().State.LastSeq // read before the message: one that is stored meanwhile is not the original
	m, found, err := p.b.get(ctx, name, stream.Query{Sequence: seq})
	switch {
	case err != nil:
		return false, err
	case found:
		return same(m.Data), nil
	}
	return seq <= last, nil
}

// published searches a stream for a message id from a time on; 0: the stream does not have it. The search may take as long as
// ctx allows; each single read may take apiTimeout.
func (p *Publisher) published(ctx context.Context, name, subject, id string, since time.Time) (seq uint64, err error) {
	for m, err := range p.b.scan(ctx, name, part{subject: subject, since: since.Add(-time.Minute)}) {
		if err != nil || m.Header.Get(jetstream.MsgIDHeader) == id {
			return m.Sequence, err
		}
	}
	return 0, nil
}

// Unacked implements remediation.Publisher.
func (p *Publisher) Unacked(ctx context.Context, message string) (bool, error) {
	name, seq := splitName(message)
	if seq == 0 {
		return false, nil
	}
	_, found, err := p.b.get(ctx, name, stream.Query{Sequence: seq})
	if IsMissing(err) {
		return false, nil
	}
	return found, err
}

// splitName splits a message's name (STREAM:SEQ); seq is 0 if it is not a message's name.
func splitName(message string) (stream string, seq uint64) {
	i := max(strings.LastIndexByte(message, ':'), 0)
	seq, err := strconv.ParseUint(strings.TrimPrefix(message[i:], ":"), 10, 64)
	if err != nil || i == 0 {
		return "", 0
	}
	return message[:i], seq
}

// Load implements remediation.DeadLetters.
func (p *Publisher) Load(ctx context.Context, seq uint64) (message.Header, []byte, bool, error) {
	if seq == 0 {
		return nil, nil, false, nil // no message has the sequence 0
	}
	m, found, err := p.b.get(ctx, p.b.cfg.Names.DeadletterStream, stream.Query{Sequence: seq})
	return m.Header, m.Data, found, err
}

// Drop implements remediation.DeadLetters.
func (p *Publisher) Drop(ctx context.Context, seq uint64) error {
	if err := stream.Delete(ctx, p.b.js, p.b.cfg.Names.DeadletterStream, seq); err != nil {
		return fmt.Errorf("drop dead letter %d: %w", seq, err)
	}
	return nil
}
