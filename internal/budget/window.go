package budget

import "time"

// window is what one process knows of a window: the last state that the store reported, and this process's own grants by its
// own clock. The latter keep the limit, at least for this process, when the store's clock jumps ahead and its grants age out
// early. It belongs to a Budget, and is guarded by its lock.
type window struct {
	Window
	seen   State
	at     time.Time   // when the store reported it
	grants []time.Time // those that still count, oldest first; empty without a limit
}

func newWindow(w Window) *window {
	return &window{Window: w, seen: State{Limit: w.Limit, Left: w.Limit}, at: time.Now()}
}

func (w *window) observe(s State, now time.Time) {
	w.seen, w.at = s, now
	if s.Limit == 0 {
		w.grants = nil
	}
}

func (w *window) record(now time.Time) {
	if w.seen.Limit == 0 {
		return
	}
	w.prune(now)
	w.grants = append(w.grants, now)
	w.seen.Left--
}

// wait is how long until a call is available that leaves the floor untouched. late: the store still counts a grant that
// should have aged out.
func (w *window) wait(now time.Time, floor int) (d time.Duration, late bool) {
	if w.seen.Limit == 0 {
		return 0, false
	}
	if w.seen.Left <= floor {
		d = w.seen.NextIn - now.Sub(w.at)
		late = d <= 0
	}
	w.prune(now)
	if over := len(w.grants) - (w.seen.Limit - floor); over >= 0 {
		d = max(d, w.grants[over].Add(w.Span()).Sub(now))
	}
	return max(d, 0), late && d <= 0
}

// reserve is how many calls of a window are reserved for look-ups: 2 %, but never all of it. Several processes may each see
// the last call above the reserve and take it. A minute window soon recovers from that; in a longer one, one call is
// reserved for each process, up to a tenth.
func (w *window) reserve() int {
	limit, racing := w.seen.Limit, 0
	if w.Per > time.Minute {
		racing = min(1+w.seen.Others, limit/10)
	}
	return min(max(1, limit/50, racing), limit-1)
}

func (w *window) prune(now time.Time) {
	gone := 0
	for gone < len(w.grants) && now.Sub(w.grants[gone]) >= w.Span() {
		gone++
	}
	w.grants = w.grants[gone:]
}
