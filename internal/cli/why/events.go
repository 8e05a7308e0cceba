package why

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"example.com/unrestrict-worker/internal/cli/session"
	"example.com/unrestrict-worker/internal/ledger"
	"example.com/unrestrict-worker/internal/message"
	"example.com/unrestrict-worker/internal/service"
)

// event is one thing that happened.
type event struct {
	Time time.Time `json:"time"`
	Run  int       `json:"run,omitempty"`
	What string    `json:"what"` // published, taken, asked, approved, denied, called, answered, looked, notFound, accepted, decided, result, deadLetter, dropped, replayed
	Text string    `json:"text"`
}

// adder adds an event of a run, unless its time is not known.
type adder func(at time.Time, run int, what, format string, args ...any)

// events returns all that is still known, the oldest first. What a later run has overwritten in the ledger is known only
// from results and dead letters.
func (s *History) events() []event {
	var all []event
	add := func(at time.Time, run int, what, format string, args ...any) {
		if !at.IsZero() {
			all = append(all, event{at, run, what, fmt.Sprintf(format, args...)})
		}
	}
	for _, q := range s.Queued {
		if q.Replay > 0 {
			add(q.Time, 0, "published", "published again as message %d, a replay of dead letter %d%s", q.Sequence, q.Replay, onLane(q.Lane))
		} else {
			add(q.Time, 0, "published", "published as message %d%s", q.Sequence, onLane(q.Lane))
		}
	}
	if e := s.Entry; e != nil {
		add(e.ReceivedAt, e.Run, "taken", "taken from %s", e.Source)
		add(e.NotFound, e.Run, "notFound", "the API did not know the machine (404)")
		if e.Attempts > 0 { // otherwise the call that was prepared last was not made
			add(e.LastCall, e.Run, "called", "the API was called, %s%s", ordinal(e.Attempts), onLane(e.Lane))
		}
		if e.State == ledger.StateSubmitted || e.State == ledger.StateFinal {
			add(e.AcceptedAt, e.Run, "accepted", "%s", acceptance(e))
		}
		approvals(e, add)
		add(e.DecidedAt, e.Run, "decided", "decided: %s%s", e.Outcome, Because(e.Error))
	}
	s.exchanges(add)
	for _, t := range s.results {
		r := t.result
		switch {
		case r.RequestID != s.id:
			add(t.at, 0, "result", "the message %s claimed this id and was %s%s", r.RequestID, r.Outcome, Because(r.Error))
		case r.Final:
			if s.Entry == nil || s.Entry.Run != r.Run { // the ledger has nothing of that run any more
				add(r.ReceivedAt, r.Run, "taken", "taken")
			}
			text := strings.TrimSuffix(r.Outcome+Because(service.WhyEnded(r))+". "+service.AdviceOf(r), ". ")
			add(t.at, r.Run, "result", "final result published: %s", text)
		default:
			add(t.at, r.Run, "result", "result published: %s", r.Outcome)
		}
	}
	for _, l := range s.letters {
		add(l.Dead.Time, l.Dead.Run, "deadLetter", "became dead letter %d (%s). %s", l.Seq, l.Dead.Code, l.Replay.Text)
	}
	for _, r := range s.acts {
		switch r.Act {
		case ledger.ActDrop:
			add(r.DecidedAt, r.Run, "dropped", "dead letter %d (%s) was dropped by %s", r.DeadLetter, codeOf(r), whoAndWhy(r))
		case ledger.ActReplay:
			add(r.DecidedAt, r.Run, "replayed", "dead letter %d (%s) was replayed by %s", r.DeadLetter, codeOf(r), whoAndWhy(r))
		default:
			add(r.DecidedAt, r.Run, r.Act, "%s by %s", r.Act, whoAndWhy(r))
		}
	}
	slices.SortStableFunc(all, func(a, b event) int { return a.Time.Compare(b.Time) })
	return all
}

// onLane names the lane unless it is normal.
func onLane(l message.Lane) string {
	if l == message.LaneNormal || l == "" {
		return ""
	}
	return ", on the lane " + string(l)
}

func acceptance(e *ledger.Entry) string {
	if e.Adopted {
		return "an action that was under way was adopted: " + e.ActionID
	}
	return "accepted as action " + e.ActionID
}

func codeOf(r ledger.AuditRecord) string {
	if r.Error == nil {
		return "no code"
	}
	return r.Error.Code
}

// whoAndWhy returns who did something, and the reason if one was given.
func whoAndWhy(r ledger.AuditRecord) string {
	text := session.ByWhom(r)
	if r.Reason != "" {
		text += ": " + r.Reason
	}
	return text
}

func ordinal(n int) string {
	if n == 1 {
		return "for the first time"
	}
	return fmt.Sprintf("the latest of %d times", n)
}
