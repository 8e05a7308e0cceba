package budget

import (
	"math/rand/v2"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/zap"
)

// Each window's margin counts from its own request to the store, and once the store was slow the hour is asked first: one
// that needs nearly all of the minute's margin for each of its answers still grants calls that can be made.
func TestTakeFromASlowStore(t *testing.T) {
	for _, test := range []struct {
		name         string
		hour, minute time.Duration // until the store has answered
		fresh        time.Duration // for how long the call may start afterwards
	}{
		{"at once", 0, 0, 500 * time.Millisecond},
		{"slow", 400 * time.Millisecond, 400 * time.Millisecond, 100 * time.Millisecond},
		{"slow for the hour", 1500 * time.Millisecond, 100 * time.Millisecond, 400 * time.Millisecond},
		{"the hour's margin ends first", 1800 * time.Millisecond, 50 * time.Millisecond, 150 * time.Millisecond},
		{"too slow for the minute", 0, 501 * time.Millisecond, -1},
		{"too slow for the hour", 2001 * time.Millisecond, 0, -1},
	} {
		t.Run(test.name, func(t *testing.T) {
			in(t, Limits(100, 1500), func(t *testing.T, b *Budget, m *memory) {
				m.slow = map[string][2]time.Duration{"hour": {test.hour, 0}, "minute": {0, test.minute}}
				granted := mustTake(t, b, "unrestrict", 2)
				if test.fresh >= 0 {
					time.Sleep(test.fresh)
					if !b.Fresh(granted) {
						t.Errorf("not fresh after %v", test.fresh)
					}
				}
				time.Sleep(time.Millisecond)
				if b.Fresh(granted) {
					t.Error("still fresh a millisecond later")
				}
			})
		})
	}
}

// However slow the store is, and wherever on the way: a call that may start is covered by every window's grant for as
// long as the API may count it there.
func TestFreshIsCoveredByEveryWindow(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	some := func() time.Duration { return time.Duration(random.IntN(900)) * time.Millisecond }
	in(t, Limits(100, 1500), func(t *testing.T, b *Budget, m *memory) {
		made := 0
		for range 1000 {
			m.slow = map[string][2]time.Duration{"hour": {some(), some()}, "minute": {some() / 4, some() / 4}}
			granted := mustTake(t, b, "unrestrict", 1)
			time.Sleep(some() / 4)
			if b.Fresh(granted) {
				made++
				for name, w := range m.windows {
					if taken := m.grants[name][len(m.grants[name])-1]; time.Since(taken) > w.Margin {
						t.Fatalf("a call starts %v after the store counted it in the %s", time.Since(taken), name)
					}
				}
			}
			time.Sleep(5 * time.Second)
		}
		if made < 100 {
			t.Errorf("%d calls of 1000: nothing was tried", made)
		}
	})
}

// A limit that went (of another replica, which is gone) counts for the grants from before.
func TestFreshAfterTheLimitWent(t *testing.T) {
	in(t, Limits(0, 100), func(t *testing.T, b *Budget, m *memory) {
		limit := func(n int) {
			m.set(func() { w := m.windows["minute"]; w.Limit = n; m.windows["minute"] = w })
		}
		limit(10)
		m.slow = map[string][2]time.Duration{"hour": {1500 * time.Millisecond, 0}}
		granted := mustTake(t, b, "unrestrict", 1)
		limit(0)
		if _, err := b.Remaining(t.Context()); err != nil {
			t.Fatal(err)
		}
		time.Sleep(501 * time.Millisecond)
		if b.Fresh(granted) {
			t.Error("fresh past the hour's margin")
		}
	})
}

// With a slow store a race that is lost in the minute leaves a call of the hour in hand. The next try uses it, while its
// margin allows that.
func TestTakeKeepsTheHoursCallAfterALostRace(t *testing.T) {
	for _, test := range []struct {
		name string
		room time.Duration // until the next call of the minute
		hour int           // taken in all for the one call
	}{
		{"room soon", time.Second, 1},
		{"room too late", 1600 * time.Millisecond, 2},
	} {
		t.Run(test.name, func(t *testing.T) {
			in(t, Limits(1, 100), func(t *testing.T, b *Budget, m *memory) {
				b.pace = time.Second
				stolen := false
				m.fault = func(window string) (bool, error) {
					if w := m.windows["minute"]; window == "hour" && !stolen {
						stolen = true
						m.grants["minute"] = []time.Time{time.Now().Add(test.room - w.Per - w.Margin)}
					}
					return true, nil
				}
				start := time.Now()
				granted := mustTake(t, b, "unrestrict", 1)
				if d := time.Since(start); d < test.room || d > test.room+again || !b.Fresh(granted) {
					t.Errorf("granted after %v (fresh: %v), want %v", d, b.Fresh(granted), test.room)
				}
				if m.taken["hour"] != test.hour || m.taken["minute"] != 1 {
					t.Errorf("taken %v, want %d of the hour", m.taken, test.hour)
				}
			})
		})
	}
}

// Three replicas wait for the same minute, in which there is room for one call at a time: each is a race for all of them.
func TestReplicasWasteLittleOfTheHour(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMemory(Limits(100, 1500))
		m.delay = 2 * time.Millisecond
		m.slow = map[string][2]time.Duration{"hour": {time.Millisecond, time.Millisecond}, "minute": {time.Millisecond, time.Millisecond}}
		for i := range 100 {
			m.grants["minute"] = append(m.grants["minute"], time.Now().Add(time.Duration(i-100)*600*time.Millisecond))
		}
		calls, end := make(chan int), time.Now().Add(5*time.Minute)
		for range 3 {
			b, n := New(m, Limits(100, 1500), zap.NewNop(), nil), 0
			go func() {
				for time.Now().Before(end) {
					if granted, err := b.Take(t.Context(), "unrestrict"); err == nil && b.Fresh(granted) {
						n++
					}
					time.Sleep(min(b.OpenIn(), time.Second))
				}
				calls <- n
			}()
		}
		n := <-calls + <-calls + <-calls
		if wasted := m.taken["hour"] - n; n < 450 || wasted*20 > n {
			t.Errorf("%d of the hour wasted for %d calls", wasted, n)
		}
	})
}
