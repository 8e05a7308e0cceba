package admin

import (
	"cmp"
	"context"
	"fmt"
	"strings"
	"time"

	"example.com/unrestrict-worker/internal/health"
)

// view is what the fragment's template reads.
type view struct {
	Warnings []string // what makes it anything but production
	Banner   banner
	Stop     []health.Condition // what the banner is about
	Impair   []health.Condition // the others that need attention
	Notes    []health.Condition // nobody needs to do anything about them
	Status   *Status            // nil if it could not be read
	Cards    []card
	Lanes    []laneRow
	Budget   []bar
	Totals   []count

	Recent    *Recent // nil if it could not be read, with the reason in RecentErr
	RecentErr string
	Ages      []bar
	Batches   []progress
	Plot      plot

	Level string
}

// Rows of each list that are shown.
const (
	shownRows     = 12
	shownRequests = 25
)

func (p *page) gather(ctx context.Context) view {
	var v view
	status, err := ask(ctx, p.limits.source, p.src.Status)
	if err == nil {
		v.Status = &status
		v.Warnings, v.Lanes, v.Budget, v.Totals = status.Warnings(), laneRows(status.Queue), budgetBars(status.Budget), counts(status.Results)
	} else {
		status.Conditions = p.src.Conditions() // this replica's alone
	}
	var others []health.Condition
	v.Stop, others = health.Stopping(status.Conditions)
	v.Notes, v.Impair = health.Notes(others)
	v.Banner = newBanner(status, err, len(v.Stop))
	v.Cards = cards(v.Status)
	recent, err := ask(ctx, p.limits.source, p.src.Recent)
	if err != nil {
		v.RecentErr = err.Error()
	} else {
		v.Recent = &recent
		v.Ages, v.Plot = ageBars(recent.ActionsByAge), newPlot(recent.PerMinute, time.Now())
		recent.Failures = withoutLetters(recent.Failures, recent.DeadLetters)
		recent.Requests = recent.Requests[:min(len(recent.Requests), shownRequests)]
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

// Title is the title of the browser's tab. Among several tabs, that of a lab must not look like the others.
func (v view) Title() string {
	title := v.Banner.Title
	for _, warning := range v.Warnings {
		name, _, _ := strings.Cut(warning, ":")
		title = name + " · " + title
	}
	return title
}

// NeedsSomebody reports whether something waits for a person to decide.
func (v view) NeedsSomebody() bool {
	return v.Recent != nil && len(v.Recent.DeadLetters)+len(v.Recent.Awaiting) > 0
}

// withoutLetters returns the failures that are not among the dead letters already.
func withoutLetters(failures []ResultRow, letters []DeadLetterRow) (rest []ResultRow) {
	type run struct {
		id string
		n  int
	}
	asked := map[run]bool{}
	for _, l := range letters {
		asked[run{l.RequestID, l.Run}] = true
	}
	for _, f := range failures {
		if !asked[run{f.RequestID, f.Run}] {
			rest = append(rest, f)
		}
	}
	return rest
}

func ask[T any](ctx context.Context, limit time.Duration, question func(context.Context) (T, error)) (T, error) {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	return question(ctx)
}

// banner is the first thing to read: the state in a word and a sentence. The details follow it.
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
		return banner{Tone: "warn", Title: "Paused", Text: "No request is taken. Accepted actions are still followed."}
	case s.Paused != nil && s.Paused.ByOperator():
		return banner{Tone: "bad", Title: "Paused", Text: "No request is taken, and there is a fault besides."}
	case !s.Healthy && stop == 0:
		return banner{Tone: "bad", Title: "Impaired", Text: "Requests are taken, and something holds some of them, or accepted actions, up."}
	case !s.Healthy:
		return banner{Tone: "bad", Title: "No requests are taken", Text: "A fault of the system, on one replica at least."}
	case quota:
		return banner{Tone: "warn", Title: "Waiting for quota", Text: "Requests are taken and carried out as the API's limits allow."}
	}
	title := "Healthy"
	if n := s.ToDecide(); n == 1 {
		title = "Healthy, 1 thing to decide"
	} else if n > 1 {
		title = "Healthy, " + number(n) + " things to decide"
	}
	return banner{Tone: "ok", Title: title, Text: "Requests are taken and carried out."}
}

type card struct{ Label, Value, Note string }

func cards(s *Status) []card {
	list := []card{
		{Label: "Waiting to be called", Note: "nothing waits"},
		{Label: "Being called", Note: "in a worker's hands"},
		{Label: "Waiting for the machine", Note: "accepted, and not done there yet"},
		{Label: "Final results", Note: "in the last 24 hours"},
	}
	if s == nil {
		for i := range list {
			list[i].Value, list[i].Note = "–", "not known just now"
		}
		return list
	}
	for i, n := range []int{s.Queue.Pending, s.Queue.InFlight, s.Followed, sum(s.Results)} {
		list[i].Value = number(n)
	}
	if s.Queue.Pending > 0 {
		list[0].Note = "the oldest for " + Roughly(s.Queue.Age())
	}
	if s.Counting {
		list[3].Note = "still being counted"
	}
	return list
}

// laneRow is what waits in one lane.
type laneRow struct {
	Name, Waiting, Oldest string
	At                    time.Time // when the last is expected to be called; zero: not known, because of Why
	Latest                time.Time // zero: at At
	Why                   string
}

// laneRows returns the lanes in the order in which they are called.
func laneRows(q Queue) (rows []laneRow) {
	for _, name := range []string{"urgent", "normal", "bulk"} {
		lane := q.Lanes[name]
		row := laneRow{Name: name, Waiting: number(lane.Pending), Oldest: "–", At: lane.ExpectedAt, Why: unknownTimes[lane.Unavailable]}
		if lane.Pending > 0 {
			row.Oldest = Roughly(time.Duration(lane.OldestSeconds * float64(time.Second)))
		}
		if lane.LatestAt.Sub(lane.ExpectedAt) >= time.Minute {
			row.Latest = lane.LatestAt
		}
		if row.Why == "" && row.At.IsZero() {
			row.Why = cmp.Or(lane.Unavailable, "–")
		}
		rows = append(rows, row)
	}
	return rows
}

// unknownTimes are the values of `unavailable` (docs/lanes.md) that a whole lane can have.
var unknownTimes = map[string]string{
	"paused": "when the pause ends", "closed": "when the API no longer throttles", "systemFault": "when the fault ends", "noLimit": "at once: there is no limit of calls",
}

// progress is a batch as the template shows it.
type progress struct {
	Name, Text      string
	Failed          string // how many did not succeed; empty: none
	Outcomes        []count
	Done, Of, Width string
}

func newProgress(b Batch) progress {
	done := sum(b.Outcomes)
	all := done + b.Followed + b.Waiting
	p := progress{Name: b.Name, Outcomes: counts(b.Outcomes), Done: number(done), Of: number(all), Width: percent(done, all)}
	if n := b.Outcomes["failed"] + b.Outcomes["timedOut"] + b.Outcomes["rejected"] + b.Outcomes["abandoned"]; n > 0 {
		p.Failed = number(n) + " did not succeed"
	}
	var open []string
	if b.Waiting > 0 || b.AtLeast {
		text := number(b.Waiting) + " waiting to be called"
		if b.AtLeast {
			text = "at least " + text
		}
		open = append(open, text)
	}
	if b.Followed > 0 {
		open = append(open, number(b.Followed)+" waiting for the machine")
	}
	p.Text = strings.Join(open, ", ")
	return p
}

// bar is a meter or one row of a bar chart.
type bar struct {
	Label, Text string
	FreesAt     time.Time // when the next call comes free
	FullAt      time.Time // when all of them have
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
		if w.Remaining < w.Limit {
			b.FreesAt, b.FullAt = w.FreesAt, w.FullAt
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
	if most == 0 {
		return nil
	}
	var list []bar
	for _, b := range buckets {
		list = append(list, bar{Label: b.Label, Text: number(b.Count), Value: b.Count, Max: most, Width: percent(b.Count, most)})
	}
	return list
}
