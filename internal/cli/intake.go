package cli

import (
	"context"

	"go.uber.org/zap"

	"example.com/unrestrict-worker/internal/cli/session"
	"example.com/unrestrict-worker/internal/intake"
)

// IntakeCmd is `worker intake`.
type IntakeCmd struct{}

// Run serves until the context ends. A clean end is nil; everything fatal is an error.
func (c *IntakeCmd) Run(ctx context.Context, env *session.Env) error {
	log, _ := env.Logger()
	defer func() { _ = log.Sync() }()
	for _, what := range env.Unknown {
		log.Warn(what)
	}
	s, err := intake.New(env.Settings, log)
	if err != nil {
		return err
	}
	if _, err := s.Listen(); err != nil {
		return err
	}
	if err := s.Run(ctx); err != nil {
		log.Error("the intake ends", zap.Error(err))
		return session.ExitStatus(1)
	}
	return nil
}
