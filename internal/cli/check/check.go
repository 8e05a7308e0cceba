// Package check is `worker check`, which tests the set-up step by step.
package check

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"example.com/unrestrict-worker/internal/cli/session"
	"example.com/unrestrict-worker/internal/config"
)

// Report is one run of `worker check`. It writes a line for each check, and below it what to do, if there is something
// to do.
type Report struct {
	Env    *session.Env
	Screen session.Screen
	failed int
	err    error // of writing
}

// Run checks the set-up step by step. It goes on after a failure; what can't be tried because of one is skipped.
func (c *Cmd) Run(ctx context.Context, env *session.Env) error {
	k := &Report{Env: env, Screen: session.NewScreen(env)}
	k.Configuration()
	conn := k.broker(ctx)
	if conn != nil {
		defer session.CloseAfterCommand(conn)
		k.streams(ctx, conn)
		k.permissions(ctx, conn)
		k.room(ctx, conn)
		k.workers(ctx, conn)
	}
	k.defender(ctx, conn)
	switch {
	case k.err != nil:
		return k.err
	case k.failed > 0:
		fmt.Fprintf(env.Stdout, "\n%s failed.\n", session.Count(k.failed, "check", "checks"))
		return session.ExitStatus(1)
	}
	_, err := fmt.Fprintln(env.Stdout, "\nAll checks passed.")
	return err
}

func (k *Report) ok(what, format string, args ...any) {
	k.line(session.Green, "ok", what, fmt.Sprintf(format, args...), "")
}

// warn reports something that may be intended.
func (k *Report) warn(what, text, do string) { k.line(session.Yellow, "warn", what, text, do) }

func (k *Report) fail(what, text, do string) {
	k.failed++
	k.line(session.Red, "FAIL", what, text, do)
}

// skip reports something that could not be tried because something else failed.
func (k *Report) skip(what, text string) { k.line(session.Yellow, "skip", what, text, "") }

func (k *Report) line(colour, verdict, what, text, do string) {
	b := k.Screen.Paint(colour, fmt.Sprintf("%-4s", verdict)) + "  " + what + ": " + printable(text) + "\n"
	if do != "" {
		b += "      do: " + printable(do) + "\n"
	}
	if _, err := fmt.Fprint(k.Screen.Out, b); k.err == nil {
		k.err = err
	}
}

// printable is session.Plain, with white space made single blanks.
func printable(s string) string { return strings.Join(strings.Fields(session.Plain(s)), " ") }

// mistaken reports whether a setting of one of the groups is wrong, and so has no value.
func (k *Report) mistaken(groups ...string) bool {
	return slices.ContainsFunc(k.Env.Mistakes, func(m config.Mistake) bool { return slices.Contains(groups, m.Group) })
}

// Configuration reports the mistakes in the settings.
func (k *Report) Configuration() {
	const what = "configuration"
	for _, m := range k.Env.Mistakes {
		text, do, found := strings.Cut(m.Text, ": ")
		if !found {
			text, do = m.Text, ""
		}
		k.fail(what, text, do)
	}
	for _, text := range k.Env.Unknown {
		k.warn(what, text, "unset it, or correct its name")
	}
	if len(k.Env.Mistakes) == 0 {
		k.ok(what, "every setting is well-formed")
	}
}

// brokerVariable returns the setting that has the broker's address.
func brokerVariable(s config.Settings) string {
	if len(s.NATS.URLs) > 0 {
		return "NATS_URL"
	}
	return "WORKER_EMBEDDED_ADDR"
}

// Cmd is `worker check`.
type Cmd struct{}
