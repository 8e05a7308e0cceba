// Command worker lifts app execution restrictions: it takes requests from NATS
// JetStream, calls the Microsoft Defender API, follows the machine actions to
// their end and publishes the results. It reads the configuration, wires the
// parts and runs one subcommand.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"reflect"
	"runtime"
	"strings"
	"syscall"
	"time"

	"github.com/alecthomas/kong"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // a second signal ends the process at once
	os.Exit(run(ctx, os.Args[1:], os.Environ(), os.Stdin, os.Stdout, os.Stderr))
}

// run runs one command and returns the exit status: 0, 1 for a failure, 2 for
// bad input or configuration.
func run(ctx context.Context, args, environ []string, stdin io.Reader, stdout, stderr io.Writer) int {
	declared := &cli{}
	parser, err := newParser(declared, stdout, stderr)
	if err != nil {
		return exitStatus(stderr, err)
	}
	if len(args) == 0 {
		return exitStatus(stderr, printOverview(parser))
	}
	parsed, err := parser.Parse(args)
	if err != nil {
		if errors.Is(err, errShown) {
			return 0
		}
		return exitStatus(stderr, badInput("%w\n%s", err, hint(err)))
	}
	env := &Env{Stdin: stdin, Stdout: stdout, Stderr: stderr, Lookup: lookupIn(environ), App: parser.Model}
	command := parsed.Selected()
	if groups := groupsOf(command, parser.Model); len(groups) > 0 {
		env.Settings, env.Mistakes = loadSettings(parser.Model, declared, givenFlags(parsed), groups, env.Lookup)
		slips, unknown := misspelt(environ, settingsOf(parser.Model))
		env.Mistakes = append(env.Mistakes, of(groups, slips)...)
		env.Unknown = unknown
	}
	if len(env.Mistakes) > 0 && !command.Tag.Has("withmistakes") {
		return exitStatus(stderr, badConfiguration(env.Mistakes))
	}
	if !command.Tag.Has("saysunknown") {
		for _, what := range env.Unknown {
			fmt.Fprintln(stderr, "worker: "+what)
		}
	}
	parsed.BindTo(ctx, (*context.Context)(nil))
	return exitStatus(stderr, parsed.Run(env))
}

// lookupIn is os.LookupEnv for an environment: of a name that is there twice the first counts.
func lookupIn(environ []string) func(string) (string, bool) {
	return func(name string) (string, bool) {
		for _, variable := range environ {
			given, value, _ := strings.Cut(variable, "=")
			if given == name || runtime.GOOS == "windows" && strings.EqualFold(given, name) {
				return value, true
			}
		}
		return "", false
	}
}

// newParser builds the command table. Kong reads nothing but the command line:
// environment and file are merged by resolve, in the contract's order.
func newParser(declared *cli, stdout, stderr io.Writer) (*kong.Kong, error) {
	parser, err := kong.New(declared,
		kong.Name("worker"),
		kong.Description("Lifts app execution restrictions with Microsoft Defender, on requests from NATS JetStream.\n\nTo see it work with nothing set up: worker demo"),
		kong.NoDefaultHelp(),
		kong.Help(printHelp),
		kong.Writers(stdout, stderr),
		kong.NamedMapper("toggle", toggleMapper{}),
		kong.NamedMapper("secret", secretMapper{}),
		kong.TypeMapper(reflect.TypeFor[time.Duration](), durationMapper{}),
		settingGroups(),
	)
	if err != nil {
		return nil, fmt.Errorf("command table: %w", err)
	}
	for _, s := range settingsOf(parser.Model) {
		s.flag.Tag.Envs = nil
		s.flag.Hidden = true // from kong's own help; printHelp shows those that matter
	}
	return parser, nil
}

// givenFlags are the flags on the command line.
func givenFlags(parsed *kong.Context) map[*kong.Flag]bool {
	given := map[*kong.Flag]bool{}
	for _, path := range parsed.Path {
		if path.Flag != nil {
			given[path.Flag] = true
		}
	}
	return given
}

// toggleMapper reads a setting that is true or false: the flag alone means
// true; what --flag=TEXT says is checked later, with all the other settings.
type toggleMapper struct{}

// Decode is called by kong.
func (toggleMapper) Decode(ctx *kong.DecodeContext, target reflect.Value) error {
	text := "true"
	if ctx.Scan.Peek().Type == kong.FlagValueToken {
		text = ctx.Scan.Pop().String()
	}
	target.SetString(text)
	return nil
}

// IsBool is called by kong.
func (toggleMapper) IsBool() bool { return true }

// secretMapper refuses secrets on the command line, which others can read.
type secretMapper struct{}

// Decode is called by kong.
func (secretMapper) Decode(ctx *kong.DecodeContext, _ reflect.Value) error {
	env := ctx.Value.Flag.Envs[0]
	return fmt.Errorf("others on this machine could read it on the command line; use %s or %s_FILE", env, env)
}

// exitStatus writes the error, if there is one to write, and returns the
// status to exit with.
func exitStatus(stderr io.Writer, err error) int {
	if err == nil {
		return 0
	}
	if status, ok := errors.AsType[ExitStatus](err); ok {
		return int(status)
	}
	fmt.Fprintln(stderr, "worker: "+plainLines(strings.TrimSpace(err.Error())))
	if _, ok := errors.AsType[*inputError](err); ok {
		return 2
	}
	return 1
}
