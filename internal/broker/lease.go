package broker

import (
	"context"
	"errors"
	"fmt"
	"time"

	"go.uber.org/zap"

	"example.com/unrestrict-worker/internal/broker/stream"
	"example.com/unrestrict-worker/internal/ledger"
)

// Hold runs do while this replica holds the named lease, again and again until ctx ends. Of all replicas one at a time
// holds it, but for the seconds in which a frozen one doesn't know that it lost it: do must do no harm then.
func (r *Replicas) Hold(ctx context.Context, name string, do func(ctx context.Context) error) error {
	for {
		if revision, ok := r.acquire(ctx, r.keys.lease+name); ok {
			if err := r.held(ctx, r.keys.lease+name, revision, do); err != nil && ctx.Err() == nil {
				r.log.Warn("what the lease is for was interrupted", zap.String("lease", name), zap.Error(err))
			}
		}
		if Tick(ctx, leaseRenew/2) != nil {
			return nil
		}
	}
}

func (r *Replicas) acquire(ctx context.Context, key string) (revision uint64, ok bool) {
	rec, err := r.state.Load(ctx, key)
	if err != nil || rec.Value != nil {
		return 0, false
	}
	revision, err = r.state.Save(ctx, ledger.Write{Key: key, Value: r.leaseValue(), Revision: rec.Revision, TTL: leaseTTL})
	return revision, err == nil
}

// leaseValue is unlike any other write's, as Save wants it.
func (r *Replicas) leaseValue() []byte {
	return fmt.Appendf(nil, `{"holder":%q,"at":%q}`, r.id, time.Now().UTC().Format(time.RFC3339Nano))
}

// held runs do and renews the lease until one of them ends.
func (r *Replicas) held(ctx context.Context, key string, revision uint64, do func(ctx context.Context) error) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	done := make(chan error, 1)
	go func() { done <- do(ctx) }()
	renewed := time.Now()
	for {
		select {
		case err := <-done:
			last, stop := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
			defer stop()
			_ = r.state.Remove(last, key, revision) // lost: it expires
			return err
		case <-time.After(stream.UntilTick(leaseRenew)):
		}
		next, err := r.state.Save(ctx, ledger.Write{Key: key, Value: r.leaseValue(), Revision: revision, TTL: leaseTTL})
		switch {
		case err == nil:
			revision, renewed = next, time.Now()
		case errors.Is(err, ledger.ErrConflict), time.Since(renewed) > leaseTTL-leaseRenew:
			cancel()
			return errors.Join(<-done, fmt.Errorf("the lease was lost: %w", err))
		}
	}
}
