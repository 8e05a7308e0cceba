package batch

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"

	"example.com/unrestrict-worker/internal/admin"
	"example.com/unrestrict-worker/internal/broker"
	"example.com/unrestrict-worker/internal/cli/session"
	"example.com/unrestrict-worker/internal/cli/submit"
	"example.com/unrestrict-worker/internal/config"
	"example.com/unrestrict-worker/internal/message"
	"example.com/unrestrict-worker/internal/service"
)

// ListCmd is `worker batch list`.
type ListCmd struct {
	JSON bool `name:"json" help:"One JSON object a line, one for each batch."`
}

// ShowCmd is `worker batch show`.
type ShowCmd struct {
	Name string `arg:"" help:"Name of the batch."`
	JSON bool   `name:"json" help:"One JSON object."`
}

// Run lists all batches that are known.
func (c *ListCmd) Run(ctx context.Context, env *session.Env) error {
	all, err := read(ctx, env, "")
	if err != nil {
		return err
	}
	t := session.NewTable("BATCH", "ROWS", "WAITING", "OUTCOMES", "EXPECTED END", "CHANGED", "WHOSE")
	for _, b := range all {
		if c.JSON {
			if err := session.WriteJSONLine(env.Stdout, b); err != nil {
				return err
			}
			continue
		}
		t.Row(b.Name, fmt.Sprint(b.Rows), fmt.Sprint(b.Waiting), outcomes(b), lastCall(b), admin.Clock(b.Latest), whose(b))
	}
	switch {
	case c.JSON:
		return nil
	case len(all) == 0:
		_, err = fmt.Fprintln(env.Stdout, "No batch is known: no request that names one waits, or has ended within 7 days.")
		return err
	}
	return t.Fit(env.Stdout)
}

// Run shows one batch.
func (c *ShowCmd) Run(ctx context.Context, env *session.Env) error {
	all, err := read(ctx, env, c.Name)
	if err != nil {
		return err
	}
	if len(all) == 0 {
		return fmt.Errorf("no batch %s is known: no row of it waits, or has ended within 7 days; `worker results --batch` reads older results", session.Plain(c.Name))
	}
	if c.JSON {
		return session.WriteJSONLine(env.Stdout, all[0])
	}
	return write(session.NewScreen(env), all[0])
}

// read reads the batches with their places in the queue.
func read(ctx context.Context, env *session.Env, name string) ([]*service.Batch, error) {
	conn, err := session.DialForCommand(ctx, env)
	if err != nil {
		return nil, err
	}
	defer session.CloseAfterCommand(conn)
	batches, err := service.ReadBatches(ctx, conn, name)
	if err != nil {
		return nil, err
	}
	all := batches.List()
	return all, place(ctx, conn, env.Settings, all)
}

func place(ctx context.Context, conn *broker.Broker, set config.Settings, all []*service.Batch) error {
	conn.AwaitPresence(ctx)
	o, err := conn.Overview(ctx, config.Windows(set.Rates))
	if err != nil {
		return err
	}
	line, err := service.LookAtLine(ctx, conn, o, set)
	if err != nil {
		return err
	}
	for _, b := range all {
		if err := b.Place(ctx, conn, line); err != nil {
			return err
		}
	}
	return nil
}

func write(s session.Screen, b *service.Batch) error {
	var err error
	field := func(name, text string) { err = cmp.Or(err, s.Field(name, "", text)) }
	field("batch", b.Name)
	field("rows", fmt.Sprintf("%d (%s)", b.Rows, lanes(b)))
	if text := whose(b); text != "" {
		field("whose", text)
	}
	waiting := fmt.Sprint(b.Waiting)
	if b.Queue != nil {
		waiting += "; the last one " + b.Queue.When()
	}
	field("waiting", waiting)
	if b.Calling > 0 {
		field("being called", fmt.Sprint(b.Calling))
	}
	field("outcomes", cmp.Or(outcomes(b), "none yet"))
	if err != nil || len(b.Failures) == 0 {
		return err
	}
	if _, err := fmt.Fprintln(s.Out); err != nil {
		return err
	}
	t := session.NewTable("REQUEST", "OUTCOME", "WHY")
	for _, f := range b.Failures {
		why := ""
		if f.Error != nil {
			why = f.Error.Code + ": " + f.Error.Message
		}
		t.Row(f.ID, f.Outcome, why)
	}
	return t.Fit(s.Out)
}

func lanes(b *service.Batch) string {
	var parts []string
	for _, l := range message.Lanes() {
		if n := b.Lanes[l]; n > 0 {
			parts = append(parts, fmt.Sprintf("%s %d", l, n))
		}
	}
	return strings.Join(parts, ", ")
}

// whose counts the rows of each owner: several may use one name.
func whose(b *service.Batch) string {
	var parts []string
	for _, owner := range slices.Sorted(maps.Keys(b.Owners)) {
		parts = append(parts, fmt.Sprintf("%s %d", owner, b.Owners[owner]))
	}
	return strings.Join(parts, ", ")
}

// outcomes counts the rows by outcome. A submitted one is under way on its machine.
func outcomes(b *service.Batch) string {
	var parts []string
	for _, outcome := range submit.Outcomes() {
		if n := b.Outcomes[outcome]; n > 0 {
			parts = append(parts, fmt.Sprintf("%d %s", n, outcome))
		}
	}
	return strings.Join(parts, ", ")
}

func lastCall(b *service.Batch) string {
	switch q := b.Queue; {
	case q == nil:
		return ""
	case q.Unavailable != "":
		return q.Unavailable
	default:
		return admin.Clock(q.ExpectedAt)
	}
}
