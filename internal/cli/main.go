// Package cli is the program's commands: what is typed, what settings each uses, and what it prints.
package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"runtime/debug"
	"strings"
	"syscall"

	"example.com/unrestrict-worker/internal/broker"
	"example.com/unrestrict-worker/internal/cli/session"
	"example.com/unrestrict-worker/internal/config"
)

// gcPercent lets the garbage collector run half as often, unless GOGC or GOMEMLIMIT is set. That takes a twelfth off the CPU under
// load, and adds a megabyte at rest.
const gcPercent = 200

// Main runs the command line of this process, and ends it.
func Main() {
	if os.Getenv("GOGC") == "" && os.Getenv("GOMEMLIMIT") == "" {
		debug.SetGCPercent(gcPercent)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // a second signal ends the process at once
	os.Exit(Run(ctx, os.Args[1:], os.Environ(), os.Stdin, os.Stdout, os.Stderr))
}

// Run runs one command and returns the exit status: 0, 1 for a failure, 2 for
// bad input or configuration.
func Run(ctx context.Context, args, environ []string, stdin io.Reader, stdout, stderr io.Writer) int {
	line, err := newCommandLine(stdout, stderr)
	if err != nil {
		return exitStatus(stderr, err)
	}
	if len(args) == 0 {
		return exitStatus(stderr, line.printOverview())
	}
	parsed, err := line.Parse(args)
	if err != nil {
		if errors.Is(err, errShown) {
			return 0
		}
		return exitStatus(stderr, mistyped(err))
	}
	env := &session.Env{Stdin: stdin, Stdout: stdout, Stderr: stderr, Lookup: config.Lookup(environ)}
	command := parsed.Selected()
	if groups := groupsOf(command); len(groups) > 0 {
		env.Settings, env.Mistakes, env.Unknown = line.load(groups, environ)
	}
	if len(env.Mistakes) > 0 && !command.Tag.Has("withmistakes") {
		return exitStatus(stderr, config.BadConfiguration(env.Mistakes))
	}
	if !command.Tag.Has("saysunknown") {
		for _, what := range env.Unknown {
			fmt.Fprintln(stderr, "worker: "+what)
		}
	}
	parsed.BindTo(ctx, (*context.Context)(nil))
	return exitStatus(stderr, parsed.Run(env, line))
}

// exitStatus writes the error, if there is one to write, and returns the
// status to exit with.
func exitStatus(stderr io.Writer, err error) int {
	if err == nil {
		return 0
	}
	if status, ok := errors.AsType[session.ExitStatus](err); ok {
		return int(status)
	}
	fmt.Fprintln(stderr, "worker: "+session.PlainLines(strings.TrimSpace(broker.Advise(err).Error())))
	if _, ok := errors.AsType[*config.InputError](err); ok {
		return 2
	}
	return 1
}
