package main

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"example.com/unrestrict-worker/internal/config"
)

// checkup is one run of `worker check`. It writes a line for each thing looked at, and what to do about it below,
// where something is to be done.
type checkup struct {
	env    *Env
	screen screen
	failed int
	err    error // of writing
}

// Run proves the set-up step by step. It stops at no failure; what can't be tried because of one is skipped.
func (c *CheckCmd) Run(ctx context.Context, env *Env) error {
	k := &checkup{env: env, screen: newScreen(env)}
	k.configuration()
	conn := k.broker(ctx)
	if conn != nil {
		defer closeAfterCommand(conn)
		k.streams(ctx, conn)
		k.permissions(ctx, conn)
	}
	k.defender(ctx, conn)
	switch {
	case k.err != nil:
		return k.err
	case k.failed > 0:
		fmt.Fprintf(env.Stdout, "\n%s failed.\n", count(k.failed, "check", "checks"))
		return ExitStatus(1)
	}
	_, err := fmt.Fprintln(env.Stdout, "\nAll checks passed.")
	return err
}

func (k *checkup) ok(what, format string, args ...any) {
	k.line(green, "ok", what, fmt.Sprintf(format, args...), "")
}

// warn is something that need not be wrong.
func (k *checkup) warn(what, text, do string) { k.line(yellow, "warn", what, text, do) }

func (k *checkup) fail(what, text, do string) {
	k.failed++
	k.line(red, "FAIL", what, text, do)
}

// skip is something that could not be tried because something else failed.
func (k *checkup) skip(what, text string) { k.line(yellow, "skip", what, text, "") }

func (k *checkup) line(colour, verdict, what, text, do string) {
	b := k.screen.paint(colour, fmt.Sprintf("%-4s", verdict)) + "  " + what + ": " + printable(text) + "\n"
	if do != "" {
		b += "      do: " + printable(do) + "\n"
	}
	if _, err := fmt.Fprint(k.screen.out, b); k.err == nil {
		k.err = err
	}
}

// printable is plain on one line.
func printable(s string) string { return strings.Join(strings.Fields(plain(s)), " ") }

// mistaken tells whether a setting of one of the groups has no value.
func (k *checkup) mistaken(groups ...string) bool {
	return slices.ContainsFunc(k.env.Mistakes, func(m config.Mistake) bool { return slices.Contains(groups, m.Group) })
}

func (k *checkup) configuration() {
	const what = "configuration"
	for _, m := range k.env.Mistakes {
		said, do, found := strings.Cut(m.Text, ": ")
		if !found {
			said, do = m.Text, ""
		}
		k.fail(what, said, do)
	}
	for _, said := range k.env.Unknown {
		k.warn(what, said, "unset it, or correct its name")
	}
	if len(k.env.Mistakes) == 0 {
		k.ok(what, "every setting is well-formed")
	}
}

// brokerVariable is the setting that says where the broker is.
func brokerVariable(s config.Settings) string {
	if len(s.NATS.URLs) > 0 {
		return "NATS_URL"
	}
	return "WORKER_EMBEDDED_ADDR"
}
