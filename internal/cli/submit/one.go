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
	run             int    // that they are of
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
	if f.action != "" && f.action != d.action {
		d.action = f.action
		d.print("accepted as machine action " + f.action)
	}
	if f.Final && f.Outcome != d.outcome {
		d.outcome = f.Outcome
		why := ""
		if f.Code != "" {
			why = "  " + f.Code + ": " + f.Message
		}
		d.print(f.Outcome + why)
	}
	if now.Open > 0 && time.Since(d.asked) > patience {
		d.asked = time.Now()
		d.sayWaits(ctx, f)
	}
}

// print writes one line of what happened. It also begins the patience anew.
func (d *oneDisplay) print(what string) {
	d.asked, d.waits = time.Now(), ""
	fmt.Fprintf(d.s.env.Stdout, "%s  %s\n", time.Now().Format(time.TimeOnly), session.Plain(what))
}

// sayWaits says what the request waits for, where that is not what was said last.
func (d *oneDisplay) sayWaits(ctx context.Context, f RowStatus) {
	waits := "waiting for the machine to carry the action out; one that is off does so when it is back"
	if f.action == "" {
		held, err := service.HoldingUp(ctx, d.s.broker, d.s.env.Settings.Rates, false)
		switch {
		case err != nil:
			return // a courtesy, which asks for more rights than submitting does
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
