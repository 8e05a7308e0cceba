package budget

import (
	"math/rand/v2"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/zap"
)

// The way to the store and back is part of the way to the call, for each window.
func TestTakeFromASlowStore(t *testing.T) {
	for _, test := range []struct {
		name         string
		minute, hour time.Duration // until the store has answered
		fresh        time.Duration // for how long the call may start afterwards
	}{
		{"at once", 0, 0, StartLimit},
		{"slow", StartLimit / 4, StartLimit / 4, StartLimit / 2},
		{"slow for the minute", StartLimit * 3 / 4, 0, StartLimit / 4},
		{"too slow", StartLimit, 1, -1},
	} {
		t.Run(test.name, func(t *testing.T) {
			in(t, Limits(100, 1500), func(t *testing.T, b *Budget, m *memory) {
				m.slow = map[string][2]time.Duration{"minute": {0, test.minute}, "hour": {test.hour, 0}}
				granted := mustTake(t, b, "urgent", 2)
				if test.fresh >= 0 {
					time.Sleep(test.fresh)
					if !b.Fresh(granted) {
						t.Errorf("not fresh after %v", test.fresh)
					}
				}
				time.Sleep(time.Nanosecond)
				if b.Fresh(granted) {
					t.Error("still fresh")
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
			m.slow = map[string][2]time.Duration{"hour": {some(), some()}, "minute": {some(), some()}}
			granted := mustTake(t, b, "urgent", 1)
			time.Sleep(some())
			if b.Fresh(granted) {
				made++
				for name := range m.windows {
					if taken := m.grants[name][len(m.grants[name])-1]; time.Since(taken) > StartLimit {
						t.Fatalf("a call starts %v after the store counted it in the %s", time.Since(taken), name)
					}
				}
			}
			time.Sleep(5 * time.Second)
		}
		if made < 100 || made > 900 {
			t.Errorf("%d calls of 1000: one side was not tried", made)
		}
	})
}

// Three replicas wait for the same minute, in which there is room for one call at a time: each is a race for all of them.
func TestReplicasWasteNothingOfTheHour(t *testing.T) {
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
					if granted, err := b.Take(t.Context(), "urgent"); err == nil && b.Fresh(granted) {
						n++
					}
					time.Sleep(min(opensIn(b), time.Second))
				}
				calls <- n
			}()
		}
		if n := <-calls + <-calls + <-calls; n < 450 || m.taken["hour"] != n {
			t.Errorf("%d of the hour taken for %d calls", m.taken["hour"], n)
		}
	})
}
