package admin

import (
	"context"
	"fmt"
	"strings"
	"time"

	"example.com/unrestrict-worker/internal/health"
)

// view is what the fragment's template reads.
type view struct {
	Banner  banner
	Details []health.Condition
	Status  *Status // nil if it could not be read
	Cards   []card
	Budget  []bar
	Totals  []count

	Recent    *Recent // nil if it could not be read, with the reason in RecentErr
	RecentErr string
	Ages      []bar
	Batches   []progress
	Plot      plot

	Level string
}

func (p *page) gather(ctx context.Context) view {
	var v view
	reasons, details := health.Stopping(p.src.Conditions())
	v.Details = details
	status, err := ask(ctx, p.limits.source, p.src.Status)
	if err == nil {
		v.Status = &status
		v.Budget, v.Totals = budgetBars(status.Budget), counts(status.Results)
	}
	v.Banner = newBanner(v.Status, err, reasons)
	recent, err := ask(ctx, p.limits.source, p.src.Recent)
	v.Cards = cards(v.Status, recent.EmptyAt)
	if err != nil {
		v.RecentErr = err.Error()
	} else {
		v.Recent = &recent
		v.Ages, v.Plot = ageBars(recent.ActionsByAge), newPlot(recent.PerMinute, time.Now())
		recent.Results = recent.Results[:min(len(recent.Results), shownRows)]
		recent.Failures = recent.Failures[:min(len(recent.Failures), shownRows)]
		recent.DeadLetters = recent.DeadLetters[:min(len(recent.DeadLetters), shownRows)]
		for _, b := range recent.Batches[:min(len(recent.Batches), shownRows)] {
			v.Batches = append(v.Batches, newProgress(b))
		}
	}
	if p.level != nil {
		v.Level = p.level.String()
	}
	return v
}

func ask[T any](ctx context.Context, limit time.Duration, question func(context.Context) (T, error)) (T, error) {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	return question(ctx)
}

// banner is the first thing to read: the state, and why it is not the good one.
type banner struct {
	Tone    string // ok, warn or bad
	Title   string
	Text    string
	Pause   *Pause
	Quota   *QuotaWait
	Reasons []health.Condition
}

func newBanner(s *Status, err error, reasons []health.Condition) banner {
	switch {
	case err != nil:
		return banner{Tone: "bad", Title: "Unknown", Text: "The status could not be read: " + err.Error(), Reasons: reasons}
	case s.Paused != nil:
		b := banner{Tone: "warn", Title: "Paused", Text: s.Paused.Reason, Pause: s.Paused}
		if !s.Paused.ByOperator() {
			b.Tone, b.Title = "bad", "No requests are taken"
		}
		for _, r := range reasons {
			if r.Code != "paused" && r.Message != s.Paused.Reason { // else the same again
				b.Tone, b.Reasons = "bad", append(b.Reasons, r)
			}
		}
		return b
	case len(reasons) > 0:
		return banner{Tone: "bad", Title: "Not ready", Text: "This replica takes no requests.", Reasons: reasons}
	case !s.Healthy:
		return banner{Tone: "bad", Title: "Not healthy", Text: "This replica is ready, but the worker is not healthy."}
	}
	b := banner{Tone: "ok", Title: "Healthy", Text: "Requests are taken and carried out.", Quota: s.WaitingForQuota}
	if b.Quota != nil {
		b.Tone, b.Title, b.Text = "warn", "Waiting for quota", "All calls that the API allows are used up; requests wait for the next one."
	}
	return b
}

type card struct{ Label, Value, Note, Tone string }

func cards(s *Status, emptyAt time.Time) []card {
	list := []card{
		{Label: "Waiting in the queue", Note: "nothing waits"},
		{Label: "In flight", Note: "taken, not decided yet"},
		{Label: "Open actions", Note: "accepted, being followed"},
		{Label: "Dead letters", Note: "none to look at"},
	}
	if s == nil {
		for i := range list {
			list[i].Value, list[i].Note = "–", "not known just now"
		}
		return list
	}
	for i, n := range []int{s.Queue.Pending, s.Queue.InFlight, s.Followed, s.DeadLetters} {
		list[i].Value = number(n)
	}
	if s.Queue.Pending > 0 {
		list[0].Note = "oldest for " + Roughly(s.Queue.Age()) + whenEmpty(emptyAt)
	}
	if s.DeadLetters > 0 {
		list[3].Note, list[3].Tone = "to replay or drop", "warn"
	}
	return list
}

// whenEmpty is when the queue is expected to be empty, to the minute, so that the page does not change with each second.
func whenEmpty(at time.Time) string {
	switch left := time.Until(at); {
	case at.IsZero():
		return ""
	case left < time.Minute:
		return "; empty within a minute"
	case left < 12*time.Hour:
		return "; empty at about " + at.UTC().Add(time.Minute).Format("15:04") + " UTC"
	}
	return "; empty at about " + at.UTC().Add(time.Minute).Format("Jan 2, 15:04") + " UTC"
}

// progress is how far a batch is.
type progress struct {
	Name, Text      string
	Outcomes        []count
	Done, Of, Width string
}

func newProgress(b Batch) progress {
	done := sum(b.Outcomes)
	all := done + b.Followed + b.Waiting
	p := progress{Name: b.Name, Outcomes: counts(b.Outcomes), Done: number(done), Of: number(all), Width: percent(done, all)}
	var open []string
	if b.Waiting > 0 || b.AtLeast {
		text := number(b.Waiting) + " waiting"
		if b.AtLeast {
			text = "at least " + text
		}
		open = append(open, text)
	}
	if b.Followed > 0 {
		open = append(open, number(b.Followed)+" under way on their machines")
	}
	p.Text = strings.Join(open, ", ")
	return p
}

// bar is a meter or one row of a bar chart.
type bar struct {
	Label, Text string
	Value, Max  int
	Width       string // of the track, in percent
	Tone        string
	Unlimited   bool
}

// budgetBars shows what is left of each window.
func budgetBars(windows []Window) []bar {
	var list []bar
	for _, w := range windows {
		b := bar{Label: "Left in the " + w.Window, Value: w.Remaining, Max: w.Limit, Text: fmt.Sprintf("%s of %s", number(w.Remaining), number(w.Limit))}
		switch {
		case w.Limit <= 0:
			b.Text, b.Unlimited = "no limit", true
		case w.Remaining <= 0:
			b.Text, b.Tone = "none of "+number(w.Limit), "bad"
		case w.Remaining*10 < w.Limit:
			b.Tone = "warn"
		}
		b.Width = percent(w.Remaining, w.Limit)
		list = append(list, b)
	}
	return list
}

func ageBars(buckets []Bucket) []bar {
	most := 0
	for _, b := range buckets {
		most = max(most, b.Count)
	}
	var list []bar
	for _, b := range buckets {
		list = append(list, bar{Label: b.Label, Text: number(b.Count), Value: b.Count, Max: most, Width: percent(b.Count, most)})
	}
	return list
}
