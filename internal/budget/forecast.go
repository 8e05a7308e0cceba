package budget

import (
	"iter"
	"slices"
	"time"

	"example.com/unrestrict-worker/internal/message"
)

// Used is a window with the calls that count in it.
type Used struct {
	Window
	Floors ByLane      // calls that each lane leaves untouched
	Grants []time.Time // oldest first
}

// ByLane has a number for each lane, in the order of message.Lanes.
type ByLane [3]int

// Of is the number of a lane.
func (b ByLane) Of(l message.Lane) int { return b[index(l)] }

// AtLeast raises the number of a lane.
func (b *ByLane) AtLeast(l message.Lane, n int) { b[index(l)] = max(b[index(l)], n) }

// index is where a lane stands in a ByLane.
func index(l message.Lane) int {
	switch l {
	case message.LaneUrgent:
		return 0
	case message.LaneBulk:
		return 2
	}
	return 1
}

// Leaving is the window with floors, as Take keeps them.
func (u Used) Leaving(percent, lookups int) Used {
	for i, l := range message.Lanes() {
		u.Floors[i] = Floor(l, u.Limit, percent, lookups)
	}
	return u
}

// Forecast is what is known of the calls to come.
type Forecast struct {
	Windows []Used
	Waiting ByLane        // requests that wait to be called
	Follow  time.Duration // how often the actions that are followed are looked up, if there is quota; 0: never
}

// Calls yields the lane and the time of each call to come, in their order, if every call is made as soon as the windows allow
// it, no request comes, and nobody else makes any. It walks the windows forward, in which each call counts for as long as the
// grants that are there.
func (f Forecast) Calls(now time.Time) iter.Seq2[message.Lane, time.Time] {
	return func(yield func(l message.Lane, at time.Time) bool) {
		every := f.followEvery()
		w := walk{at: now, windows: slices.Clone(f.Windows), waiting: f.Waiting}
		for i := range w.windows {
			w.windows[i].Grants = slices.Clip(w.windows[i].Grants)
		}
		for follow := now.Add(every); w.waiting != (ByLane{}); {
			l, at := w.next()
			if every > 0 && !follow.After(at) { // it leaves nothing untouched, and so has a call no later than any lane
				w.made(later(follow, w.free(func(Used) int { return 0 })))
				follow = w.at.Add(every)
				continue
			}
			w.made(at)
			w.turns, w.spent = w.turns.After(l), w.spent && l == message.LaneUrgent
			if w.waiting[index(l)]--; !yield(l, at) {
				return
			}
		}
	}
}

// Latest is the forecast if others use up all that each lane leaves untouched in every window ahead. As long as they use no
// more than that, no call comes later than it says.
func (f Forecast) Latest() Forecast {
	f.Windows = slices.Clone(f.Windows)
	for i := range f.Windows {
		for lane := range f.Windows[i].Floors {
			f.Windows[i].Floors[lane] *= 2
		}
	}
	return f
}

// followShare is the share of the quota that following takes at most while requests wait for it (README, how fast).
const followShare = 0.03

// followEvery is how often following takes a call.
func (f Forecast) followEvery() time.Duration {
	every := f.Follow
	for _, w := range f.Windows {
		if every > 0 && w.Limit > 0 {
			every = max(every, time.Duration(float64(w.Per)/(followShare*float64(w.Limit))).Truncate(time.Second))
		}
	}
	return every
}
