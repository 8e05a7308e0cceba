package budget

import (
	"time"

	"example.com/unrestrict-worker/internal/message"
)

// nearFloor is how many calls above its floor, for each process that takes from the window, a use gets a grant only if no
// other was given since the window was looked at (unchanged).
const nearFloor = 10

// Floor is how many calls of a window a lane leaves untouched, besides those reserved for look-ups: urgent none, normal
// percent of the limit, bulk twice that, each rounded up, and never the whole limit.
func Floor(l message.Lane, limit, percent, lookups int) int {
	shares := map[message.Lane]int{message.LaneNormal: 1, message.LaneBulk: 2}[l]
	return max(0, min(lookups+(limit*percent*shares+99)/100, limit-1))
}

// floor is how many calls of a window a use must leave now. The caller holds mu.
//
// Where calls come free one by one, the lanes with the lowest floor would take each of them. So a lane that is due gets the
// floor of the lane before it, which meanwhile leaves one call more: after three calls of normal the fourth is bulk's. And
// once urgent has used up everything that was kept for it, each tenth call, after nine of urgent, goes to one of the other
// lanes.
func (b *Budget) floor(w *window, use string) int {
	if use == useLookup || use == useFollow {
		return 0
	}
	limit, lookups, l := w.seen.Limit, 0, message.Lane(use)
	if b.reserved.Load() {
		lookups = w.reserve()
	}
	as, yields := b.line.floorLane(l)
	floor := Floor(as, limit, b.UrgentReserve, lookups)
	if yields {
		floor = max(0, min(floor+1, limit-1))
	}
	return floor
}

// unchanged is the last grant seen, if a use is near its floor; else nil. The store then refuses to grant if another grant
// was given meanwhile, so that floors hold across all processes. The store itself enforces only the limit.
func (b *Budget) unchanged(w *window, use string) *uint64 {
	b.mu.Lock()
	defer b.mu.Unlock()
	floor := b.floor(w, use)
	if floor == 0 || w.seen.Left-floor > nearFloor*(1+w.seen.Others) {
		return nil
	}
	last := w.seen.Last
	return &last
}

// NoteWaiting records that requests of a lane wait elsewhere, where this process knows of them but has none in hand. It holds for
// awaitsFor.
func (b *Budget) NoteWaiting(l message.Lane) { b.line.await(l, time.Now().Add(awaitsFor)) }

// awaitsFor is a little longer than the interval at which NoteWaiting is repeated for a waiting lane.
const awaitsFor = 3 * time.Second
