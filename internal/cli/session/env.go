// Package session is what the commands share: their environment, the connection to the broker, and output.
package session

import (
	"fmt"
	"io"

	"go.uber.org/zap"

	"example.com/unrestrict-worker/internal/config"
	"example.com/unrestrict-worker/internal/service"
)

// Env is what a command may use of the world around it. Every command has a
// method Run(ctx context.Context, env *Env) error; the context ends at the
// first SIGINT or SIGTERM. A nil error is exit status 0, an ExitStatus that
// status, config.BadInput 2 and any other error 1.
type Env struct {
	Stdin          io.Reader
	Stdout, Stderr io.Writer
	Lookup         func(variable string) (string, bool) // of the environment

	// Settings are the merged settings, without mistakes in those that the
	// command uses; zero for a command that uses none.
	Settings config.Settings
	// Mistakes is for check alone, the one command that runs with any. What
	// they name has no value in Settings.
	Mistakes []config.Mistake
	// Unknown names the variables that look like settings and are none. Run prints them
	// for every command but those tagged saysunknown, which report them themselves.
	Unknown []string
}

// Logger makes the logger that the settings ask for, on Stderr.
func (e *Env) Logger() (*zap.Logger, zap.AtomicLevel) {
	log, level := service.NewLogger(e.Settings.Log, e.Stderr)
	if e.Settings.Tenant != "" {
		log = log.With(zap.String("tenant", e.Settings.Tenant))
	}
	return log, level
}

// ExitStatus is an error that only sets the exit status: the command has
// already printed what is wrong.
type ExitStatus int

// Error is never shown.
func (s ExitStatus) Error() string { return fmt.Sprintf("exit status %d", int(s)) }
