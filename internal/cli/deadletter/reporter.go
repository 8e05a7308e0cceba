package deadletter

import (
	"context"
	"fmt"

	"example.com/unrestrict-worker/internal/cli/session"
)

// Reporter prints what was done with the selected dead letters.
type Reporter struct {
	Env     *session.Env
	JSON    bool
	Done    string // "replayed"
	refused int
}

// Confirm prints what is about to happen and, on a terminal, asks.
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
	if err := session.Ask(ctx, s.Env); err != nil {
		return false, err
	}
	return true, nil
}

// report prints whether one was done; why is the reason if it was not, otherwise "".
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
		what = "not " + s.Done + ". " + session.Plain(why)
	} else if s.Done == "replayed" {
		what += fmt.Sprintf(", as run %d", l.Dead.Run+1)
	}
	_, err := fmt.Fprintf(s.Env.Stdout, "%d  %s  %s\n", l.Seq, session.Plain(l.Dead.RequestID), what)
	return err
}

// status returns err, or exit status 1 if something was not done.
func (s *Reporter) status(err error) error {
	if err == nil && s.refused > 0 {
		return session.ExitStatus(1)
	}
	return err
}
