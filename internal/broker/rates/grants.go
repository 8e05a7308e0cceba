package rates

import (
	"context"
	"slices"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"example.com/unrestrict-worker/internal/budget"
)

// grants is what this process has seen of a window's grants, by the broker's clock: enough to tell a grant that has aged out
// from one that somebody has taken out of the stream (purged, deleted, or dropped by a limit of others), and that counts still.
type grants struct {
	seen    []grant // the last one of some looks, by sequence
	first   uint64  // of the last look
	deleted int     // amid the others, at the last look
}

// grant is one that was the last of a look.
type grant struct {
	seq   uint64
	given time.Time
	until time.Time // it was the last one until then at least: those behind it were given later
}

// clocks is by how much two servers' clocks may differ.
const clocks = time.Second

// steps is into how many a window is divided at most: a loss in the last of them may be missed.
const steps = 500

// look is told what the stream has now, and reports whether it has lost a grant that is younger than lasts.
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

// given is when a grant was given, or a time that it was not given before; zero: not known.
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

// remember marks a window as incomplete if its stream has lost grants that count still. A crash before the mark is written
// leaves that to another process which has seen them, or to the next one where the stream is empty.
func (s *Store) remember(ctx context.Context, w budget.Window, info *jetstream.StreamInfo) error {
	g := s.grants[w.Name]
	if g == nil || info.State.LastSeq+1 < g.first { // another stream, which identify has marked
		g = &grants{}
	}
	before := *g
	if s.grants[w.Name] = g; !g.look(info, w.Lasts()) {
		return nil
	}
	err := s.mark(ctx, w)
	if err != nil {
		*g = before // it is seen again
	}
	return err
}
