package deadletter

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"example.com/unrestrict-worker/internal/cli/session"
	"example.com/unrestrict-worker/internal/config"
)

// Reporter prints what becomes of the selected dead letters.
type Reporter struct {
	Env     *session.Env
	JSON    bool
	Done    string // "replayed"
	refused int
}

// Confirm says what is about to happen and, on a terminal, asks.
func (s *Reporter) Confirm(ctx context.Context, yes bool, what string, n int) (bool, error) {
	out := s.Env.Stdout
	if s.JSON {
		out = s.Env.Stderr
	}
	if n == 0 {
		what = "No dead letter to be " + s.Done + "."
	}
	if _, err := fmt.Fprintln(out, what); err != nil || n == 0 {
		return false, err
	}
	if yes || !session.IsTerminalInput(s.Env.Stdin) {
		return true, nil
	}
	if err := Ask(ctx, s.Env); err != nil {
		return false, err
	}
	return true, nil
}

// Ask is nil when somebody at the terminal says yes. The read can't be interrupted, and ends with the process.
func Ask(ctx context.Context, env *session.Env) error {
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

// unasked refuses what must be asked about where nobody can be asked.
func unasked(env *session.Env, yes bool, what string) error {
	if yes || session.IsTerminalInput(env.Stdin) {
		return nil
	}
	return config.BadInput("%s: say --yes, for nobody can be asked here; nothing was done", what)
}

// report says of one whether it was done, or why not; "": it was.
func (s *Reporter) report(l Letter, why string) error {
	if why != "" {
		s.refused++
	}
	if s.JSON {
		return session.WriteJSONLine(s.Env.Stdout, struct {
			Seq       uint64 `json:"seq"`
			RequestID string `json:"requestId"`
			Run       int    `json:"run"`
			Done      bool   `json:"done"`
			Reason    string `json:"reason,omitempty"`
		}{l.Seq, l.Dead.RequestID, l.Dead.Run, why == "", why})
	}
	what := s.Done
	if why != "" {
		what = "not " + s.Done + ": " + session.Plain(why)
	} else if s.Done == "replayed" {
		what += fmt.Sprintf(", as run %d", l.Dead.Run+1)
	}
	_, err := fmt.Fprintf(s.Env.Stdout, "%d  %s  %s\n", l.Seq, session.Plain(l.Dead.RequestID), what)
	return err
}

// Advice is what can be done about a dead letter.
func (l Letter) Advice() string {
	if l.stuck != "" {
		return "it can't be replayed: " + l.stuck
	}
	return "worker deadletter replay carries it out again"
}

// status is err, else exit status 1 if something was not done.
func (s *Reporter) status(err error) error {
	if err == nil && s.refused > 0 {
		return session.ExitStatus(1)
	}
	return err
}
