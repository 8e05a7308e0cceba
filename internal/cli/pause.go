package cli

import (
	"context"
	"fmt"
	"strings"
	"time"

	"example.com/unrestrict-worker/internal/admin"
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

// Run ends the pause, if there is one, or lifts a closure.
func (c *ResumeCmd) Run(ctx context.Context, env *session.Env) error {
	conn, err := session.DialForCommand(ctx, env)
	if err != nil {
		return err
	}
	defer session.CloseAfterCommand(conn)
	if c.Closure {
		return c.lift(ctx, env, conn)
	}
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

// lift lets calls be made again before the time that the API named with a 429 has come. A closure may be wrong, as of a
// Retry-After that holds a time instead of seconds; whether this one is, the operator has to know.
func (c *ResumeCmd) lift(ctx context.Context, env *session.Env, conn *broker.Broker) error {
	rates, err := conn.VisitRates(ctx, nil)
	if err != nil {
		return err
	}
	rest, err := rates.ClosedFor(ctx)
	if err != nil {
		return err
	}
	if rest == 0 {
		_, err = fmt.Fprintln(env.Stdout, "The API throttles nobody: calls are made as the rate windows allow.")
		return err
	}
	fmt.Fprintf(env.Stdout, "No call is made until %s, as the API asked with a 429. Lifted, every replica calls again at once; if the API throttles still, its next 429 closes it again.\n",
		admin.Clock(time.Now().Add(rest)))
	if err := session.Unasked(env, c.Yes, "lifting the closure"); err != nil {
		return err
	}
	if !c.Yes {
		if err := session.Ask(ctx, env); err != nil {
			return err
		}
	}
	err = session.NewOperator(conn, c.Reason).Record(ctx, ledger.ActLift, ledger.AuditRecord{})
	if err != nil {
		return err
	}
	if _, err := rates.Lift(ctx); err != nil {
		return err
	}
	_, err = fmt.Fprintln(env.Stdout, "Lifted: calls are made again.")
	return err
}

// PauseCmd is `worker pause`.
type PauseCmd struct {
	Reason string `placeholder:"TEXT" required:"" help:"Why; shown by status, /readyz and the log, and stands in the audit trail."`
}

// ResumeCmd is `worker resume`.
type ResumeCmd struct {
	Closure bool   `help:"Lift the closure after a 429 before its time, instead of ending a pause: calls are made again."`
	Yes     bool   `help:"With --closure: do not ask."`
	Reason  string `placeholder:"TEXT" help:"Why; stands in the audit trail."`
}
