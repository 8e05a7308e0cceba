package broker

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"github.com/nats-io/nats.go/jetstream"
	"go.uber.org/zap"
	"golang.org/x/sync/errgroup"

	"example.com/unrestrict-worker/internal/message"
)

// Provision creates what is missing and checks what exists. It is idempotent, any
// number of replicas may run it at once, and it alters only what is the worker's
// own. It retries temporary faults of the broker until ctx ends. It fails if a
// person must act: with *MissingError, *UnfitError, *DeniedError, or the broker's
// own error with what to do about it.
func (b *Broker) Provision(ctx context.Context) error {
	return b.persist(ctx, "provision streams and consumer", func(ctx context.Context) error {
		f, err := b.provisionOnce(ctx)
		if err != nil {
			return err
		}
		if len(f.differences) > 0 {
			b.log.Warn("settings differ from what would be provisioned; they are left as they are", zap.Strings("differences", f.differences))
		}
		return nil
	})
}

// provisionOnce provisions without retrying, one caller at a time.
func (b *Broker) provisionOnce(ctx context.Context) (f *found, err error) {
	b.provisioning.Lock()
	defer b.provisioning.Unlock()
	err = b.untilDenied(ctx, func(ctx context.Context) (err error) {
		f, err = b.provision(ctx)
		return explain(err)
	})
	return f, err
}

// provision inspects, creates what is missing and inspects again, because another
// replica may have created meanwhile what this one could not.
func (b *Broker) provision(ctx context.Context) (*found, error) {
	for range 3 {
		existing, err := b.look(ctx)
		if err != nil {
			return nil, err
		}
		missing := b.topology.missing(existing)
		if !b.cfg.Provision {
			windows, err := b.missingWindows(ctx)
			if err != nil {
				return nil, err
			}
			missing = append(missing, windows...)
		}
		var errs []error
		if unfit := b.topology.unfit(existing); len(unfit) > 0 {
			errs = append(errs, &UnfitError{Reasons: unfit})
		}
		if len(missing) > 0 && !b.cfg.Provision {
			errs = append(errs, &MissingError{Missing: missing})
		}
		if len(errs) > 0 {
			return nil, errors.Join(errs...)
		}
		if len(missing) == 0 {
			return b.bind(ctx, existing)
		}
		if err := b.create(ctx, existing); err != nil {
			return nil, err
		}
	}
	return nil, retryable{errors.New("what was created can't be found yet")}
}

// inventory is what an inspection of the broker found; nil: missing.
type inventory struct {
	streams   map[string]jetstream.Stream
	consumers map[message.Lane]*jetstream.ConsumerInfo
	requests  map[message.Lane]jetstream.Consumer // nil for a push consumer, which is unfit
	foreign   []string                            // consumers of the request stream that are not ours
}

func (b *Broker) look(ctx context.Context) (inventory, error) {
	p := inventory{streams: map[string]jetstream.Stream{}, consumers: map[message.Lane]*jetstream.ConsumerInfo{}, requests: map[message.Lane]jetstream.Consumer{}}
	specs := b.topology.streams()
	streams, errs := make([]jetstream.Stream, len(specs)), make([]error, len(specs))
	var lookups sync.WaitGroup
	for i, spec := range specs { // concurrently: an idle worker does this every few seconds
		lookups.Go(func() {
			streams[i], errs[i] = within(ctx, func(ctx context.Context) (jetstream.Stream, error) { return b.js.Stream(ctx, spec.cfg.Name) })
		})
	}
	lookups.Wait()
	for i, spec := range specs {
		s, err := streams[i], errs[i]
		if errors.Is(err, jetstream.ErrStreamNotFound) {
			continue
		}
		if err != nil {
			return p, fmt.Errorf("look up stream %s: %w", spec.cfg.Name, err)
		}
		if c := s.CachedInfo().Cluster; c != nil && c.Leader == "" {
			return p, retryable{fmt.Errorf("stream %s has no leader", spec.cfg.Name)}
		}
		if spec.own && b.cfg.Provision {
			if s, err = b.repair(ctx, s, spec.cfg); err != nil {
				return p, err
			}
		}
		if spec.cfg.Name == b.cfg.Names.Stream && b.cfg.Provision {
			if s, err = b.extend(ctx, s); err != nil {
				return p, err
			}
		}
		p.streams[spec.cfg.Name] = s
	}
	return p, b.lookConsumers(ctx, &p)
}

// lookConsumers looks up the consumers of the lanes that the request stream carries.
func (b *Broker) lookConsumers(ctx context.Context, p *inventory) error {
	requests := p.streams[b.cfg.Names.Stream]
	if requests == nil {
		return nil
	}
	var mu sync.Mutex
	var g errgroup.Group // concurrently, as above
	for _, l := range b.topology.lanes(*p) {
		g.Go(func() error {
			name := b.cfg.Names.LaneConsumer(l)
			pull, info, err := b.lookConsumer(ctx, requests, name)
			switch {
			case err != nil:
				return fmt.Errorf("look up consumer %s: %w", name, err)
			case info == nil:
				return nil
			case info.Cluster != nil && info.Cluster.Leader == "":
				return retryable{fmt.Errorf("consumer %s has no leader", name)}
			}
			mu.Lock()
			defer mu.Unlock()
			p.requests[l], p.consumers[l] = pull, info
			return nil
		})
	}
	if err := g.Wait(); err != nil {
		return err
	}
	if requests.CachedInfo().State.Consumers > len(p.consumers) {
		p.foreign = b.foreignConsumers(ctx, requests)
	}
	return nil
}

func (b *Broker) lookConsumer(ctx context.Context, s jetstream.Stream, name string) (jetstream.Consumer, *jetstream.ConsumerInfo, error) {
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

// repair restores the settings that the worker relies on in one of its own streams.
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

// create creates what is missing. If something exists by now, that is no error:
// the next inspection checks it.
func (b *Broker) create(ctx context.Context, existing inventory) error {
	for _, spec := range b.topology.streams() {
		if existing.streams[spec.cfg.Name] == nil {
			if err := b.createStream(ctx, spec); err != nil {
				return err
			}
		}
	}
	for _, l := range b.topology.lanes(existing) {
		if existing.consumers[l] == nil {
			if err := b.createConsumer(ctx, b.topology.consumers[l]); err != nil {
				return err
			}
		}
	}
	return nil
}

func (b *Broker) createStream(ctx context.Context, spec streamSpec) error {
	cfg := spec.cfg
	if cfg.Name == b.cfg.Names.Stream {
		cfg = marked(cfg)
	}
	_, err := within(ctx, func(ctx context.Context) (jetstream.Stream, error) { return b.js.CreateStream(ctx, cfg) })
	switch {
	case err == nil:
		b.log.Info("stream created", zap.String("stream", spec.cfg.Name))
	case errors.Is(err, jetstream.ErrStreamNameAlreadyInUse):
	case apiError(err).ErrorCode == codeSubjectOverlap:
		return b.overlap(ctx, spec)
	default:
		return fmt.Errorf("create stream %s: %w", spec.cfg.Name, err)
	}
	return nil
}

func (b *Broker) createConsumer(ctx context.Context, cfg jetstream.ConsumerConfig) error {
	_, err := within(ctx, func(ctx context.Context) (jetstream.Consumer, error) {
		return b.js.CreateConsumer(ctx, b.cfg.Names.Stream, cfg)
	})
	switch code := apiError(err).ErrorCode; {
	case err == nil:
		b.log.Info("consumer created", zap.String("consumer", cfg.Durable))
		return nil
	case code == jetstream.JSErrCodeConsumerExists, code == jetstream.JSErrCodeConsumerAlreadyExists, code == jetstream.JSErrCodeConsumerNameExists:
		return nil
	case code == codeFilterNotUnique:
		return b.rival(ctx, cfg)
	case code == jetstream.JSErrCodeStreamNotFound: // the cluster's leader does not know the new stream yet
		return retryable{err}
	}
	return fmt.Errorf("create consumer %s: %w", cfg.Durable, err)
}
