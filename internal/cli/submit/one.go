package submit

import (
	"context"
	"fmt"
	"time"

	"example.com/unrestrict-worker/internal/cli/session"
	"example.com/unrestrict-worker/internal/health"
	"example.com/unrestrict-worker/internal/service"
)

// oneDisplay prints what happens to a single request, as it happens, and what it waits for once nothing has happened for
// some seconds.
type oneDisplay struct {
	s *Submission

	action, outcome string // printed last
	run             int    // the run of these two
	waits           string // printed last
	asked           time.Time
}

// patience is how long nothing happens before oneDisplay prints what is waited for.
const patience = 5 * time.Second

// show prints what is new.
func (d *oneDisplay) show(ctx context.Context, now Progress) {
	f := d.s.Collector.copyOf(0)
	if f.run != d.run {
		d.run, d.action, d.outcome = f.run, "", ""
	}
	switch earlier := f.resultSeq <= d.s.before; {
	case f.reopened: // whether the earlier result holds is not known yet
	case earlier && f.Final:
		d.printEnded(f)
	case earlier && f.action != "":
		d.once(f, &d.action, f.action, "under way already, as machine action "+f.action)
	default:
		if f.action != "" {
			d.once(f, &d.action, f.action, "accepted as machine action "+f.action)
		}
		if f.Final && f.Outcome != d.outcome {
			d.once(f, &d.outcome, f.Outcome, f.Outcome+because(f))
			d.printAdvice(f)
		}
	}
	if now.Open > 0 && time.Since(d.asked) > patience {
		d.asked = time.Now()
		d.printWaits(ctx, f)
	}
}

// printEnded prints that the request had ended before it was published again, so that nobody takes its old result for a new one.
func (d *oneDisplay) printEnded(f RowStatus) {
	if d.outcome != f.Outcome {
		d.outcome = f.Outcome
		fmt.Fprintf(d.s.env.Stdout, "%s already ended: %s at %s%s. Nothing was called.\nTo ask once more for the same machine, use a new id.\n",
			session.Plain(f.ID), f.Outcome, reportTime(f.finished), session.Plain(because(f)))
	}
}

func (d *oneDisplay) printAdvice(f RowStatus) {
	if f.advice != "" {
		fmt.Fprintln(d.s.env.Stdout, f.advice)
	}
}

// because is why it ended, "" if there is no reason to print.
func because(f RowStatus) string {
	if f.Code == "" {
		return ""
	}
	return "  " + f.Code + ": " + f.Message
}

// once prints one line with what happened and when, unless it was printed last. It also restarts the patience.
func (d *oneDisplay) once(f RowStatus, last *string, now, what string) {
	if *last == now {
		return
	}
	*last = now
	d.asked, d.waits = time.Now(), ""
	fmt.Fprintf(d.s.env.Stdout, "%s  %s\n", f.publishedAt.Local().Format(time.TimeOnly), session.Plain(what))
}

// printWaits prints what the request waits for, unless that was printed last.
func (d *oneDisplay) printWaits(ctx context.Context, f RowStatus) {
	waits := "waiting for the machine to carry the action out; one that is off does so when it is back"
	if f.action == "" || f.reopened {
		held, err := service.HoldingUp(ctx, d.s.broker, d.s.env.Settings.Rates, false)
		switch {
		case err != nil:
			return // optional, because it needs more permissions than submitting does
		case held == nil:
			waits = "waiting for its call"
		default:
			waits = "waiting; " + health.Join(held)
		}
	}
	if waits != d.waits {
		d.waits = waits
		fmt.Fprintln(d.s.env.Stderr, session.Plain(waits))
	}
}
