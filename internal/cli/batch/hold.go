package batch

import (
	"context"
	"fmt"
	"time"

	"example.com/unrestrict-worker/internal/cli/orders"
	"example.com/unrestrict-worker/internal/cli/session"
	"example.com/unrestrict-worker/internal/message"
	"example.com/unrestrict-worker/internal/service"
)

// PauseCmd is `worker batch pause`.
type PauseCmd struct {
	Name string `arg:"" help:"The batch."`
	orders.By
}

// ResumeCmd is `worker batch resume`.
type ResumeCmd struct {
	Name string `arg:"" help:"The batch."`
	orders.By
}

// Run holds the batch back.
func (c *PauseCmd) Run(ctx context.Context, env *session.Env) error {
	return give(ctx, env, c.By, message.VerbPause, c.Name, "is paused: its rows that were not called wait, later ones too. `worker batch resume` lets them go on.")
}

// Run lets the batch go on.
func (c *ResumeCmd) Run(ctx context.Context, env *session.Env) error {
	return give(ctx, env, c.By, message.VerbResume, c.Name, "goes on, within a minute.")
}

// recordedWithin is how long a command waits until a worker has recorded an order.
const recordedWithin = 6 * time.Second

// give gives an order about a batch. It does so for an unknown batch too, because rows may come later.
func give(ctx context.Context, env *session.Env, by orders.By, verb, name, done string) error {
	conn, err := session.DialForCommand(ctx, env)
	if err != nil {
		return err
	}
	defer session.CloseAfterCommand(conn)
	issuer, err := orders.NewIssuer(conn, by)
	if err != nil {
		return err
	}
	rows, err := orders.CountRows(ctx, conn, name, "")
	if err != nil {
		return err
	}
	ref, err := issuer.Issue(ctx, message.Order{Verb: verb, Batch: name})
	if err != nil {
		return err
	}
	for deadline := time.Now().Add(recordedWithin); time.Now().Before(deadline); {
		r, recorded := issuer.Recorded(ctx, map[string]bool{ref: true})[ref]
		if recorded && r.Error != nil {
			return fmt.Errorf("refused: %s", session.Plain(r.Error.Message))
		}
		if recorded {
			break
		}
		if !service.Pause(ctx, 500*time.Millisecond) {
			return context.Cause(ctx)
		}
	}
	if rows.All() == 0 {
		fmt.Fprintf(env.Stdout, "No row of the batch %s is known. The order is kept for rows that come later.\n", session.Plain(name))
		return session.ExitStatus(1)
	}
	_, err = fmt.Fprintf(env.Stdout, "The batch %s %s\n", session.Plain(name), done)
	return err
}
