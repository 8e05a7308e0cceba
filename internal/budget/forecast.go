package budget

import (
	"iter"
	"slices"
	"time"

	"example.com/unrestrict-worker/internal/message"
)

// Used is a window with the grants that count in it.
type Used struct {
	Window
	Floors ByLane      // by lane: calls that it leaves untouched
	Grants []time.Time // oldest first
}

// ByLane has a number for each lane, in the order of message.Lanes.
type ByLane [3]int

// Of returns the number of a lane.
func (b ByLane) Of(l message.Lane) int { return b[index(l)] }

// AtLeast raises the number of a lane to n if it is lower.
func (b *ByLane) AtLeast(l message.Lane, n int) { b[index(l)] = max(b[index(l)], n) }

// index is the position of a lane in a ByLane.
func index(l message.Lane) int {
	switch l {
	case message.LaneUrgent:
		return 0
	case message.LaneBulk:
		return 2
	}
	return 1
}

// Leaving returns the window with the floors that Take keeps.
func (u Used) Leaving(percent, lookups int) Used {
	for i, l := range message.Lanes() {
		u.Floors[i] = Floor(l, u.Limit, percent, lookups)
	}
	return u
}

// Forecast is what is known about the calls to come.
type Forecast struct {
	Windows []Used
	Waiting ByLane        // requests that wait to be called
	Follow  time.Duration // interval of looking up followed actions, quota permitting; 0: never
}

// Calls yields the lane and the time of each call to come, in order. It assumes that every call is made as soon as the
// windows allow it, that no request arrives, and that no other program makes calls. It walks the windows forward: each call
// counts in them for as long as a stored grant does.
func (f Forecast) Calls(now time.Time) iter.Seq2[message.Lane, time.Time] {
	return func(yield func(l message.Lane, at time.Time) bool) {
		every := f.followEvery()
		w := walk{at: now, windows: slices.Clone(f.Windows), waiting: f.Waiting}
		for i := range w.windows {
			w.windows[i].Grants = slices.Clip(w.windows[i].Grants)
		}
		for follow := now.Add(every); w.waiting != (ByLane{}); {
			l, at := w.next()
			if every > 0 && !follow.After(at) { // following has no floor, so its call is free no later than any lane's
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

// Latest is the forecast if others use up everything that each lane leaves untouched in every window ahead. As long as they
// use no more than that, no call comes later than it shows.
func (f Forecast) Latest() Forecast {
	f.Windows = slices.Clone(f.Windows)
	for i := range f.Windows {
		for lane := range f.Windows[i].Floors {
			f.Windows[i].Floors[lane] *= 2
		}
	}
	return f
}

// followShare is the largest share of the quota that following takes while requests wait for it (README, how fast).
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
