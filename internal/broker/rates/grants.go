package rates

import (
	"context"
	"slices"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"example.com/unrestrict-worker/internal/budget"
)

// grants is what this process has seen of a window's grants, by the broker's clock. It distinguishes a grant that has aged out
// from one that somebody removed from the stream (purged, deleted, or dropped by a limit that others set), which still counts.
type grants struct {
	seen    []grant // the stream's last grant at some of the looks, by sequence
	first   uint64  // the stream's first sequence at the last look
	deleted int     // how many grants were deleted between others, at the last look
}

// grant is one that was the stream's last at a look.
type grant struct {
	seq   uint64
	given time.Time
	until time.Time // it was the last one at least until then, so later grants were given after that
}

// clocks is by how much the clocks of two servers may differ.
const clocks = time.Second

// steps is into how many intervals a window is divided at most. A loss within the last interval may be missed.
const steps = 500

// look records what the stream has now, and reports whether the stream has lost a grant that is younger than lasts.
func (g *grants) look(info *jetstream.StreamInfo, lasts time.Duration) (lost bool) {
	now, state := info.TimeStamp, info.State
	if state.LastSeq == 0 {
		return false
	}
	young := func(given time.Time) bool { return !given.IsZero() && now.Sub(given) < lasts-clocks }
	given := g.given(state.FirstSeq - 1)
	if state.Msgs == 0 {
		given = state.LastTime
	}
	lost = state.NumDeleted > g.deleted || state.FirstSeq > max(g.first, 1) && young(given)
	g.first, g.deleted = state.FirstSeq, state.NumDeleted
	g.seen = slices.DeleteFunc(g.seen, func(o grant) bool { return !young(o.until) })
	switch n := len(g.seen); {
	case n > 0 && g.seen[n-1].seq == state.LastSeq:
		g.seen[n-1].until = now
	case n == 0 || now.Sub(g.seen[n-1].until) >= lasts/steps:
		g.seen = append(g.seen, grant{state.LastSeq, state.LastTime, now})
	}
	return lost
}

// given is when a grant was given, or else the latest time that is known to be before that; zero: not known.
func (g *grants) given(seq uint64) (at time.Time) {
	for _, o := range g.seen {
		if o.seq == seq {
			return o.given
		}
		if o.seq < seq {
			at = o.until
		}
	}
	return at
}

// remember marks a window as incomplete if its stream has lost grants that still count. After a crash before the mark is written,
// another process that has seen those grants writes it, or the next one if the stream is empty.
func (s *Store) remember(ctx context.Context, w budget.Window, info *jetstream.StreamInfo) error {
	g := s.grants[w.Name]
	if g == nil || info.State.LastSeq+1 < g.first { // a recreated stream, for which identify has written the mark
		g = &grants{}
	}
	before := *g
	if s.grants[w.Name] = g; !g.look(info, w.Span()) {
		return nil
	}
	err := s.mark(ctx, w)
	if err != nil {
		*g = before // the next look finds the loss again
	}
	return err
}
