package rates

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"example.com/unrestrict-worker/internal/budget"
)

// codeFull is the error code of a publish that a stream refuses because of MaxMsgsPerSubject; the
// client library has no name for it.
const codeFull jetstream.ErrorCode = 10077

// MarkKey is the key of the mark that the window's stream lacks grants of calls that were made.
func MarkKey(window string) string { return unrecordedPrefix + window }

// StreamName is the stream that holds a window's grants, minute or hour.
func StreamName(window string) string { return "UNRESTRICT_RATE_" + strings.ToUpper(window) }

// Subject is the subject of a window's grants.
func Subject(window string) string { return "unrestrict.rate." + window }

// Look implements [budget.Windows]. It also settles the limit, see settle.
func (s *Store) Look(ctx context.Context, window string) (budget.State, error) {
	if err := s.waitTouch(ctx); err != nil {
		return budget.State{}, err
	}
	limit, known := s.smallest(window)
	if limit == 0 {
		return budget.State{}, nil
	}
	stream, err := s.settle(ctx, window, limit, known)
	if err != nil {
		return budget.State{}, err
	}
	info := stream.CachedInfo()
	taken := int(info.State.Msgs)
	limit = min(limit, int(info.Config.MaxMsgsPerSubject)) // smaller while it may not be raised
	state := budget.State{Limit: limit, Left: max(0, limit-taken), Others: s.others(), Last: info.State.LastSeq}
	// An age is the difference between two readings of the broker's clock. If that clock jumps back,
	// a grant still ages out eventually; to ask again now and then costs little.
	left := func(since time.Time, age time.Duration) time.Duration {
		return min(max(0, age-info.TimeStamp.Sub(since)), age)
	}
	if taken > 0 {
		oldest := info.State.FirstTime
		if taken > limit { // the limit is being lowered: the grant that counts is the one that makes room under the new limit
			oldest = s.granted(ctx, stream, info.State.FirstSeq+uint64(taken-limit), oldest)
		}
		state.NextIn = left(oldest, info.Config.MaxAge)
	}
	if since, marked := s.unrecorded(window); marked {
		if d := left(since, MarkTTL(s.windows[window])); d > 0 { // otherwise it has expired, even if the watch does not show that yet
			state.Left, state.NextIn = 0, max(state.NextIn, d)
		}
	}
	return state, nil
}

// granted is when a grant was given, or otherwise if its message can't be read.
func (s *Store) granted(ctx context.Context, stream jetstream.Stream, seq uint64, otherwise time.Time) time.Time {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	msg, err := stream.GetMsg(ctx, seq)
	if err != nil {
		return otherwise
	}
	return msg.Time
}

// Take implements [budget.Windows].
func (s *Store) Take(ctx context.Context, window string, last *uint64) (bool, error) {
	if limit, _ := s.smallest(window); limit == 0 {
		return true, s.takeUnrecorded(ctx, window)
	}
	return s.publishGrant(ctx, window, last)
}

func (s *Store) publishGrant(ctx context.Context, window string, last *uint64) (bool, error) {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	// No message id, because it could merge two grants, and no retry, because it could double one.
	opts := []jetstream.PublishOpt{jetstream.WithRetryAttempts(0)}
	if last != nil {
		opts = append(opts, jetstream.WithExpectLastSequence(*last))
	}
	_, err := s.js.PublishMsg(ctx, &nats.Msg{Subject: Subject(window)}, opts...)
	var api *jetstream.APIError
	if errors.As(err, &api) && (api.ErrorCode == codeFull || api.ErrorCode == jetstream.JSErrCodeStreamWrongLastSequence) {
		return false, nil
	}
	return err == nil, err
}

// UnknownUntil is until when no call is made because it is not known how many calls count in a window, and which window; zero:
// it is known for all.
func (s *Store) UnknownUntil() (until time.Time, window string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, w := range s.windows {
		if since, marked := s.marks[w.Name]; marked && w.Limit > 0 {
			if end := since.Add(MarkTTL(w)); end.After(until) && time.Now().Before(end) {
				until, window = end, w.Name
			}
		}
	}
	return until, window
}

// MarkTTL is how long after a mark a call without a limit can still count in the window. One mark covers the calls of a
// tenth of the window.
func MarkTTL(w budget.Window) time.Duration {
	return w.Span() + w.Per/10 + budget.StartLimit
}

// takeUnrecorded writes the mark that the window's stream lacks grants, before the first call without a limit and then every
// tenth of a window while there are calls. If a limit is introduced within a window of the last such call, the window counts as
// full until the mark has expired.
func (s *Store) takeUnrecorded(ctx context.Context, window string) error {
	w := s.windows[window]
	s.mu.Lock()
	_, there := s.marks[window]
	fresh := there && time.Since(s.marked[window]) < w.Per/10
	s.mu.Unlock()
	if fresh {
		return nil
	}
	return s.mark(ctx, w)
}

func (s *Store) mark(ctx context.Context, w budget.Window) error {
	now := time.Now()
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	if err := s.state.Put(ctx, MarkKey(w.Name), nil, MarkTTL(w)); err != nil {
		return fmt.Errorf("mark the %s window as incomplete: %w", w.Name, err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.marked[w.Name] = now
	if _, there := s.marks[w.Name]; !there {
		s.marks[w.Name] = now // until the watch delivers the broker's time of the mark
	}
	return nil
}

// readMark adopts the mark that another replica has set.
func (s *Store) readMark(ctx context.Context, w budget.Window) error {
	r, err := s.state.Load(ctx, MarkKey(w.Name))
	if err == nil && r.Value != nil {
		s.learn(ctx, MarkKey(w.Name), r)
	}
	return err
}

// unrecorded is the broker's time of the window's last mark, if there is one.
func (s *Store) unrecorded(window string) (since time.Time, marked bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	since, marked = s.marks[window]
	return since, marked
}
