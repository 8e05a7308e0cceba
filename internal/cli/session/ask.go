package session

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"example.com/unrestrict-worker/internal/config"
)

// Ask returns nil if the answer at the terminal is yes. The read can't be interrupted, and ends with the process.
func Ask(ctx context.Context, env *Env) error {
	fmt.Fprint(env.Stderr, "Go on? [y/N] ")
	answer := make(chan string, 1)
	go func() {
		text, _ := bufio.NewReader(env.Stdin).ReadString('\n') // a terminal gives a line at a time
		answer <- text
	}()
	select {
	case text := <-answer:
		if slices.Contains([]string{"y", "yes"}, strings.ToLower(strings.TrimSpace(text))) {
			return nil
		}
	case <-ctx.Done():
		fmt.Fprintln(env.Stderr)
	}
	return errors.New("nothing was done")
}

// RequireYes refuses what needs a confirmation if there is no terminal to ask at, unless --yes was given.
func RequireYes(env *Env, yes bool, what string) error {
	if yes || IsTerminalInput(env.Stdin) {
		return nil
	}
	return config.BadInput("%s: give --yes, because there is no terminal to ask on; nothing was done", what)
}
