package broker

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"go.uber.org/zap"

	"example.com/unrestrict-worker/internal/broker/rates"
)

// found is what Provision found or made.
type found struct {
	requests     jetstream.Consumer
	ledger       jetstream.KeyValue
	ledgerStream jetstream.Stream
	state        jetstream.KeyValue

	ackWait                         time.Duration
	resultsWindow, deadletterWindow time.Duration
	resultsMax, deadletterMax       int32 // bytes of a message; 0 or less: no limit of the stream's own
	differences                     []string
}

// Provision creates what is missing and looks at what is there. It may be
// repeated, by any number of replicas at once, and never alters what is not the
// worker's own. Faults of the broker are waited out until ctx ends. What only a
// person can mend: *MissingError, *UnfitError, *DeniedError, or the broker's own
// error with what to do about it.
func (b *Broker) Provision(ctx context.Context) error {
	return b.persist(ctx, "provision streams and consumer", func(ctx context.Context) error {
		ctx, cancel := context.WithCancelCause(ctx)
		defer cancel(nil)
		b.denied.Store(&cancel)
		defer b.denied.Store(nil)
		f, err := b.provision(ctx)
		var denied *DeniedError
		switch {
		case err == nil:
			if len(f.differences) > 0 {
				b.log.Warn("settings differ from what would be provisioned; they are left as they are", zap.Strings("differences", f.differences))
			}
			b.found.Store(f)
			return nil
		case errors.As(context.Cause(ctx), &denied):
			return denied
		}
		return explain(err)
	})
}

// provision looks, creates what is missing and looks again, for what it could
// not create may have been created by another replica in the meantime.
func (b *Broker) provision(ctx context.Context) (*found, error) {
	for range 3 {
		there, err := b.look(ctx)
		if err != nil {
			return nil, err
		}
		missing := b.topology.missing(there)
		if !b.cfg.Provision {
			windows, err := b.missingWindows(ctx)
			if err != nil {
				return nil, err
			}
			missing = append(missing, windows...)
		}
		var errs []error
		if unfit := b.topology.unfit(there); len(unfit) > 0 {
			errs = append(errs, &UnfitError{Reasons: unfit})
		}
		if len(missing) > 0 && !b.cfg.Provision {
			errs = append(errs, &MissingError{Missing: missing})
		}
		if len(errs) > 0 {
			return nil, errors.Join(errs...)
		}
		if len(missing) == 0 {
			return b.bind(ctx, there)
		}
		if err := b.create(ctx, there); err != nil {
			return nil, err
		}
	}
	return nil, again{errors.New("what was created is not there yet")}
}

// missingWindows lists the streams of the call budget that are not there. Provisioning leaves them to rates.Store,
// which knows what a stream that was removed may have forgotten.
func (b *Broker) missingWindows(ctx context.Context) (missing []string, err error) {
	for _, w := range b.cfg.Windows {
		if w.Limit == 0 {
			continue
		}
		cfg := rates.StreamConfig(w, b.cfg.Replicas)
		_, err := within(ctx, func(ctx context.Context) (jetstream.Stream, error) { return b.js.Stream(ctx, cfg.Name) })
		switch {
		case errors.Is(err, jetstream.ErrStreamNotFound):
			missing = append(missing, missingStream(cfg))
		case err != nil:
			return nil, fmt.Errorf("look up stream %s: %w", cfg.Name, err)
		}
	}
	return missing, nil
}

// present is what a look at the broker showed; nil: missing.
type present struct {
	streams  map[string]jetstream.Stream
	consumer *jetstream.ConsumerInfo
	requests jetstream.Consumer // nil if consumer is a push consumer, which is unfit
	foreign  []string           // consumers of the request stream that are not ours
}

func (b *Broker) look(ctx context.Context) (present, error) {
	p := present{streams: map[string]jetstream.Stream{}}
	for _, spec := range b.topology.streams() {
		s, err := within(ctx, func(ctx context.Context) (jetstream.Stream, error) { return b.js.Stream(ctx, spec.cfg.Name) })
		if errors.Is(err, jetstream.ErrStreamNotFound) {
			continue
		}
		if err != nil {
			return p, fmt.Errorf("look up stream %s: %w", spec.cfg.Name, err)
		}
		if c := s.CachedInfo().Cluster; c != nil && c.Leader == "" {
			return p, again{fmt.Errorf("stream %s has no leader", spec.cfg.Name)}
		}
		if spec.own && b.cfg.Provision {
			if s, err = b.repair(ctx, s, spec.cfg); err != nil {
				return p, err
			}
		}
		p.streams[spec.cfg.Name] = s
	}
	requests := p.streams[b.cfg.Names.Stream]
	if requests == nil {
		return p, nil
	}
	var err error
	if p.requests, p.consumer, err = b.lookConsumer(ctx, requests); err != nil {
		return p, fmt.Errorf("look up consumer %s: %w", b.cfg.Names.Consumer, err)
	}
	if p.consumer != nil && p.consumer.Cluster != nil && p.consumer.Cluster.Leader == "" {
		return p, again{fmt.Errorf("consumer %s has no leader", b.cfg.Names.Consumer)}
	}
	ours := 0
	if p.consumer != nil {
		ours = 1
	}
	if requests.CachedInfo().State.Consumers > ours {
		p.foreign = b.foreignConsumers(ctx, requests)
	}
	return p, nil
}

func (b *Broker) lookConsumer(ctx context.Context, s jetstream.Stream) (jetstream.Consumer, *jetstream.ConsumerInfo, error) {
	name := b.cfg.Names.Consumer
	c, err := within(ctx, func(ctx context.Context) (jetstream.Consumer, error) { return s.Consumer(ctx, name) })
	switch {
	case err == nil:
		return c, c.CachedInfo(), nil
	case errors.Is(err, jetstream.ErrConsumerNotFound):
		return nil, nil, nil
	case !errors.Is(err, jetstream.ErrNotPullConsumer):
		return nil, nil, err
	}
	push, err := within(ctx, func(ctx context.Context) (jetstream.PushConsumer, error) { return s.PushConsumer(ctx, name) })
	if err != nil {
		return nil, nil, err
	}
	return nil, push.CachedInfo(), nil
}

// repair gives a stream of the worker's own the settings that it relies on.
func (b *Broker) repair(ctx context.Context, s jetstream.Stream, want jetstream.StreamConfig) (jetstream.Stream, error) {
	cfg, changed := repaired(s.CachedInfo().Config, want)
	if !changed {
		return s, nil
	}
	b.log.Info("changing the settings of the worker's own stream", zap.String("stream", cfg.Name))
	s, err := within(ctx, func(ctx context.Context) (jetstream.Stream, error) { return b.js.UpdateStream(ctx, cfg) })
	if err != nil {
		return nil, fmt.Errorf("update stream %s: %w", cfg.Name, err)
	}
	return s, nil
}

// create creates what is missing. That something is there by now is no error:
// the next look judges it.
func (b *Broker) create(ctx context.Context, there present) error {
	for _, spec := range b.topology.streams() {
		if there.streams[spec.cfg.Name] != nil {
			continue
		}
		_, err := within(ctx, func(ctx context.Context) (jetstream.Stream, error) { return b.js.CreateStream(ctx, spec.cfg) })
		switch {
		case err == nil:
			b.log.Info("stream created", zap.String("stream", spec.cfg.Name))
		case errors.Is(err, jetstream.ErrStreamNameAlreadyInUse):
		case apiError(err).ErrorCode == codeSubjectOverlap:
			if err := b.overlap(ctx, spec); err != nil {
				return err
			}
		default:
			return fmt.Errorf("create stream %s: %w", spec.cfg.Name, err)
		}
	}
	if there.consumer != nil {
		return nil
	}
	return b.createConsumer(ctx)
}

func (b *Broker) createConsumer(ctx context.Context) error {
	n := b.cfg.Names
	_, err := within(ctx, func(ctx context.Context) (jetstream.Consumer, error) {
		return b.js.CreateConsumer(ctx, n.Stream, b.topology.consumer)
	})
	switch code := apiError(err).ErrorCode; {
	case err == nil:
		b.log.Info("consumer created", zap.String("consumer", n.Consumer))
		return nil
	case code == jetstream.JSErrCodeConsumerExists, code == jetstream.JSErrCodeConsumerAlreadyExists, code == jetstream.JSErrCodeConsumerNameExists:
		return nil
	case code == codeFilterNotUnique:
		return b.rival(ctx)
	case code == jetstream.JSErrCodeStreamNotFound: // the cluster has not told its leader yet
		return again{err}
	}
	return fmt.Errorf("create consumer %s: %w", n.Consumer, err)
}

func (b *Broker) bind(ctx context.Context, there present) (*found, error) {
	n := b.cfg.Names
	f := &found{
		requests:         there.requests,
		ledgerStream:     there.streams[b.topology.ledger.cfg.Name],
		ackWait:          ackWait(there.consumer.Config),
		resultsWindow:    there.streams[n.ResultsStream].CachedInfo().Config.Duplicates,
		deadletterWindow: there.streams[n.DeadletterStream].CachedInfo().Config.Duplicates,
		resultsMax:       there.streams[n.ResultsStream].CachedInfo().Config.MaxMsgSize,
		deadletterMax:    there.streams[n.DeadletterStream].CachedInfo().Config.MaxMsgSize,
		differences:      b.topology.differences(there),
	}
	for name, bucket := range map[string]*jetstream.KeyValue{LedgerBucket: &f.ledger, StateBucket: &f.state} {
		kv, err := within(ctx, func(ctx context.Context) (jetstream.KeyValue, error) { return b.js.KeyValue(ctx, name) })
		if err != nil {
			return nil, fmt.Errorf("open bucket %s: %w", name, err)
		}
		*bucket = kv
	}
	return f, nil
}

// ackWait is after how long without a sign of life the broker hands a message
// to another: BackOff, where it is set, takes the place of AckWait.
func ackWait(c jetstream.ConsumerConfig) time.Duration {
	wait := c.AckWait
	for _, d := range c.BackOff {
		wait = min(wait, d)
	}
	return wait
}

// OpenRequests provisions and returns the consumer: made anew if it was deleted under us.
func (b *Broker) OpenRequests(ctx context.Context) (jetstream.Consumer, error) {
	if err := b.Provision(ctx); err != nil {
		return nil, err
	}
	return b.Requests(), nil
}

// Requests is the shared consumer of the requests. This and what follows is nil
// or zero until Provision has succeeded.
func (b *Broker) Requests() jetstream.Consumer { return b.found.Load().requests }

// Ledger is the bucket LedgerBucket.
func (b *Broker) Ledger() jetstream.KeyValue { return b.found.Load().ledger }

// LedgerStream is the stream that LedgerBucket is.
func (b *Broker) LedgerStream() jetstream.Stream { return b.found.Load().ledgerStream }

// State is the bucket StateBucket.
func (b *Broker) State() jetstream.KeyValue { return b.found.Load().state }

// AckWait is the consumer's real one, BackOff considered.
func (b *Broker) AckWait() time.Duration { return b.found.Load().ackWait }

// ResultsWindow is for how long the stream of results really tells a repeated
// message id.
func (b *Broker) ResultsWindow() time.Duration { return b.found.Load().resultsWindow }

// DeadletterWindow is the same for the stream of dead letters.
func (b *Broker) DeadletterWindow() time.Duration { return b.found.Load().deadletterWindow }

// Differences are the settings that are not as they would be provisioned.
func (b *Broker) Differences() []string { return b.found.Load().differences }

// within bounds one call, so that an answer that got lost costs apiTimeout and
// not all the time that the caller has.
func within[T any](ctx context.Context, call func(context.Context) (T, error)) (T, error) {
	ctx, cancel := context.WithTimeout(ctx, apiTimeout)
	defer cancel()
	return call(ctx)
}
