package broker

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"iter"
	"maps"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"example.com/unrestrict-worker/internal/broker/stream"
	"example.com/unrestrict-worker/internal/message"
)

const (
	// bulkInFlight bounds the messages that PublishAll has sent and that are not acknowledged yet, and so its memory: a
	// request has at most 64 KiB.
	bulkInFlight = 256
	// bulkPatience is how long one message may wait for a connection or an acknowledgement.
	bulkPatience = time.Minute
)

// Outgoing is a message on its way to the request subject.
type Outgoing struct {
	Name      string // its name in an error, such as "machines.csv, line 8"
	Lane      message.Lane
	MessageID string // Nats-Msg-Id: the broker stores a message once within the stream's duplicate window
	Header    message.Header
	Payload   []byte
}

// Stored is the broker's acknowledgement that it has stored a message.
type Stored struct {
	Sequence  uint64
	Duplicate bool // the broker already had a message with this id, under that sequence; its publisher is not known
}

// UnpublishedError names the first message that PublishAll could not store. All before it are stored. Some of those after it
// that were in flight may be stored too, so the caller must publish the same messages again, under the same ids.
type UnpublishedError struct {
	Name string
	Err  error
}

func (e *UnpublishedError) Error() string { return fmt.Sprintf("publish %s: %v", e.Name, e.Err) }
func (e *UnpublishedError) Unwrap() error { return e.Err }

// PublishAll publishes requests in order without waiting for each, and calls stored for each, in the same order, when the
// broker has acknowledged it. If a connection or an acknowledgement is lost, it waits and sends the message again under
// the same id. It ends at the first message that can't be stored (*UnpublishedError) or the first error of requests. When
// ctx ends it sends nothing more, waits for what is in flight, and returns ctx's cause if some requests were not sent.
func (b *Broker) PublishAll(ctx context.Context, requests iter.Seq2[Outgoing, error], stored func(Stored)) error {
	// Wait for acknowledgements for a while after ctx has ended, so that the caller knows which messages are stored.
	settling, cancel := context.WithCancelCause(context.WithoutCancel(ctx))
	defer cancel(nil)
	defer context.AfterFunc(ctx, func() {
		time.AfterFunc(apiTimeout, func() { cancel(context.Cause(ctx)) })
	})()
	b.denied.Store(&cancel)
	defer b.denied.Store(nil)

	p := &bulk{b: b, stored: stored}
	err := p.all(ctx, settling, requests)
	for _, f := range p.flights { // after an error: so that nothing more is stored after this has returned
		_, _ = f.ack(settling)
	}
	return err
}

// bulk is one PublishAll.
type bulk struct {
	b       *Broker
	stored  func(Stored)
	flights []flight // sent, in order
	begun   bool     // the broker has stored one
}

type flight struct {
	name string
	msg  *nats.Msg
	ack  func(context.Context) (*jetstream.PubAck, error)
}

func (p *bulk) all(ctx, settling context.Context, requests iter.Seq2[Outgoing, error]) error {
	var cut error
	for o, err := range requests {
		if cut = cmp.Or(err, context.Cause(ctx)); cut != nil {
			break
		}
		if len(p.flights) == bulkInFlight {
			if err := p.settle(settling); err != nil {
				return err
			}
		}
		p.send(o)
	}
	for len(p.flights) > 0 {
		if err := p.settle(settling); err != nil {
			return err
		}
	}
	return cut
}

func (p *bulk) send(o Outgoing) {
	h := nats.Header{}
	maps.Copy(h, nats.Header(o.Header))
	h.Set(jetstream.MsgIDHeader, o.MessageID)
	msg := &nats.Msg{Subject: p.b.cfg.Names.LaneSubject(o.Lane), Header: h, Data: o.Payload}
	p.flights = append(p.flights, flight{o.Name, msg, stream.Publish(p.b.js, msg)})
}

// settle waits until the oldest message in flight is stored.
func (p *bulk) settle(ctx context.Context) error {
	f := p.flights[0]
	p.flights = p.flights[1:]
	ack, err := f.ack(ctx)
	if err != nil {
		ack, err = p.republish(ctx, f, err)
	}
	if err != nil {
		return &UnpublishedError{Name: f.name, Err: err}
	}
	p.begun = true
	p.stored(Stored{Sequence: ack.Sequence, Duplicate: ack.Duplicate})
	return nil
}

// republish publishes a message again until it is stored, as long as the fault is temporary.
func (p *bulk) republish(ctx context.Context, f flight, err error) (ack *jetstream.PubAck, _ error) {
	if err = p.fault(f, err); !isRetryable(err) {
		return nil, err
	}
	ctx, cancel := context.WithTimeoutCause(ctx, bulkPatience, errors.New("no answer within "+bulkPatience.String()))
	defer cancel()
	err = p.b.persist(ctx, "publish "+f.name, func(ctx context.Context) error {
		ack, err = within(ctx, func(ctx context.Context) (*jetstream.PubAck, error) { return p.b.js.PublishMsg(ctx, f.msg) })
		return p.fault(f, err)
	})
	if denied, ok := errors.AsType[*DeniedError](context.Cause(ctx)); ok {
		return nil, denied
	}
	return ack, err
}

// fault adds to an error of publishing what to do about it, and wraps it in retryable if it is temporary.
func (p *bulk) fault(f flight, err error) error {
	n := p.b.cfg.Names
	switch {
	case err == nil:
		return nil
	case errors.Is(err, jetstream.ErrNoStreamResponse) && !p.begun:
		return p.b.noStream(f.msg.Subject, err)
	case errors.Is(err, jetstream.ErrNoStreamResponse), errors.Is(err, jetstream.ErrAsyncPublishTimeout):
		return retryable{err}
	case isFull(err):
		return fmt.Errorf("the stream %s is full (%w): wait until the worker has taken some of its requests, or raise its limits", n.Stream, err)
	}
	return explain(err)
}

func isRetryable(err error) bool {
	var wait retryable
	return errors.As(err, &wait)
}

// isFull reports whether a stream or an account is at its limits. [doc] nats-server errors.json: 10077 is any failure to
// store, so its text decides; 10023 and 10047 are the account's.
func isFull(err error) bool {
	api := apiError(err)
	return api.ErrorCode == codeStoreFailed && strings.Contains(api.Description, "maximum") ||
		api.ErrorCode == codeNoMemory || api.ErrorCode == codeNoStorage
}

const (
	codeNoMemory    jetstream.ErrorCode = 10023
	codeNoStorage   jetstream.ErrorCode = 10047
	codeStoreFailed jetstream.ErrorCode = 10077
)

// ErrNoLane means that no stream carries the subject of a lane other than normal.
var ErrNoLane = errors.New("no stream takes what is published on this lane")

// noStream is the error for a subject of requests that no stream carries, with what to do about it.
func (b *Broker) noStream(subject string, err error) error {
	if l := message.LaneOf(b.cfg.Names.Subject, subject); l != message.LaneNormal {
		return fmt.Errorf("%w, %s (%w): if there is a stream %s, `worker check` names the command that adds the lane %s; else start `worker run` once, which creates it",
			ErrNoLane, subject, err, b.cfg.Names.Stream, l)
	}
	return fmt.Errorf("no stream takes what is published on %s (%w): start `worker run` once, which creates it, or check WORKER_SUBJECT", subject, err)
}

// Acked returns how many messages of the request stream the worker has acknowledged, counted from the first of seqs up to the
// first that is not. All of seqs are in one lane.
func (b *Broker) Acked(ctx context.Context, l message.Lane, seqs []uint64) (n int, err error) {
	ctx, cancel := context.WithTimeout(ctx, apiTimeout)
	defer cancel()
	names := b.cfg.Names
	s, err := b.js.Stream(ctx, names.Stream)
	if err != nil {
		return 0, fmt.Errorf("stream %s: %w", names.Stream, err)
	}
	// A stream that this program did not create may keep acknowledged messages.
	done := s.CachedInfo().State.FirstSeq
	cons, err := s.Consumer(ctx, names.LaneConsumer(l))
	if err == nil {
		done = max(done, cons.CachedInfo().AckFloor.Stream+1)
	} else if !errors.Is(err, jetstream.ErrConsumerNotFound) {
		return 0, fmt.Errorf("consumer %s: %w", names.LaneConsumer(l), err)
	}
	for n, seq := range seqs {
		if seq < done {
			continue
		}
		if _, found, err := b.get(ctx, names.Stream, stream.Query{Sequence: seq}); err != nil || found {
			return n, err
		}
	}
	return len(seqs), nil
}

// IsMissing reports whether an error says that a stream does not exist.
func IsMissing(err error) bool { return errors.Is(err, jetstream.ErrStreamNotFound) }

// OwnSubjects are the subjects, some with wildcards, that belong to the worker. A request may not name one as its replyTo.
func (n Names) OwnSubjects() []string {
	n = n.withDefaults()
	return append(n.laneSubjects(), n.ResultsSubject, n.DeadletterSubject, n.ControlSubject, AuditSubject, ownSubjects, "$KV.>")
}
