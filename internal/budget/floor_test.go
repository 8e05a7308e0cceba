package budget

import (
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"example.com/unrestrict-worker/internal/message"
)

func TestFloor(t *testing.T) {
	for _, test := range []struct{ limit, percent, lookups, normal, bulk int }{
		{100, 5, 0, 5, 10},
		{1500, 5, 30, 105, 180},
		{55, 5, 0, 3, 6},
		{20, 5, 0, 1, 2},
		{60, 5, 1, 4, 7},
		{20, 0, 0, 0, 0},
		{20, 0, 1, 1, 1},
		{20, 100, 0, 19, 19},
		{20, 50, 0, 10, 19},
		{2, 5, 1, 1, 1},
		{1, 5, 0, 0, 0},
	} {
		for l, want := range map[message.Lane]int{message.LaneUrgent: test.lookups, message.LaneNormal: test.normal, message.LaneBulk: test.bulk} {
			if got := Floor(l, test.limit, test.percent, test.lookups); got != want {
				t.Errorf("of %d calls, with %d %% and %d for look-ups, %s leaves %d, want %d", test.limit, test.percent, test.lookups, l, got, want)
			}
		}
	}
}

func inLanes(t *testing.T, windows []Window, f func(t *testing.T, b *Budget, m *memory)) {
	t.Helper()
	in(t, windows, func(t *testing.T, b *Budget, m *memory) {
		b.UrgentReserve = 5
		f(t, b, m)
	})
}

// Each lane leaves what it has to: of the minute, and of the hour.
func TestLanesLeaveTheirFloors(t *testing.T) {
	for _, windows := range [][]Window{Limits(55, 0), Limits(0, 55)} {
		for _, lookups := range []bool{false, true} {
			t.Run(fmt.Sprint(windows, lookups), func(t *testing.T) {
				inLanes(t, windows, func(t *testing.T, b *Budget, _ *memory) {
					b.SetReserve(lookups)
					kept := 0
					if lookups {
						kept = 1
					}
					mustTake(t, b, "bulk", 49-kept)
					mustWait(t, b, "bulk")
					mustTake(t, b, "normal", 3)
					mustWait(t, b, "normal")
					mustTake(t, b, "urgent", 3)
					mustWait(t, b, "urgent")
					mustTake(t, b, "lookup", kept)
					mustWait(t, b, "lookup")
					for _, l := range message.Lanes() {
						if in, closed := b.OpensIn(l); in <= 0 || closed {
							t.Errorf("%s opens in %v, closed %t", l, in, closed)
						}
					}
				})
			})
		}
	}
}

// take takes one call of a lane in the background, as soon as it may be had, and says so.
func take(t *testing.T, b *Budget, l message.Lane, wg *sync.WaitGroup, got func(message.Lane)) {
	wg.Go(func() {
		if _, err := b.Take(t.Context(), string(l)); err != nil {
			t.Errorf("%s: %v", l, err)
			return
		}
		got(l)
	})
}

// Urgent overtakes those who wait already, in their order or not.
func TestUrgentOvertakesWhoWaits(t *testing.T) {
	in(t, Limits(10, 0), func(t *testing.T, b *Budget, _ *memory) {
		b.MaxHold = time.Hour
		for range 10 {
			mustTake(t, b, "bulk", 1)
			time.Sleep(time.Second)
		}
		var mu sync.Mutex
		var order []message.Lane
		var wg sync.WaitGroup
		got := func(l message.Lane) { mu.Lock(); defer mu.Unlock(); order = append(order, l) }
		for range 3 {
			take(t, b, message.LaneBulk, &wg, got)
		}
		synctest.Wait()
		take(t, b, message.LaneNormal, &wg, got)
		synctest.Wait()
		take(t, b, message.LaneUrgent, &wg, got)
		wg.Wait()
		if got, want := fmt.Sprint(order), "[urgent normal bulk bulk bulk]"; got != want {
			t.Errorf("calls went to %s, want %s", got, want)
		}
	})
}

// Where calls come free one by one normal, which may go lower, leaves each fourth to bulk: one in hand, or one that waits in its
// stream alone, as long as that is said.
func TestBulkGetsEachFourth(t *testing.T) {
	inLanes(t, Limits(60, 0), func(t *testing.T, b *Budget, _ *memory) {
		for range 60 { // one a second comes free from now on
			if _, err := b.Take(t.Context(), "lookup"); err != nil {
				t.Fatal(err)
			}
			time.Sleep(time.Second)
		}
		count := map[message.Lane]int{}
		var wg sync.WaitGroup
		end := time.Now().Add(10 * time.Minute)
		for _, l := range []message.Lane{message.LaneNormal, message.LaneBulk} {
			wg.Go(func() {
				for time.Now().Before(end) {
					if in, _ := b.OpensIn(l); in > 0 { // as the service does it
						b.NoteWaiting(l)
						time.Sleep(min(in, time.Second))
						continue
					}
					if _, err := b.Take(t.Context(), string(l)); err == nil {
						b.mu.Lock()
						count[l]++
						b.mu.Unlock()
					}
				}
			})
		}
		wg.Wait()
		if n, all := count[message.LaneBulk], count[message.LaneBulk]+count[message.LaneNormal]; n*4 < all-8 || n*4 > all+8 || all < 550 {
			t.Errorf("bulk got %d of %d calls, want a quarter of nearly 600", n, all)
		}
	})
}

// Who floods urgent beyond its reserve leaves one call of ten to the others, and no one of the reserve before.
func TestOthersAreNotStarvedByUrgent(t *testing.T) {
	inLanes(t, Limits(60, 0), func(t *testing.T, b *Budget, m *memory) {
		b.MaxHold = time.Second
		for range 51 {
			mustTake(t, b, "lookup", 1)
			time.Sleep(time.Second)
		}
		b.NoteWaiting(message.LaneNormal) // whose floor is 3
		mustTake(t, b, "urgent", 9)       // the whole window
		end, count := time.Now().Add(10*time.Minute), map[message.Lane]int{}
		var mu sync.Mutex
		var wg sync.WaitGroup
		for _, l := range message.Lanes() {
			wg.Go(func() {
				for time.Now().Before(end) {
					if _, err := b.Take(t.Context(), string(l)); err != nil {
						time.Sleep(100 * time.Millisecond)
						continue
					}
					mu.Lock()
					count[l]++
					mu.Unlock()
				}
			})
		}
		wg.Wait()
		others := count[message.LaneNormal] + count[message.LaneBulk]
		if all := others + count[message.LaneUrgent]; others*10 < all-20 || others*10 > all+20 || count[message.LaneBulk] == 0 {
			t.Errorf("calls went to %v, want one of ten to those that are not urgent", count)
		}
	})
}

// A message that is in hand has the call before those behind it in its lane, though it asks later; not when it asks too late, or
// not at all.
func TestFirstInFirstOut(t *testing.T) {
	for name, test := range map[string]struct {
		after time.Duration // until the first one asks; 0: it never does
		gone  time.Duration // until the first one is not in hand any more
		want  string
		took  time.Duration
	}{
		"asks soon":       {after: 100 * time.Millisecond, gone: time.Second, want: "[1 2]", took: 100 * time.Millisecond},
		"asks too late":   {after: time.Second, gone: time.Second, want: "[2 1]", took: asksWithin},
		"asks for none":   {gone: 10 * time.Millisecond, want: "[2]", took: 10 * time.Millisecond},
		"waits elsewhere": {gone: time.Hour, want: "[2]", took: asksWithin},
	} {
		t.Run(name, func(t *testing.T) {
			in(t, Limits(10, 0), func(t *testing.T, b *Budget, _ *memory) {
				var order []uint64
				var mu sync.Mutex
				start, first := time.Now(), time.Duration(0)
				ask := func(sequence uint64) {
					_, err := b.Take(message.WithDelivery(t.Context(), message.Delivery{Sequence: sequence}), "normal")
					mu.Lock()
					defer mu.Unlock()
					if len(order) == 0 {
						first = time.Since(start)
					}
					if order = append(order, sequence); err != nil {
						t.Error(err)
					}
				}
				gone := b.Expect(message.LaneNormal, 1)
				other := b.Expect(message.LaneBulk, 1) // another lane's, which nobody waits for
				var wg sync.WaitGroup
				wg.Go(func() { ask(2) })
				if test.after > 0 {
					wg.Go(func() { time.Sleep(test.after); ask(1) })
				}
				wg.Go(func() { time.Sleep(test.gone); gone(); other() })
				wg.Wait()
				if got := fmt.Sprint(order); got != test.want || first != test.took {
					t.Errorf("calls went to %s, the first after %v; want %s, %v", got, first, test.want, test.took)
				}
				if len(b.line.expected) != 0 {
					t.Error("still expected")
				}
			})
		})
	}
}
