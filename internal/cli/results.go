package cli

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	"go.uber.org/zap"

	"example.com/unrestrict-worker/internal/admin"
	"example.com/unrestrict-worker/internal/broker"
	"example.com/unrestrict-worker/internal/cli/session"
	"example.com/unrestrict-worker/internal/config"
	"example.com/unrestrict-worker/internal/message"
	"example.com/unrestrict-worker/internal/service"
)

// Run shows results, the oldest first: up to the present, or until it is interrupted.
func (c *ResultsCmd) Run(ctx context.Context, env *session.Env) error {
	conn, err := session.DialForCommand(ctx, env)
	if ctx.Err() != nil {
		return nil
	}
	if err != nil {
		return err
	}
	defer session.CloseAfterCommand(conn)
	o := broker.FollowOptions{ToPresent: true}
	if c.Since > 0 {
		o.Since = time.Now().Add(-c.Since)
	}
	v := &resultsView{cmd: c, env: env, stream: conn.Names().ResultsStream, shown: map[string]bool{}}
	if err := session.FollowResults(ctx, conn, o, v.Show); err != nil || ctx.Err() != nil {
		return err
	}
	if err := v.present(ctx, conn); err != nil || !c.Follow {
		return err
	}
	o.ToPresent, o.From = false, v.next
	return session.FollowResults(ctx, conn, o, v.Show)
}

// resultsView is one run of `worker results`. Messages that are no results are reported on standard error.
type resultsView struct {
	cmd    *ResultsCmd
	env    *session.Env
	stream string
	next   uint64          // the sequence to go on from; 0: nothing was read
	shown  map[string]bool // requests whose results were shown: all if requests are selected, otherwise the first
}

// Show shows one result, if it was asked for.
func (v *resultsView) Show(m broker.Message) error {
	v.next = m.Sequence + 1
	var r message.Result
	if err := json.Unmarshal(m.Data, &r); err != nil {
		log, _ := v.env.Logger()
		log.Warn("no result", zap.String("stream", v.stream), zap.Uint64("sequence", m.Sequence), zap.Error(err))
		return nil
	}
	if !v.cmd.asksFor(r) {
		return nil
	}
	if v.cmd.selects() || len(v.shown) == 0 {
		v.shown[r.RequestID] = true
	}
	if v.cmd.JSON {
		return session.WriteJSONLine(v.env.Stdout, json.RawMessage(m.Data))
	}
	_, err := fmt.Fprintln(v.env.Stdout, session.ResultLine(m.Time, r))
	return err
}

// shownWaiting is how many of the requests that wait are named.
const shownWaiting = 20

// present prints, after the results that exist, which of the selected requests have no result yet, or that nothing was
// found.
func (v *resultsView) present(ctx context.Context, conn *broker.Broker) error {
	waiting := 0
	if v.cmd.selects() && len(v.cmd.Outcome) == 0 {
		found, err := service.ReadQueue(ctx, conn, "", func(q service.Queued) bool { return v.cmd.asksFor(q.AsResult()) && !v.shown[q.Req.ID] })
		if err != nil {
			return err
		}
		waiting = len(found)
		for _, q := range found[:min(waiting, shownWaiting)] {
			fmt.Fprintf(v.env.Stderr, "%s  %s  waiting  machine %s (worker why %s)\n", admin.Clock(q.Time), session.Plain(q.Req.ID), session.Plain(cmp.Or(q.Req.MachineID, "not readable")), session.Plain(session.ShellQuote(q.Req.ID)))
		}
		if more := waiting - shownWaiting; more > 0 {
			fmt.Fprintf(v.env.Stderr, "and %d more wait\n", more)
		}
	}
	if len(v.shown) > 0 || waiting > 0 {
		return nil
	}
	text := "There is no result yet."
	if v.cmd.filters() {
		text = "No result matches, of those that are kept."
	}
	if v.cmd.Follow {
		text += " What comes is shown; Ctrl-C ends it."
	}
	_, err := fmt.Fprintln(v.env.Stderr, text)
	return err
}

// selects reports whether requests are selected by id, ticket, batch or machine.
func (c *ResultsCmd) selects() bool {
	return c.ID != "" || c.Ticket != "" || c.Batch != "" || c.Machine != ""
}

func (c *ResultsCmd) filters() bool { return c.selects() || len(c.Outcome) > 0 || c.Since > 0 }

func (c *ResultsCmd) asksFor(r message.Result) bool {
	return (c.ID == "" || r.RequestID == c.ID || r.ClaimedID == c.ID) &&
		(c.Ticket == "" || r.Ticket == c.Ticket) &&
		(c.Batch == "" || r.Batch == c.Batch) &&
		(c.Machine == "" || strings.EqualFold(r.MachineID, c.Machine)) &&
		(len(c.Outcome) == 0 || slices.Contains(c.Outcome, r.Outcome))
}

// ResultsCmd is `worker results`.
type ResultsCmd struct {
	ID      string        `name:"id" placeholder:"ID" help:"Only results of this request, and of messages that claimed its id."`
	Ticket  string        `placeholder:"TICKET" help:"Only results of requests with this ticket."`
	Batch   string        `placeholder:"NAME" help:"Only results of this batch."`
	Machine string        `placeholder:"ID" help:"Only results of this machine."`
	Outcome []string      `placeholder:"OUTCOME" enum:"${outcomes}" help:"Only results with one of these outcomes: ${outcomes}."`
	Since   time.Duration `placeholder:"DURATION" help:"Only results of the last so long, such as 1h or 2d (default: from the oldest kept)."`
	Follow  bool          `default:"true" negatable:"" help:"Go on with what comes later, until SIGINT (default: ${default}); --follow=false ends at the present."`
	JSON    bool          `name:"json" help:"One JSON object a line."`
}

// Validate is called by kong.
func (c ResultsCmd) Validate() error {
	if c.Since < 0 {
		return config.BadInput("--since: give how long ago, such as 1h")
	}
	return nil
}
