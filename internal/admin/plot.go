package admin

import (
	"cmp"
	"maps"
	"slices"
	"strings"
	"time"
)

// plot is the last hour in stacked bars, one a minute. Lengths are percents, so
// that the SVG fits every width without scaling its text.
type plot struct {
	From, To time.Time
	Top      int // what the full height stands for; even
	Sum      string
	Empty    bool
	Bars     []minute
	Series   []count // with the sum of the hour
}

// Half is the label of the line in the middle.
func (p plot) Half() int { return p.Top / 2 }

// minute is one bar and, with its counts, one row of the table under the plot.
type minute struct {
	At     time.Time
	X      string
	Parts  []part
	Counts []count
	Sum    string
}

type part struct{ Series, Y, Height string }

type count struct {
	Series string // which the colour stands for
	Label  string
	Short  string // heads a column of numbers
	N      int
}

// allSeries returns the series in the order in which they are stacked, from the bottom.
func allSeries() []count {
	return []count{
		{Series: "good", Label: "succeeded", Short: "succeeded"},
		{Series: "failed", Label: "failed, timed out or cancelled", Short: "failed"},
		{Series: "refused", Label: "rejected or abandoned", Short: "rejected"},
		{Series: "other", Label: "submitted, dry run or other", Short: "other"},
	}
}

func seriesOf(outcome string) string {
	switch outcome {
	case "succeeded":
		return "good"
	case "failed", "timedOut", "cancelled":
		return "failed"
	case "rejected", "abandoned":
		return "refused"
	}
	return "other"
}

func bySeries(outcomes map[string]int) []count {
	list := allSeries()
	for outcome, n := range outcomes {
		for i := range list {
			if list[i].Series == seriesOf(outcome) {
				list[i].N += n
			}
		}
	}
	return list
}

const plotMinutes = 60

func newPlot(points []Point, now time.Time) plot {
	last := now.UTC().Truncate(time.Minute)
	var hour [plotMinutes]map[string]int
	all := map[string]int{}
	for _, p := range points {
		slot := plotMinutes - 1 - int(last.Sub(p.Minute.UTC().Truncate(time.Minute))/time.Minute)
		if slot < 0 || slot >= plotMinutes {
			continue
		}
		if hour[slot] == nil {
			hour[slot] = map[string]int{}
		}
		for outcome, n := range p.Counts {
			hour[slot][outcome] += n
			all[outcome] += n
		}
	}
	highest := 0
	for _, outcomes := range hour {
		highest = max(highest, sum(outcomes))
	}
	p := plot{
		From: last.Add(-(plotMinutes - 1) * time.Minute), To: last, Top: ceiling(highest),
		Empty: highest == 0, Series: bySeries(all), Sum: summary(bySeries(all)),
	}
	for slot, outcomes := range hour {
		if sum(outcomes) > 0 {
			p.Bars = append(p.Bars, newMinute(last, slot, outcomes, p.Top))
		}
	}
	return p
}

func newMinute(last time.Time, slot int, outcomes map[string]int, top int) minute {
	m := minute{
		At: last.Add(time.Duration(slot-plotMinutes+1) * time.Minute), X: percent(slot, plotMinutes),
		Counts: bySeries(outcomes),
	}
	m.Sum = summary(m.Counts)
	below := 0
	for _, c := range m.Counts {
		if c.N > 0 {
			below += c.N
			m.Parts = append(m.Parts, part{Series: c.Series, Y: percent(top-below, top), Height: percent(c.N, top)})
		}
	}
	return m
}

// counts lists the outcomes with the most frequent first.
func counts(outcomes map[string]int) []count {
	var list []count
	for _, outcome := range slices.Sorted(maps.Keys(outcomes)) {
		list = append(list, count{Series: seriesOf(outcome), Label: outcome, N: outcomes[outcome]})
	}
	slices.SortStableFunc(list, func(a, b count) int { return cmp.Compare(b.N, a.N) })
	return list
}

func summary(counts []count) string {
	var list []string
	for _, c := range counts {
		if c.N > 0 {
			list = append(list, number(c.N)+" "+c.Label)
		}
	}
	return strings.Join(list, "; ")
}

func sum(outcomes map[string]int) (n int) {
	for _, c := range outcomes {
		n += c
	}
	return n
}

// ceiling rounds up to an even number that reads well on an axis.
func ceiling(n int) int {
	for unit := 1; ; unit *= 10 {
		for _, step := range []int{2, 4, 6, 8, 10, 12, 16} {
			if n <= step*unit {
				return step * unit
			}
		}
	}
}
