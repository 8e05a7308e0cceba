package budget

import (
	"iter"
	"slices"
	"time"
)

// Used is a window with the calls that count in it.
type Used struct {
	Window
	Leaves [3]int      // calls that each lane leaves untouched, the most urgent lane first
	Grants []time.Time // oldest first
}

// Forecast is what is known of the calls to come.
type Forecast struct {
	Windows []Used
	Waiting [3]int        // requests that wait to be called, by lane, the most urgent first
	Follow  time.Duration // how often the actions that are followed are looked up, if there is quota; 0: never
}

// followShare is the share of the quota that following takes at most while requests wait for it (contract, WORKER_POLL_INTERVAL).
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

// Calls yields the lane and the time of each call to come, in their order, if every call is made as soon as the windows allow
// it, no request comes, and nobody else makes any. It walks the windows forward, in which each call counts for as long as the
// grants that are there.
func (f Forecast) Calls(now time.Time) iter.Seq2[int, time.Time] {
	return func(yield func(lane int, at time.Time) bool) {
		w := walk{at: now, windows: slices.Clone(f.Windows), waiting: f.Waiting}
		for i := range w.windows {
			w.windows[i].Grants = slices.Clip(w.windows[i].Grants)
		}
		every := f.followEvery()
		for follow := now.Add(every); w.waiting != [3]int{}; {
			lane, at := w.next()
			if every > 0 && !follow.After(at) { // it leaves nothing untouched, and so has a call no later than any lane
				w.made(later(follow, w.free(func(Used) int { return 0 })))
				follow = w.at.Add(every)
				continue
			}
			w.made(at)
			w.turn = w.turn.after(lane)
			if w.waiting[lane]--; !yield(lane, at) {
				return
			}
		}
	}
}

// Latest is the forecast if all that each lane leaves untouched is used up by others in every window ahead. As long as no more
// than that is used by others, no call comes later than it says.
func (f Forecast) Latest() Forecast {
	f.Windows = slices.Clone(f.Windows)
	for i := range f.Windows {
		for lane := range f.Windows[i].Leaves {
			f.Windows[i].Leaves[lane] *= 2
		}
	}
	return f
}

// walk is where a forecast has come to.
type walk struct {
	at      time.Time // of the last call
	windows []Used
	waiting [3]int
	turn    turns
}

// next is the lane that the next call is of, and its time: of those that may be called first, the one whose turn it is.
func (w *walk) next() (lane int, at time.Time) {
	var free [3]time.Time
	var may [3]bool
	for l := range free {
		if w.waiting[l] > 0 {
			if free[l] = w.freeFor(l); at.IsZero() || free[l].Before(at) {
				at = free[l]
			}
		}
	}
	for l := range free {
		may[l] = w.waiting[l] > 0 && !free[l].After(at)
	}
	return w.turn.next(may), at
}

// freeFor is when a lane may be called next.
func (w *walk) freeFor(lane int) time.Time {
	leaves := lane
	if lane == bulk && w.waiting[normal] > 0 && w.turn.bulkIsDue() {
		leaves = normal
	}
	return w.free(func(u Used) int { return u.Leaves[leaves] })
}

// free is when a call may be had that leaves so many of each window.
func (w *walk) free(leaves func(Used) int) time.Time {
	at := w.at
	for _, u := range w.windows {
		if n := len(u.Grants) - max(1, u.Limit-leaves(u)); u.Limit > 0 && n >= 0 {
			at = later(at, u.Grants[n].Add(u.Lasts()))
		}
	}
	return at
}

func (w *walk) made(at time.Time) {
	w.at = at
	for i := range w.windows {
		w.windows[i].Grants = append(w.windows[i].Grants, at)
	}
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

const (
	urgent = iota
	normal
	bulk
)

// turns is whose turn it is.
type turns struct {
	urgent int // calls of urgent since another lane's
	normal int // calls of normal since one of bulk
}

func (t turns) bulkIsDue() bool { return t.normal >= 3 }

func (t turns) next(may [3]bool) int {
	switch others := may[normal] || may[bulk]; {
	case may[urgent] && (t.urgent < 9 || !others):
		return urgent
	case may[normal] && (!may[bulk] || !t.bulkIsDue()):
		return normal
	}
	return bulk
}

func (t turns) after(lane int) turns {
	switch lane {
	case urgent:
		t.urgent++
	case normal:
		t.urgent, t.normal = 0, t.normal+1
	default:
		t = turns{}
	}
	return t
}

// Leaves is what each lane leaves untouched of a window: urgent what is left to look-ups, normal so many percent for urgent, and
// bulk twice that, never all of it.
func Leaves(w Window, lookups, percent int) [3]int {
	if w.Limit == 0 {
		return [3]int{}
	}
	above := func(times int) int {
		return min(lookups+(w.Limit*percent*times+99)/100, w.Limit-1)
	}
	return [3]int{above(0), above(1), above(2)}
}
