package broker

import (
	"context"
	"errors"
	"fmt"
	"time"

	"go.uber.org/zap"

	"example.com/unrestrict-worker/internal/broker/stream"
	"example.com/unrestrict-worker/internal/health"
	"example.com/unrestrict-worker/internal/ledger"
)

// Hold runs do whenever this replica holds the named lease, until ctx ends. Only one replica holds it at a time, except in the
// seconds in which a frozen replica does not know that it has lost the lease. do must do no harm then.
func (r *Replicas) Hold(ctx context.Context, name string, do func(ctx context.Context) error) error {
	for {
		revision, err := r.acquire(ctx, r.keys.lease+name)
		r.tried(err)
		if revision > 0 {
			if err := r.held(ctx, r.keys.lease+name, revision, do); err != nil && ctx.Err() == nil {
				r.log.Warn("what the lease is for was interrupted", zap.String("lease", name), zap.Error(err))
				_ = wait(ctx, 2*leaseRenew) // give another replica the chance to take over
			}
		}
		if Tick(ctx, leaseRenew/2) != nil {
			return nil
		}
	}
}

// acquire takes the lease if it is free, and returns its revision; 0: another replica has it. A lease that has outlived
// its TTL counts as free: it was written by hand, or the broker does not expire keys.
func (r *Replicas) acquire(ctx context.Context, key string) (revision uint64, err error) {
	rec, err := r.state.Load(ctx, key)
	if err != nil {
		return 0, err
	}
	if rec.Value != nil && r.Now().Sub(rec.Written) < leaseTTL+leaseRenew {
		return 0, nil
	}
	revision, err = r.state.Save(ctx, ledger.Write{Key: key, Value: r.leaseValue(), Revision: rec.Revision, TTL: leaseTTL})
	if errors.Is(err, ledger.ErrConflict) {
		return 0, nil
	}
	return revision, err
}

// tried records an attempt: without an error, this replica or another one has the lease.
func (r *Replicas) tried(err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	switch {
	case err == nil:
		r.unleased = time.Time{}
	case r.unleased.IsZero():
		r.unleased = time.Now()
	}
	r.noLease = r.withDenial(err)
}

// LeaseFault is the condition of a replica that can neither take a lease nor read that another one has it.
func (r *Replicas) LeaseFault() (c health.Condition, is bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.unleased.IsZero() || time.Since(r.unleased) < outAfter {
		return c, false
	}
	c = health.New(health.NotFollowing, fmt.Sprintf("it is not known whether any replica follows accepted actions: the lease in %s can't be taken: %v", StateBucket, r.noLease))
	c.Since = r.unleased.UTC()
	return c, true
}

// leaseValue is unique for each write, as Save requires.
func (r *Replicas) leaseValue() []byte {
	return fmt.Appendf(nil, `{"holder":%q,"at":%q}`, r.id, time.Now().UTC().Format(time.RFC3339Nano))
}

// held runs do and renews the lease, until do returns or the lease is lost.
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
			_ = r.state.Remove(last, key, revision) // if that fails, the lease expires
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
