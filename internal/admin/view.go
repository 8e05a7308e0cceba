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
	Stop    []health.Condition // what the banner is about
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
	status, err := ask(ctx, p.limits.source, p.src.Status)
	if err == nil {
		v.Status = &status
		v.Budget, v.Totals = budgetBars(status.Budget), counts(status.Results)
	} else {
		status.Conditions = p.src.Conditions() // this replica's alone
	}
	v.Stop, v.Details = health.Stopping(status.Conditions)
	v.Banner = newBanner(status, err, len(v.Stop))
	recent, err := ask(ctx, p.limits.source, p.src.Recent)
	v.Cards = cards(v.Status, recent.EmptyAt)
	if err != nil {
		v.RecentErr = err.Error()
	} else {
		v.Recent = &recent
		v.Ages, v.Plot = ageBars(recent.ActionsByAge), newPlot(recent.PerMinute, time.Now())
		recent.Results = recent.Results[:min(len(recent.Results), shownRows)]
		recent.Awaiting = recent.Awaiting[:min(len(recent.Awaiting), shownRows)]
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

// banner is the first thing to read: the state in a word and a sentence. What is to be said of it follows.
type banner struct {
	Tone  string // ok, warn or bad
	Title string
	Text  string
}

func newBanner(s Status, err error, stop int) banner {
	switch _, quota := health.Has(s.Conditions, health.WaitingForQuota); {
	case err != nil:
		return banner{Tone: "bad", Title: "Unknown", Text: "The status could not be read: " + err.Error()}
	case s.Paused != nil && s.Paused.ByOperator() && stop <= 1:
		return banner{Tone: "warn", Title: "Paused", Text: "An operator has paused the worker."}
	case s.Paused != nil && s.Paused.ByOperator():
		return banner{Tone: "bad", Title: "Paused", Text: "An operator has paused the worker, and there is a fault besides."}
	case !s.Healthy && stop == 0:
		return banner{Tone: "bad", Title: "Impaired", Text: "Requests are taken, and something holds some of them, or accepted actions, up."}
	case !s.Healthy:
		return banner{Tone: "bad", Title: "No requests are taken", Text: "A fault of the system, on one replica at least."}
	case quota:
		return banner{Tone: "warn", Title: "Waiting for quota", Text: "Requests are taken and carried out as the API's limits allow."}
	}
	return banner{Tone: "ok", Title: "Healthy", Text: "Requests are taken and carried out."}
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
