package budget

import (
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"example.com/unrestrict-worker/internal/message"
)

// The walk finds for each call what trying each second in turn finds.
func TestForecastIsWhatASimulationFinds(t *testing.T) {
	now := time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC)
	rapid.Check(t, func(t *rapid.T) {
		f := Forecast{Follow: time.Duration(rapid.IntRange(0, 30).Draw(t, "follow")) * time.Second}
		for _, per := range []int{rapid.IntRange(1, 20).Draw(t, "short"), rapid.IntRange(20, 100).Draw(t, "long")} {
			w := Used{Window: Window{Per: time.Duration(per) * time.Second, Limit: rapid.IntRange(0, 8).Draw(t, "limit")}}
			w = w.Leaving(rapid.IntRange(0, 60).Draw(t, "percent"), rapid.IntRange(0, 2).Draw(t, "lookups"))
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
				t.Fatalf("call %d is of lane %s after %v, want %v", i+1, lane, at.Sub(now), want[i:])
			}
			i++
		}
		if i != len(want) {
			t.Fatalf("%d calls, want %d", i, len(want))
		}
	})
}

type call struct {
	lane message.Lane
	at   time.Time
}

// simulate tries each second which call fits.
func simulate(now time.Time, f Forecast) (all []call) {
	calls := make([][]time.Time, len(f.Windows))
	for i, w := range f.Windows {
		calls[i] = slices.Clone(w.Grants)
	}
	var turns Turns
	spent := false
	waiting, every := f.Waiting, f.followEvery()
	waits := func(l message.Lane) bool { return waiting[index(l)] > 0 }
	follow := now.Add(every)
	for at := now; waiting != (ByLane{}); {
		fits := func(floor func(Used) int) bool {
			for i, w := range f.Windows {
				n := 0
				for _, c := range calls[i] {
					if at.Sub(c) < w.Per+StartLimit {
						n++
					}
				}
				if w.Limit > 0 && n >= max(1, w.Limit-floor(w)) {
					return false
				}
			}
			return true
		}
		spent = spent || waits(message.LaneUrgent) && !fits(func(u Used) int { return u.Floors[0] })
		may := func(l message.Lane) bool {
			as, yields := turns.floorLane(l, waits, spent)
			return waits(l) && fits(func(u Used) int {
				if yields {
					return u.Floors[index(as)] + 1
				}
				return u.Floors[index(as)]
			})
		}
		switch l := turns.Next(may); {
		case every > 0 && !follow.After(at) && fits(func(Used) int { return 0 }):
			follow = at.Add(every)
		case l == "":
			at = at.Add(time.Second)
			continue
		default:
			all = append(all, call{l, at})
			waiting[index(l)]--
			turns, spent = turns.After(l), spent && l == message.LaneUrgent
		}
		for i := range calls {
			calls[i] = append(calls[i], at)
		}
	}
	return all
}
