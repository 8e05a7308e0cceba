package main

import (
	"context"
	"time"

	"go.uber.org/zap"
)

// RunCmd is `worker run`.
type RunCmd struct{}

// Run runs the service until the context ends. A clean drain is nil; ErrUnfinished calls and everything fatal are errors.
func (c *RunCmd) Run(ctx context.Context, env *Env) error {
	log, level := env.Logger()
	defer func() { _ = log.Sync() }()
	for _, what := range env.Unknown {
		log.Warn(what)
	}
	w, err := newService(env.Settings, env.Lookup, log, level)
	if err != nil {
		return err
	}
	manager, err := supervise(w)
	if err != nil {
		return err
	}
	told := make(chan struct{})
	go func() { defer close(told); manager.run(ctx, w.ended, log) }()
	err = w.run(ctx)
	select {
	case <-told:
	case <-time.After(time.Second): // a manager that doesn't read what it is sent must not hold up the end
	}
	if err != nil {
		log.Error("the worker ends", zap.Error(err))
		return ExitStatus(1)
	}
	return nil
}
