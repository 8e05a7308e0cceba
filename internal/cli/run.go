package cli

import (
	"context"
	"time"

	"go.uber.org/zap"

	"example.com/unrestrict-worker/internal/cli/session"
	"example.com/unrestrict-worker/internal/cli/why"
	"example.com/unrestrict-worker/internal/service"
)

// RunCmd is `worker run`.
type RunCmd struct{}

// Run runs the service until the context ends. A clean drain is nil; ErrUnfinished calls and everything fatal are errors.
func (c *RunCmd) Run(ctx context.Context, env *session.Env) error {
	log, level := env.Logger()
	defer func() { _ = log.Sync() }()
	for _, what := range env.Unknown {
		log.Warn(what)
	}
	w, err := service.New(env.Settings, env.Lookup, log, level)
	if err != nil {
		return err
	}
	w.Explain = why.Stories
	manager, err := service.Supervise(w)
	if err != nil {
		return err
	}
	notified := make(chan struct{})
	go func() { defer close(notified); manager.Run(ctx, w.Ended, log) }()
	err = w.Run(ctx)
	select {
	case <-notified:
	case <-time.After(time.Second): // a manager that doesn't read what it is sent must not hold up the exit
	}
	if err != nil {
		log.Error("the worker ends", zap.Error(err))
		return session.ExitStatus(1)
	}
	return nil
}
