package service

import (
	"testing"
	"time"

	"example.com/unrestrict-worker/internal/config"
)

// TestOutWatch: each line is told every 5 s; from from until to somebody else has one request.
func TestOutWatch(t *testing.T) {
	set := config.Settings{AckWait: 20 * time.Second, Backoff: config.Backoff{Max: 50 * time.Second, Randomization: 0.5}} // so that a delay lasts for 100 s at most
	for name, c := range map[string]struct {
		before int
		look   func(tick int) consumerState
		hands  func(tick int) map[string][]int
		wanted func(tick int) bool
	}{
		"nobody has any": {
			look:   func(int) consumerState { return consumerState{Asked: true} },
			hands:  func(int) map[string][]int { return map[string][]int{"": {0, 0}} },
			wanted: func(int) bool { return false },
		},
		"in hand here and there, and delayed": {
			look:   func(int) consumerState { return consumerState{Out: 7, Asked: true} },
			hands:  func(int) map[string][]int { return map[string][]int{"": {1, 2}, "other": {4, 0}} },
			wanted: func(int) bool { return false },
		},
		"somebody else's": {
			look:   func(tick int) consumerState { return consumerState{Out: min(tick, 1) + 3, Asked: true, Floor: 4} },
			hands:  func(int) map[string][]int { return map[string][]int{"": {1, 2}} },
			wanted: func(tick int) bool { return tick >= 6 },
		},
		"somebody else's for twenty seconds": {
			look: func(tick int) consumerState {
				return consumerState{Out: map[bool]int{true: 1}[tick > 0 && tick < 5], Asked: true}
			},
			hands:  func(int) map[string][]int { return map[string][]int{"": {0, 0}} },
			wanted: func(int) bool { return false },
		},
		"all hands full: what is out waits for one": {
			look:   func(tick int) consumerState { return consumerState{Out: 20 * min(tick, 1)} },
			hands:  func(int) map[string][]int { return map[string][]int{"": {16, 0}} },
			wanted: func(int) bool { return false },
		},
		"much is taken, and seen a moment apart": {
			look: func(tick int) consumerState {
				return consumerState{Out: 16 * min(tick, 1), Asked: true, Floor: uint64(tick)}
			},
			hands:  func(int) map[string][]int { return map[string][]int{"": {15, 0}} },
			wanted: func(int) bool { return false },
		},
		"one that ended before left a delay that is over in time": {
			before: 1,
			look:   func(tick int) consumerState { return consumerState{Out: map[bool]int{true: 1}[tick < 18], Asked: true} },
			hands:  func(int) map[string][]int { return map[string][]int{"": {0, 0}} },
			wanted: func(int) bool { return false },
		},
		"one that ended before left what never comes back": {
			before: 1,
			look:   func(int) consumerState { return consumerState{Out: 1, Asked: true} },
			hands:  func(int) map[string][]int { return map[string][]int{"": {0, 0}} },
			wanted: func(tick int) bool { return tick >= 25 },
		},
		"a replica died, and its requests come back": {
			look: func(tick int) consumerState { return consumerState{Out: map[bool]int{true: 3}[tick < 14], Asked: true} },
			hands: func(tick int) map[string][]int {
				if tick < 10 {
					return map[string][]int{"": {0, 0}, "other": {3, 0}}
				}
				return map[string][]int{"": {0, 0}}
			},
			wanted: func(int) bool { return false },
		},
		"a replica died, and its requests do not come back": {
			look: func(int) consumerState { return consumerState{Out: 3, Asked: true} },
			hands: func(tick int) map[string][]int {
				if tick < 10 {
					return map[string][]int{"": {0, 0}, "other": {3, 0}}
				}
				return map[string][]int{"": {0, 0}}
			},
			wanted: func(tick int) bool { return tick >= 19 },
		},
	} {
		now := time.Date(2026, 11, 30, 12, 0, 0, 0, time.UTC)
		w := newOutWatch(set, now, c.before)
		for tick := range 40 {
			w.observe(now, c.look(tick), c.hands(tick))
			if said := len(w.conditions(nil)) > 0; said != c.wanted(tick) {
				t.Errorf("%s: after %v it is said: %t", name, time.Duration(tick)*watchEvery, said)
				break
			}
			now = now.Add(watchEvery)
		}
		w.observe(now, consumerState{Asked: true}, nil)
		if len(w.conditions(nil)) > 0 {
			t.Errorf("%s: it is said still", name)
		}
	}
}
