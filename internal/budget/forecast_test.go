package budget

import (
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// The walk finds for each call what trying each second in turn finds.
func TestForecastIsWhatASimulationFinds(t *testing.T) {
	now := time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC)
	rapid.Check(t, func(t *rapid.T) {
		f := Forecast{Follow: time.Duration(rapid.IntRange(0, 30).Draw(t, "follow")) * time.Second}
		for _, per := range []int{rapid.IntRange(1, 20).Draw(t, "short"), rapid.IntRange(20, 100).Draw(t, "long")} {
			w := Used{Window: Window{Per: time.Duration(per) * time.Second, Limit: rapid.IntRange(0, 8).Draw(t, "limit")}}
			if w.Limit > 0 {
				for lane, least := 0, 0; lane < 3; lane++ {
					least = rapid.IntRange(least, w.Limit-1).Draw(t, "leaves")
					w.Leaves[lane] = least
				}
			}
			// There may be more grants than the limit: it was lowered.
			for _, ago := range rapid.SliceOfN(rapid.IntRange(0, per+1), 0, 10).Draw(t, "ago") {
				w.Grants = append(w.Grants, now.Add(-time.Duration(ago)*time.Second))
			}
			slices.SortFunc(w.Grants, time.Time.Compare)
			f.Windows = append(f.Windows, w)
		}
		for lane := range f.Waiting {
			f.Waiting[lane] = rapid.IntRange(0, 12).Draw(t, "waiting")
		}
		want := simulate(now, f)
		i := 0
		for lane, at := range f.Calls(now) {
			if i == len(want) || want[i].lane != lane || !want[i].at.Equal(at) {
				t.Fatalf("call %d is of lane %d after %v, want %v", i+1, lane, at.Sub(now), want[i:])
			}
			i++
		}
		if i != len(want) {
			t.Fatalf("%d calls, want %d", i, len(want))
		}
	})
}

type call struct {
	lane int
	at   time.Time
}

// simulate tries each second which call fits.
func simulate(now time.Time, f Forecast) (all []call) {
	calls := make([][]time.Time, len(f.Windows))
	for i, w := range f.Windows {
		calls[i] = slices.Clone(w.Grants)
	}
	var turn turns
	waiting, every := f.Waiting, f.followEvery()
	follow := now.Add(every)
	for at := now; waiting != [3]int{}; {
		fits := func(lane int) bool { // -1: of following
			for i, w := range f.Windows {
				n := 0
				for _, c := range calls[i] {
					if at.Sub(c) < w.Per+StartLimit {
						n++
					}
				}
				leaves := 0
				switch {
				case lane == bulk && waiting[normal] > 0 && turn.bulkIsDue():
					leaves = w.Leaves[normal]
				case lane >= 0:
					leaves = w.Leaves[lane]
				}
				if w.Limit > 0 && n >= w.Limit-leaves {
					return false
				}
			}
			return true
		}
		var may [3]bool
		for lane := range may {
			may[lane] = waiting[lane] > 0 && fits(lane)
		}
		switch {
		case every > 0 && !follow.After(at) && fits(-1):
			follow = at.Add(every)
		case may == [3]bool{}:
			at = at.Add(time.Second)
			continue
		default:
			lane := turn.next(may)
			all = append(all, call{lane, at})
			waiting[lane]--
			turn = turn.after(lane)
		}
		for i := range calls {
			calls[i] = append(calls[i], at)
		}
	}
	return all
}
