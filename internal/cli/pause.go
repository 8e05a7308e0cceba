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
	by := session.NewOperator(conn, reason)
	if err := replicas.Pause(ctx, broker.Pause{Reason: reason, By: by.Who(), Since: time.Now().UTC()}); err != nil {
		return err
	}
	// Recorded after the act, unlike all others: a failure to record must not keep anybody from stopping everything.
	if err := by.Record(ctx, ledger.ActPause, ledger.AuditRecord{}); err != nil {
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
	switch {
	case c.Closure && c.Orders:
		return config.BadInput("--closure and --orders are two things; give one of them")
	case c.Closure:
		return c.lift(ctx, env, conn)
	case c.Orders:
		return c.forgo(ctx, env, conn)
	}
	o, err := conn.Overview(ctx, nil)
	if err != nil {
		return err
	}
	// Even if no pause is seen: the key may hold a value that this version does not understand.
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
	text := "Resumed: every replica takes requests again."
	if o.Pause == nil {
		text = "It was not paused."
	}
	_, err = fmt.Fprintln(env.Stdout, text)
	return err
}

// lift ends the closure after a 429 before its Retry-After has passed. A closure may be wrong, for example if Retry-After held
// a time instead of seconds. The operator has to judge whether this one is.
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
		_, err = fmt.Fprintln(env.Stdout, "The API does not throttle: calls are made as the rate windows allow.")
		return err
	}
	fmt.Fprintf(env.Stdout, "No call is made until %s, as the API asked with a 429. Lifted, every replica calls again at once; if the API throttles still, its next 429 closes it again.\n",
		admin.Clock(time.Now().Add(rest)))
	if err := session.RequireYes(env, c.Yes, "lifting the closure"); err != nil {
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

// forgo lets calls be made again without orders that are lost. What they had cancelled or held back is called then, unless that
// was ordered anew. The operator has to judge whether it was.
func (c *ResumeCmd) forgo(ctx context.Context, env *session.Env, conn *broker.Broker) error {
	lost, err := conn.OrdersLost(ctx)
	if err != nil {
		return err
	}
	if lost == "" {
		_, err = fmt.Fprintln(env.Stdout, "No orders are lost.")
		return err
	}
	fmt.Fprintf(env.Stdout, "Orders are lost: %s. What they cancelled or held back is called once you go on, unless that was ordered again.\n", session.Plain(lost))
	if err := session.RequireYes(env, c.Yes, "going on without the lost orders"); err != nil {
		return err
	}
	if !c.Yes {
		if err := session.Ask(ctx, env); err != nil {
			return err
		}
	}
	if err := session.NewOperator(conn, c.Reason).Record(ctx, ledger.ActForgo, ledger.AuditRecord{}); err != nil {
		return err
	}
	if err := conn.AcceptLostOrders(ctx); err != nil {
		return err
	}
	_, err = fmt.Fprintln(env.Stdout, "Calls are made again, by the orders that there are.")
	return err
}

// PauseCmd is `worker pause`.
type PauseCmd struct {
	Reason string `placeholder:"TEXT" required:"" help:"Why; shown by status, /readyz and the log, and recorded in the audit trail."`
}

// ResumeCmd is `worker resume`.
type ResumeCmd struct {
	Closure bool   `help:"Lift the closure after a 429 before its time, instead of ending a pause: calls are made again."`
	Orders  bool   `help:"Go on without the orders that are lost (condition ordersLost), instead of ending a pause: what they cancelled or held back is called, unless it was ordered again."`
	Yes     bool   `help:"With --closure or --orders: do not ask."`
	Reason  string `placeholder:"TEXT" help:"Why; recorded in the audit trail."`
}
