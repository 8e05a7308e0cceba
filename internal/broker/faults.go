package broker

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/cenkalti/backoff/v4"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"go.uber.org/zap"

	"example.com/unrestrict-worker/internal/broker/stream"
)

// MissingError lists what does not exist and must not be created.
type MissingError struct {
	Missing []string // each with how to create it
}

func (e *MissingError) Error() string {
	return "WORKER_PROVISION is false and these are missing:\n  " + strings.Join(e.Missing, "\n  ")
}

// UnfitError lists why what exists would break a promise.
type UnfitError struct {
	Reasons []string
}

func (e *UnfitError) Error() string {
	return "what the broker has can't be used:\n  " + strings.Join(e.Reasons, "\n  ")
}

// DeniedError says what the broker does not let this user do.
type DeniedError struct {
	Err error
}

func (e *DeniedError) Error() string {
	return fmt.Sprintf("the broker denies it (%v): grant this user that subject; "+
		"with WORKER_PROVISION=false nothing needs to be created", e.Err)
}

func (e *DeniedError) Unwrap() error { return e.Err }

// retryable wraps a temporary fault: the call is to be retried.
type retryable struct{ error }

func (r retryable) Unwrap() error { return r.error }

// persist retries with backoff until try succeeds, fails with an error that is not retryable, or ctx ends.
func (b *Broker) persist(ctx context.Context, what string, try func(context.Context) error) error {
	delays := backoff.NewExponentialBackOff(backoff.WithInitialInterval(200*time.Millisecond),
		backoff.WithMaxInterval(5*time.Second), backoff.WithMaxElapsedTime(0))
	var last error
	for {
		err := try(ctx)
		var wait retryable
		if !errors.As(err, &wait) {
			return err
		}
		if ctx.Err() == nil && (last == nil || wait.Error() != last.Error()) {
			last = wait.error
			b.log.Warn("waiting to "+what, zap.String("reason", last.Error()))
			if b.cfg.OnWait != nil {
				b.cfg.OnWait(last.Error())
			}
		}
		select {
		case <-ctx.Done(): // wait may only be about the end of ctx; last is the fault before that
			return fmt.Errorf("%s: %w: %w", what, context.Cause(ctx), cmp.Or(last, wait.error))
		case <-time.After(delays.NextBackOff()):
		}
	}
}

// Await retries until try succeeds or ctx ends, through the temporary faults of the broker that Open and Provision also wait for.
func (b *Broker) Await(ctx context.Context, what string, try func(context.Context) error) error {
	return b.persist(ctx, what, func(ctx context.Context) error {
		if err := try(ctx); err != nil {
			return explain(err)
		}
		return nil
	})
}

// Codes for which the client library has no name. [doc] nats-server errors.json
const (
	codeNoSuitablePeers  jetstream.ErrorCode = 10005
	codeSubjectOverlap   jetstream.ErrorCode = 10065
	codeNoCluster        jetstream.ErrorCode = 10074
	codeFilterNotUnique  jetstream.ErrorCode = 10100
	codeMaxBytesRequired jetstream.ErrorCode = 10113
)

// apiError is the JetStream API's error in err, or the zero value if there is none.
func apiError(err error) jetstream.APIError { return stream.APIError(err) }

// explain adds to a fault what to do about it, and wraps a temporary one in retryable.
func explain(err error) error {
	api := apiError(err)
	switch api.ErrorCode {
	case jetstream.JSErrCodeJetStreamNotEnabledForAccount:
		return fmt.Errorf("%w: give the account JetStream limits (nsc edit account --js-enable 1), or sign in to one that has them", err)
	case codeNoCluster:
		return fmt.Errorf("%w: WORKER_REPLICAS above 1 needs a NATS cluster", err)
	case codeMaxBytesRequired:
		return fmt.Errorf("%w: create the streams by hand, with max_bytes (WORKER_PROVISION=false prints the settings)", err)
	}
	switch {
	case api.Code == http.StatusServiceUnavailable, api.ErrorCode == codeNoSuitablePeers:
		return retryable{err}
	case errors.Is(err, nats.ErrNoResponders):
		return retryable{Advise(err)}
	case errors.Is(err, nats.ErrConnectionClosed):
		return err
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, context.Canceled), errors.Is(err, nats.ErrTimeout), isAway(err):
		return retryable{err}
	}
	return err
}

// isAway reports whether the connection was lost and the client is reconnecting.
func isAway(err error) bool {
	return errors.Is(err, nats.ErrConnectionReconnecting) || errors.Is(err, nats.ErrDisconnected) || errors.Is(err, nats.ErrReconnectBufExceeded)
}

// Advise adds what to do if JetStream does not respond.
func Advise(err error) error {
	const advice = "JetStream does not answer: is it turned on there (nats-server -js), and is NATS_JS_DOMAIN the domain that has it?"
	if !errors.Is(err, nats.ErrNoResponders) || strings.Contains(err.Error(), advice) {
		return err
	}
	return fmt.Errorf("%w: %s", err, advice)
}

// within bounds one call, so that a lost reply costs apiTimeout and not all of the
// caller's time.
func within[T any](ctx context.Context, call func(context.Context) (T, error)) (T, error) {
	ctx, cancel := context.WithTimeout(ctx, apiTimeout)
	defer cancel()
	return call(ctx)
}
