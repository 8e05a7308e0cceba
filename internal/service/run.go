package service

import (
	"context"
	"errors"
	"fmt"
	"time"

	"go.uber.org/zap"

	"example.com/unrestrict-worker/internal/admin"
	"example.com/unrestrict-worker/internal/defender"
)

// Run runs the worker until ctx ends. It starts the admin server first, so that its page shows what the start waits for, then
// the broker, then the parts, and stops them in reverse order.
func (s *Service) Run(ctx context.Context) error {
	defer close(s.Ended)
	if err := s.listen(); err != nil {
		return err
	}
	// The admin server outlives everything else, so that a drain can be watched.
	adminCtx, stopAdmin := context.WithCancel(context.WithoutCancel(ctx))
	adminDone := make(chan error, 1)
	go func() { adminDone <- s.admin.Run(adminCtx) }()
	defer func() {
		stopAdmin()
		if err := <-adminDone; err != nil {
			s.Log.Warn("the admin server did not end cleanly", zap.Error(err))
		}
	}()

	s.tracing = NewTracing(s.lookup, s.Owner, s.Log)
	defer s.Close()
	if err := s.Open(ctx); err != nil {
		if ctx.Err() != nil {
			return nil // asked to stop while it waited for the broker: nothing was begun
		}
		return err
	}
	return s.Work(ctx)
}

// Work runs the parts until ctx ends or one of them fails. The consumer drains first, because it needs the others.
func (s *Service) Work(ctx context.Context) error {
	p, err := s.assemble(ctx)
	if err != nil {
		if ctx.Err() != nil {
			return nil
		}
		return err
	}
	defer p.close()
	serving, stop := context.WithCancel(context.WithoutCancel(ctx))
	background := s.serve(serving, p)
	defer func() { stop(); background.wait() }()

	consuming, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	go func() {
		select {
		case <-s.Broker.Lost():
			cancel(errors.New("the connection to the broker has ended for good"))
		case err := <-background.failed:
			cancel(err)
		case <-consuming.Done():
		}
	}()
	s.logSystem(p)
	err = p.Consumer.Run(consuming)
	if ctx.Err() == nil {
		return errors.Join(err, context.Cause(consuming))
	}
	s.Log.Info("stopped taking requests")
	return err
}

// logSystem logs which system this is, so that a lab is not taken for production.
func (s *Service) logSystem(p *parts) {
	n, at := s.Broker.Names(), s.site(p)
	s.Log.Info("taking requests", zap.String("subject", n.Subject), zap.String("broker", s.Broker.URL()), zap.String("account", at.Account),
		zap.Strings("streams", []string{n.Stream, n.ResultsStream, n.DeadletterStream, n.ControlStream}),
		zap.String("api", at.API), zap.String("tenant", at.Tenant), zap.String("mode", modeOf(p.dryRun)),
		zap.String("host", at.Host), zap.String("version", ThisBuild().Version), zap.Int("concurrency", s.Settings.Concurrency))
	if p.dryRun {
		s.Log.Warn("DRY RUN (WORKER_DRY_RUN): requests end with the outcome dryRun, and nothing is called; beside live replicas nothing is taken")
	}
	if !defender.IsMicrosoft(at.API) {
		s.Log.Warn(admin.LabText(at.API))
	}
}

// parallel is a set of background parts that run until one context ends.
type parallel struct {
	failed chan error
	ended  chan struct{}
	n      int
}

func runAll(ctx context.Context, parts map[string]func(context.Context) error) *parallel {
	p := &parallel{failed: make(chan error, len(parts)), ended: make(chan struct{}, len(parts)), n: len(parts)}
	for name, part := range parts {
		go func() {
			defer func() { p.ended <- struct{}{} }()
			if err := part(ctx); err != nil && ctx.Err() == nil {
				p.failed <- fmt.Errorf("%s: %w", name, err)
			}
		}()
	}
	return p
}

func (p *parallel) wait() {
	for range p.n {
		<-p.ended
	}
}

// CloseIn bounds the last steps of a shutdown.
const CloseIn = 5 * time.Second
