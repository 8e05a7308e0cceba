package submit

import (
	"context"
	"fmt"
	"slices"
	"time"

	"example.com/unrestrict-worker/internal/admin"
	"example.com/unrestrict-worker/internal/broker"
	"example.com/unrestrict-worker/internal/cli/session"
	"example.com/unrestrict-worker/internal/config"
	"example.com/unrestrict-worker/internal/service"
)

// line reads all that waits, and the place of the last row; false: none of the rows waits. The forecast is optional, because it
// needs more permissions than submitting does: without them nothing is shown.
func (s *Submission) line(ctx context.Context) (o broker.Overview, l service.Line, last service.Place, waits bool) {
	seq := s.Collector.lastSequence()
	if seq == 0 {
		return o, l, last, false
	}
	ctx, cancel := context.WithTimeout(ctx, optionalCallLimit)
	defer cancel()
	err := s.broker.OptionalCall(ctx, "KV_"+broker.StateBucket, func(ctx context.Context) (err error) {
		s.broker.AwaitPresence(ctx)
		if o, err = s.broker.Overview(ctx, config.Windows(s.env.Settings.Rates)); err != nil {
			return err
		}
		if l, err = service.LookAtLine(ctx, s.broker, o, s.env.Settings); err != nil {
			return err
		}
		last, waits, err = l.Of(ctx, s.broker, s.Bulk.Lane, seq)
		return err
	})
	return o, l, last, waits && err == nil
}

// optionalCallLimit bounds optional reads, which submitting does not need.
const optionalCallLimit = 3 * time.Second

// soon is a wait that is too short to be printed.
const soon = 5 * time.Second

// printWhen prints when the last row is expected to be called, and which rows will have expired by their turn.
func (s *Submission) printWhen(ctx context.Context) {
	_, l, last, waits := s.line(ctx)
	if !waits || last.Unavailable == service.WaitNoLimit || last.Unavailable == "" && last.ExpectedAt.Sub(last.AsOf) < soon {
		return
	}
	what := "It "
	if s.Bulk.Single == "" {
		what = "The last one "
	}
	fmt.Fprintln(s.env.Stdout, what+last.When()+".")
	s.warnExpiring(l, last)
}

// warnExpiring warns of rows that expire before their turn. They are queued all the same: a limit may be raised, and other
// requests may be cancelled.
func (s *Submission) warnExpiring(l service.Line, last service.Place) {
	calls := l.Calls(s.Bulk.Lane)
	var first string
	n := 0
	for back, f := range s.Collector.latestFirst() {
		at := last.Before - back
		if at < 0 || at >= len(calls) {
			break
		}
		if f.Final || f.expires.IsZero() || !f.expires.Before(calls[at]) {
			continue
		}
		n++
		first = fmt.Sprintf("%s: expiresAt %s, its call is expected at %s", s.Bulk.where(f.Line), f.expires.Local().Format(time.RFC3339), calls[at].Local().Format(time.RFC3339))
	}
	if n > 0 {
		fmt.Fprintf(s.env.Stderr, "willExpire: %s before the call is expected, and will be rejected then (%s). Queued all the same; publish again with a later expiresAt, or on a more urgent lane.\n",
			session.Count(n, "request expires", "requests expire"), session.Plain(first))
	}
}

// whenNote is the meter's note of when the last row is expected to be called.
type whenNote struct {
	s     *Submission
	asked time.Time
	text  string
}

func (q *whenNote) note(ctx context.Context, now Progress) string {
	if now.Open == now.underWay {
		return "" // all are called: the rest is up to their machines
	}
	if time.Since(q.asked) < awaitQuota {
		return q.text
	}
	q.asked, q.text = time.Now(), ""
	o, _, last, waits := q.s.line(ctx)
	switch {
	case !waits:
	case o.Pause != nil:
		q.text = "the worker is paused: " + session.Plain(o.Pause.Reason)
	case len(o.Replicas) == 0:
		q.text = service.NoWorker
	case last.Unavailable != "":
		q.text = "the last one " + last.When()
	case time.Until(last.ExpectedAt) > time.Minute:
		q.text = "last call at " + admin.Clock(last.ExpectedAt)
	}
	return q.text
}

// lastSequence returns the sequence of the latest message of any row; 0: none is known.
func (h *collector) lastSequence() (last uint64) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, f := range h.rows {
		last = max(last, f.seq)
	}
	return last
}

// latestFirst returns copies of the rows that have a message, the latest first.
func (h *collector) latestFirst() (rows []RowStatus) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, f := range h.rows {
		if f.seq > 0 {
			rows = append(rows, *f)
		}
	}
	slices.SortStableFunc(rows, func(a, b RowStatus) int {
		switch {
		case a.seq > b.seq:
			return -1
		case a.seq < b.seq:
			return 1
		}
		return 0
	})
	return rows
}
