package cli

import (
	"context"
	"fmt"
	"strings"
	"time"

	"example.com/unrestrict-worker/internal/broker"
	"example.com/unrestrict-worker/internal/cli/session"
	"example.com/unrestrict-worker/internal/config"
	"example.com/unrestrict-worker/internal/ledger"
)

// Run stops consumption on every replica, those that start later too.
func (c *PauseCmd) Run(ctx context.Context, env *session.Env) error {
	reason := strings.TrimSpace(c.Reason)
	if reason == "" {
		return config.BadInput("--reason: say why, for those who find it paused")
	}
	conn, err := session.DialForCommand(ctx, env)
	if err != nil {
		return err
	}
	defer session.CloseAfterCommand(conn)
	replicas, err := conn.OpenReplicas(ctx, env.Settings.Provision)
	if broker.IsMissing(err) {
		return fmt.Errorf("%w: WORKER_PROVISION is false, so that the pause can't be left there; start `worker run` once", err)
	}
	if err != nil {
		return err
	}
	if err := replicas.Pause(ctx, broker.Pause{Reason: reason, Since: time.Now().UTC()}); err != nil {
		return err
	}
	// Behind the act, unlike all others: whoever must stop everything is not kept from it.
	if err := session.NewOperator(conn, reason).Record(ctx, ledger.ActPause, ledger.AuditRecord{}); err != nil {
		fmt.Fprintf(env.Stderr, "worker: the pause is not in the audit trail: %s\n", session.Plain(err.Error()))
	}
	_, err = fmt.Fprintln(env.Stdout, "Paused: no replica takes another request. What is in hand is finished. `worker resume` ends it.")
	return err
}

// Run ends the pause, if there is one.
func (c *ResumeCmd) Run(ctx context.Context, env *session.Env) error {
	conn, err := session.DialForCommand(ctx, env)
	if err != nil {
		return err
	}
	defer session.CloseAfterCommand(conn)
	o, err := conn.Overview(ctx, nil)
	if err != nil {
		return err
	}
	// Also where none is seen: what there is may be an entry that is not understood.
	replicas, err := conn.OpenReplicas(ctx, false)
	switch {
	case broker.IsMissing(err):
	case err != nil:
		return err
	default:
		if o.Pause != nil {
			err := session.NewOperator(conn, c.Reason).Record(ctx, ledger.ActResume, ledger.AuditRecord{})
			if err != nil && !broker.IsMissing(err) { // there is no trail before the first worker
				return err
			}
		}
		if err := replicas.Resume(ctx); err != nil {
			return err
		}
	}
	said := "Resumed: every replica takes requests again."
	if o.Pause == nil {
		said = "It was not paused."
	}
	_, err = fmt.Fprintln(env.Stdout, said)
	return err
}

// PauseCmd is `worker pause`.
type PauseCmd struct {
	Reason string `placeholder:"TEXT" required:"" help:"Why; shown by status, /readyz and the log, and stands in the audit trail."`
}

// ResumeCmd is `worker resume`.
type ResumeCmd struct {
	Reason string `placeholder:"TEXT" help:"Why; stands in the audit trail."`
}
