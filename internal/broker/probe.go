package broker

import (
	"context"
	"errors"
	"fmt"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"example.com/unrestrict-worker/internal/broker/stream"
	"example.com/unrestrict-worker/internal/message"
)

// Permission is something that the broker must let this user do.
type Permission struct {
	What string // "publish results"
	// Own is false for what the worker itself does not do: publishing requests.
	Own bool
	try func(ctx context.Context, b *Broker) error
}

// Permissions are those that can be tried without a side effect.
func (b *Broker) Permissions() []Permission {
	n := b.cfg.Names
	publish := func(what, subject string, own bool) Permission {
		return Permission{what + " (" + subject + ")", own, func(ctx context.Context, b *Broker) error { return b.tryPublish(ctx, subject) }}
	}
	watch := func(what, bucket string) Permission {
		subject := stream.API(b.js, "CONSUMER.CREATE.KV_"+bucket+".check")
		return Permission{what + " (" + subject + ")", true, func(ctx context.Context, b *Broker) error { return b.tryConsumer(ctx, "KV_"+bucket, subject) }}
	}
	var all []Permission
	for _, l := range message.Lanes() {
		pull := stream.API(b.js, "CONSUMER.MSG.NEXT."+n.Stream+"."+n.LaneConsumer(l))
		all = append(all, Permission{"take requests (" + pull + ")", true, func(ctx context.Context, b *Broker) error { return b.tryPull(ctx, pull) }})
	}
	all = append(
		all,
		publish("publish results", n.ResultsSubject, true),
		publish("publish dead letters", n.DeadletterSubject, true),
		publish("write the audit trail", AuditSubject, true),
		publish("write the ledger", b.ledger.WriteTo("check"), true),
		publish("write the shared state", b.state.WriteTo("check"), true),
		watch("follow the ledger", LedgerBucket),
		watch("follow the shared state", StateBucket),
	)
	for _, l := range message.Lanes() {
		all = append(all, publish("publish requests"+l.Suffix(", lane "), n.LaneSubject(l), false))
	}
	return all
}

// Try tries the permission. It returns nil, a *DeniedError, ErrNotTestable if the stream or consumer that it needs does not
// exist, or the fault that prevented the try.
func (p Permission) Try(ctx context.Context, b *Broker) error {
	ctx, stop := context.WithTimeout(ctx, apiTimeout)
	defer stop()
	return b.untilDenied(ctx, func(ctx context.Context) error { return p.try(ctx, b) })
}

// untilDenied ends a call with a *DeniedError as soon as the broker denies what it asks for; a denied request gets no reply.
// Only one such call may run at a time.
func (b *Broker) untilDenied(ctx context.Context, call func(context.Context) error) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	b.denied.Store(&cancel)
	defer b.denied.Store(nil)
	err := call(ctx)
	if denied, ok := errors.AsType[*DeniedError](context.Cause(ctx)); ok && err != nil {
		return denied
	}
	return err
}

// ErrNotTestable is the error for a permission whose stream or consumer does not exist.
var ErrNotTestable = errors.New("the stream or consumer that it is for does not exist")

// nowhere is no stream's name: the broker refuses a request that names it, but only after it has checked the permission.
const nowhere = "none-this-only-tries-the-permission"

func (b *Broker) tryPublish(ctx context.Context, subject string) error {
	_, err := b.js.PublishMsg(ctx, &nats.Msg{Subject: subject}, jetstream.WithExpectStream(nowhere), jetstream.WithRetryAttempts(0))
	switch {
	case err == nil:
		return fmt.Errorf("a stream took a message on %s that was not for it", subject)
	case apiError(err).ErrorCode != 0:
		return nil
	case errors.Is(err, jetstream.ErrNoStreamResponse), errors.Is(err, nats.ErrNoResponders):
		return ErrNotTestable
	}
	return err
}

// tryConsumer asks for a consumer with one stream in the subject and another in the payload, which the broker refuses before it
// looks up either. It would log a payload that it can't parse each time.
func (b *Broker) tryConsumer(ctx context.Context, stream, subject string) error {
	if _, err := b.open(ctx, stream); IsMissing(err) {
		return ErrNotTestable
	}
	_, err := b.nc.RequestWithContext(ctx, subject, fmt.Appendf(nil, `{"stream_name":%q}`, nowhere))
	if errors.Is(err, nats.ErrNoResponders) {
		return ErrNotTestable
	}
	return err
}

// tryPull sends a pull request that the broker can't parse.
func (b *Broker) tryPull(ctx context.Context, subject string) error {
	reply, err := b.nc.RequestWithContext(ctx, subject, []byte("{"))
	switch {
	case errors.Is(err, nats.ErrNoResponders):
		return ErrNotTestable
	case err != nil:
		return err
	case reply.Header.Get("Status") == "":
		return fmt.Errorf("an answer to %s that is none", subject)
	}
	return nil
}
