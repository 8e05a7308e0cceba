package cli

import (
	"cmp"
	"context"
	"fmt"
	"strings"
	"time"

	"example.com/unrestrict-worker/internal/admin"
	"example.com/unrestrict-worker/internal/cli/session"
	"example.com/unrestrict-worker/internal/cli/submit"
	"example.com/unrestrict-worker/internal/health"
	"example.com/unrestrict-worker/internal/message"
	"example.com/unrestrict-worker/internal/service"
)

// Run shows the state of the deployment. Exit status 1: requests are not taken, or something other than the quota holds some up.
func (c *StatusCmd) Run(ctx context.Context, env *session.Env) error {
	conn, err := session.DialForCommand(ctx, env)
	if err != nil {
		return err
	}
	defer session.CloseAfterCommand(conn)
	conn.AwaitPresence(ctx)
	status, err := service.DeploymentStatus(ctx, conn, conn.NewTally(0), env.Settings)
	if err != nil {
		return err
	}
	if c.JSON {
		err = session.WriteJSONLine(env.Stdout, status)
	} else {
		err = writeStatus(session.NewScreen(env), status, time.Now())
	}
	if err == nil && !status.Healthy {
		return session.ExitStatus(1)
	}
	return err
}

func writeStatus(s session.Screen, status admin.Status, now time.Time) error {
	state, colour := "healthy", session.Green
	switch _, nobody := health.Has(status.Conditions, health.NoWorker); {
	case status.Paused != nil && status.Paused.ByOperator():
		state, colour = "paused by an operator", session.Yellow
	case status.Paused != nil:
		state, colour = "not taking requests", session.Red
	case nobody:
		state, colour = service.NoWorker, session.Red
	case !status.Healthy:
		state, colour = "impaired: requests or actions are held up", session.Red
	}
	var err error
	field := func(name, colour, text string) {
		if err == nil && text != "" {
			err = s.Field(name, colour, text)
		}
	}
	for _, warning := range status.Warnings() {
		name, text, _ := strings.Cut(warning, ": ")
		field(name, session.Yellow, text)
	}
	field("state", colour, state)
	stop, others := health.Stopping(status.Conditions)
	notes, impair := health.Notes(others)
	conditions := func(name, colour string, all []health.Condition) {
		for _, c := range all {
			field(name, colour, session.Condition(c, now))
			field("  do", "", c.Remedy)
		}
	}
	conditions("why", "", stop)
	conditions("also", session.Yellow, impair)
	field("to decide", session.Yellow, toDecide(status))
	field("queue", "", queueText(status.Queue))
	if text := lanesText(status.Queue); text != "" {
		field("lanes", "", text)
	}
	field("budget", "", budgetText(status.Budget))
	field("followed", "", session.Count(status.Followed, "action", "actions"))
	if n := status.NotKept; n > 0 {
		field("not kept", "", session.Count(n, "dead letter", "dead letters")+" of unverified messages")
	}
	field("results", "", resultsText(status.Results, status.Counting))
	conditions("note", "", notes)
	field("api", "", status.System.Text())
	field("streams", "", strings.TrimSuffix(status.System.Streams.Text()+" at "+status.System.Broker, " at "))
	for i, r := range status.Replicas {
		field([]string{"replicas", ""}[min(i, 1)], "", fmt.Sprintf("%s, %s, %s, %s", cmp.Or(r.Host, r.ID), cmp.Or(r.Version, "version not known"), admin.ModeText(r.Mode), r.State()))
	}
	field("version", "", status.Version)
	return err
}

// toDecide is what waits for somebody to decide, and the command for it; "": nothing does.
func toDecide(status admin.Status) string {
	var parts []string
	if n := status.DeadLetters; n > 0 {
		parts = append(parts, session.Count(n, "dead letter", "dead letters")+" (worker deadletter list)")
	}
	if n := status.AwaitingApproval; n > 0 {
		parts = append(parts, session.Count(n, "approval", "approvals")+" (worker approvals)")
	}
	return strings.Join(parts, ", ")
}

func queueText(q admin.Queue) string {
	text := fmt.Sprintf("%d waiting, %d in hand", q.Pending, q.InFlight)
	if q.OldestSeconds > 0 {
		text += ", the oldest for " + admin.Roughly(q.Age())
	}
	return text
}

// lanesText is what waits in each lane, and when the last of it is expected to be called; "" if all of it is normal and called
// within a minute.
func lanesText(q admin.Queue) string {
	if q.Lanes[string(message.LaneUrgent)].Pending+q.Lanes[string(message.LaneBulk)].Pending == 0 && time.Until(q.Lanes[string(message.LaneNormal)].ExpectedAt) < time.Minute {
		return ""
	}
	var parts []string
	for _, l := range message.Lanes() {
		text := fmt.Sprintf("%d %s", q.Lanes[string(l)].Pending, l)
		if at := q.Lanes[string(l)].ExpectedAt; time.Until(at) >= time.Minute {
			text += " (the last at " + admin.Clock(at) + ")"
		}
		parts = append(parts, text)
	}
	return strings.Join(parts, ", ")
}

func budgetText(windows []admin.Window) string {
	if len(windows) == 0 {
		return "no limit"
	}
	var parts []string
	for _, w := range windows {
		text := fmt.Sprintf("%d of %d calls left this %s", w.Remaining, w.Limit, w.Window)
		if w.Remaining < w.Limit && !w.FullAt.IsZero() {
			text += " (all again at " + admin.Clock(w.FullAt) + ")"
		}
		parts = append(parts, text)
	}
	return strings.Join(parts, ", ")
}

func resultsText(counts map[string]int, counting bool) string {
	var parts []string
	for _, outcome := range submit.Outcomes() {
		if n := counts[outcome]; n > 0 {
			parts = append(parts, fmt.Sprintf("%d %s", n, outcome))
		}
	}
	text := cmp.Or(strings.Join(parts, ", "), "none") + " in 24 hours"
	if counting {
		text += " (still being counted)"
	}
	return text
}

// StatusCmd is `worker status`.
type StatusCmd struct {
	JSON bool `name:"json" help:"One JSON object, the same as /status of the admin server."`
}
