package budget

import (
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// The walk finds for each place what trying each second in turn finds.
func TestForecastIsWhatASimulationFinds(t *testing.T) {
	now := time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC)
	rapid.Check(t, func(t *rapid.T) {
		var windows []Used
		for _, per := range []int{rapid.IntRange(1, 20).Draw(t, "short"), rapid.IntRange(20, 100).Draw(t, "long")} {
			w := Used{Window: Window{Per: time.Duration(per) * time.Second, Limit: rapid.IntRange(0, 8).Draw(t, "limit")}}
			w.Reserve = rapid.IntRange(0, max(0, w.Limit-1)).Draw(t, "reserve")
			// There may be more grants than the limit: it was lowered.
			for _, ago := range rapid.SliceOfN(rapid.IntRange(0, per+1), 0, 10).Draw(t, "ago") {
				w.Grants = append(w.Grants, now.Add(-time.Duration(ago)*time.Second))
			}
			slices.SortFunc(w.Grants, time.Time.Compare)
			windows = append(windows, w)
		}
		place := rapid.IntRange(0, 30).Draw(t, "place")
		if got, want := Forecast(now, windows, place), simulate(now, windows, place); !got.Equal(want) {
			t.Fatalf("after %v, want %v", got.Sub(now), want.Sub(now))
		}
	})
}

// simulate tries each second whether a call fits.
func simulate(now time.Time, windows []Used, place int) time.Time {
	calls := make([][]time.Time, len(windows))
	for i, w := range windows {
		calls[i] = slices.Clone(w.Grants)
	}
	at := now
	for made := 0; made < place; {
		fits := true
		for i, w := range windows {
			n := 0
			for _, c := range calls[i] {
				if at.Sub(c) < w.Per+StartLimit {
					n++
				}
			}
			fits = fits && (w.Limit == 0 || n < w.Limit-w.Reserve)
		}
		if !fits {
			at = at.Add(time.Second)
			continue
		}
		for i := range calls {
			calls[i] = append(calls[i], at)
		}
		made++
	}
	return at
}

// What Forecast says is what Take does, at the API's own limits and at any place of a queue of 5,000.
func TestForecastIsWhatTakeDoes(t *testing.T) {
	windows := Limits(100, 1500)
	in(t, windows, func(t *testing.T, b *Budget, m *memory) {
		b.SetReserve(true)
		mustTake(t, b, "urgent", 60)
		time.Sleep(10 * time.Minute)
		mustTake(t, b, "urgent", 30)
		time.Sleep(20 * time.Second)
		var used []Used
		reserves := b.Reserves()
		for _, w := range windows {
			used = append(used, Used{Window: w, Reserve: reserves[w.Name], Grants: slices.Clone(m.grants[w.Name])})
		}
		start := time.Now()
		for n := 1; n <= 5000; n++ {
			time.Sleep(opensIn(b))
			mustTake(t, b, "urgent", 1)
			if n%500 != 1 && n != 5000 {
				continue
			}
			if want := Forecast(start, used, n); time.Since(want).Abs() > time.Second {
				t.Errorf("call %d came after %v, forecast %v", n, time.Since(start), want.Sub(start))
			}
		}
	})
}
