package budget

import (
	"time"

	"example.com/unrestrict-worker/internal/message"
)

// near is how close to its floor a grant is given only if nobody has been given one since the window was looked at: for each
// process that takes from it.
const near = 10

// Floor is how many calls of a window a lane leaves untouched, beside what is left to look-ups: urgent none, normal percent of
// the limit, bulk twice that, each rounded up, and never all of it.
func Floor(l message.Lane, limit, percent, lookups int) int {
	shares := map[message.Lane]int{message.LaneNormal: 1, message.LaneBulk: 2}[l]
	return max(0, min(lookups+(limit*percent*shares+99)/100, limit-1))
}

// floor is how many calls of a window a use leaves now. The caller holds mu.
//
// Where calls come free one by one, those with the lowest floor would take each of them. So a call that is due to another lane
// goes down to the floor of the lane before it, which leaves one more meanwhile: each fourth after three of normal is bulk's,
// and, once urgent has used up all that was kept for it, each tenth after nine of urgent is one of the others'.
func (b *Budget) floor(w *window, use string) int {
	if use == useLookup || use == useFollow {
		return 0
	}
	limit, lookups, l := w.seen.Limit, 0, message.Lane(use)
	if b.reserved.Load() {
		lookups = w.reserve()
	}
	as, yields := b.line.standing(l)
	floor := Floor(as, limit, b.UrgentReserve, lookups)
	if yields {
		floor = max(0, min(floor+1, limit-1))
	}
	return floor
}

// unchanged is the last grant that a use near its floor must have seen, for others to have taken none meanwhile: so floors hold
// over all processes. The limit itself the store keeps.
func (b *Budget) unchanged(w *window, use string) *uint64 {
	b.mu.Lock()
	defer b.mu.Unlock()
	floor := b.floor(w, use)
	if floor == 0 || w.seen.Left-floor > near*(1+w.seen.Others) {
		return nil
	}
	last := w.seen.Last
	return &last
}

// Await says that requests of a lane wait where this process knows of it, but has none in hand. It holds for a few seconds.
func (b *Budget) Await(l message.Lane) { b.line.await(l, time.Now().Add(awaitsFor)) }

// awaitsFor is a little longer than a lane that waits says so again.
const awaitsFor = 3 * time.Second
