package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
)

// sayer tells what becomes of the dead letters that something is done about.
type sayer struct {
	env     *Env
	json    bool
	done    string // "replayed"
	refused int
}

// before says what is about to happen and, on a terminal, asks.
func (s *sayer) before(ctx context.Context, yes bool, what string, n int) (bool, error) {
	out := s.env.Stdout
	if s.json {
		out = s.env.Stderr
	}
	if n == 0 {
		what = "No dead letter to be " + s.done + "."
	}
	if _, err := fmt.Fprintln(out, what); err != nil || n == 0 {
		return false, err
	}
	if yes || !isTerminalInput(s.env.Stdin) {
		return true, nil
	}
	if err := ask(ctx, s.env); err != nil {
		return false, err
	}
	return true, nil
}

// ask is nil when somebody at the terminal says yes. The read can't be interrupted, and ends with the process.
func ask(ctx context.Context, env *Env) error {
	fmt.Fprint(env.Stderr, "Go on? [y/N] ")
	answer := make(chan string, 1)
	go func() { answer <- readLine(env.Stdin) }()
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
func unasked(env *Env, yes bool, what string) error {
	if yes || isTerminalInput(env.Stdin) {
		return nil
	}
	return badInput("%s: say --yes, for nobody can be asked here; nothing was done", what)
}

// after says of one whether it was done, or why not; "": it was.
func (s *sayer) after(l letter, why string) error {
	if why != "" {
		s.refused++
	}
	if s.json {
		return writeJSONLine(s.env.Stdout, struct {
			Seq       uint64 `json:"seq"`
			RequestID string `json:"requestId"`
			Run       int    `json:"run"`
			Done      bool   `json:"done"`
			Reason    string `json:"reason,omitempty"`
		}{l.seq, l.dead.RequestID, l.dead.Run, why == "", why})
	}
	what := s.done
	if why != "" {
		what = "not " + s.done + ": " + plain(why)
	} else if s.done == "replayed" {
		what += fmt.Sprintf(", as run %d", l.dead.Run+1)
	}
	_, err := fmt.Fprintf(s.env.Stdout, "%d  %s  %s\n", l.seq, plain(l.dead.RequestID), what)
	return err
}

// advice is what can be done about a dead letter.
func (l letter) advice() string {
	if l.stuck != "" {
		return "it can't be replayed: " + l.stuck
	}
	return "worker deadletter replay carries it out again"
}

// failed is err, else exit status 1 if something was not done.
func (s *sayer) failed(err error) error {
	if err == nil && s.refused > 0 {
		return ExitStatus(1)
	}
	return err
}

// readLine reads to the line's end and no further: what comes then is not ours.
func readLine(r io.Reader) string {
	var line []byte
	for b := make([]byte, 1); ; {
		n, err := r.Read(b)
		if n > 0 && b[0] != '\n' {
			line = append(line, b[0])
		}
		if err != nil || n > 0 && b[0] == '\n' {
			return string(line)
		}
	}
}
