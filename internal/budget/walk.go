package budget

import (
	"time"

	"example.com/unrestrict-worker/internal/message"
)

// walk is the state of a forecast.
type walk struct {
	at      time.Time // of the last call
	windows []Used
	waiting ByLane
	turns   Turns
	spent   bool // urgent had to wait, and no other lane got a call since
}

// next is the lane and the time of the next call: of the lanes that can be called first, the one whose turn it is.
func (w *walk) next() (l message.Lane, at time.Time) {
	var free [3]time.Time
	w.spent = w.spent || w.waits(message.LaneUrgent) && w.leaving(message.LaneUrgent, 0).After(w.at)
	for i, l := range [...]message.Lane{message.LaneUrgent, message.LaneNormal, message.LaneBulk} {
		if !w.waits(l) {
			continue
		}
		as, yields := w.turns.floorLane(l, w.waits, w.spent)
		more := 0
		if yields {
			more = 1
		}
		if free[i] = w.leaving(as, more); at.IsZero() || free[i].Before(at) {
			at = free[i]
		}
	}
	return w.turns.Next(func(l message.Lane) bool { return w.waits(l) && !free[index(l)].After(at) }), at
}

func (w *walk) waits(l message.Lane) bool { return w.waiting[index(l)] > 0 }

// leaving is when a call is available that leaves a lane's floor untouched, and so many calls more.
func (w *walk) leaving(l message.Lane, more int) time.Time {
	return w.free(func(u Used) int { return u.Floors[index(l)] + more })
}

// free is when a call is available that leaves so many calls of each window.
func (w *walk) free(leaves func(Used) int) time.Time {
	at := w.at
	for _, u := range w.windows {
		if n := len(u.Grants) - max(1, u.Limit-leaves(u)); u.Limit > 0 && n >= 0 {
			at = later(at, u.Grants[n].Add(u.Span()))
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
