package submit

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"example.com/unrestrict-worker/internal/broker"
	"example.com/unrestrict-worker/internal/cli/session"
	"example.com/unrestrict-worker/internal/config"
	"example.com/unrestrict-worker/internal/service"
)

const (
	awaitLook  = 250 * time.Millisecond
	awaitQuota = 10 * time.Second // between two looks at queue and quota
)

// earlier reads the existing results before anything is published, and returns where to continue. It finds those of an
// earlier run of the same rows, and fails early if results can't be read.
func (s *Submission) earlier(ctx context.Context) (broker.FollowOptions, error) {
	o := broker.FollowOptions{Since: time.Now().Add(-session.Remembered)}
	if s.Bulk.Single != "" && !s.Bulk.known { // its id is new
		last, err := s.broker.Latest(ctx, s.broker.Names().ResultsStream, 1)
		if err == nil && len(last) > 0 {
			o.From = last[0].Sequence + 1
		}
		return o, session.AdviseMissing(err)
	}
	o.ToPresent = true
	err := session.FollowResults(ctx, s.broker, o, func(m broker.Message) error {
		_ = s.Collector.take(m) // Enough means only that no row is open by now
		return ctx.Err()
	})
	if err == nil {
		err = context.Cause(ctx)
	}
	return s.goOn(), err
}

// goOn is where to go on reading results.
func (s *Submission) goOn() broker.FollowOptions {
	if last := s.Collector.last(); last > 0 {
		return broker.FollowOptions{From: last + 1}
	}
	return broker.FollowOptions{Since: time.Now().Add(-session.Remembered)}
}

// await follows the results until each row has its final one, and sums them up.
func (s *Submission) await(ctx context.Context, from broker.FollowOptions) error {
	if s.timeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeoutCause(ctx, s.timeout, errWaited)
		defer cancel()
	}
	m := s.meter("finished")
	err := s.follow(ctx, from, s.display(m))
	m.End()
	var sum error
	if s.Bulk.Single == "" {
		sum = WriteSummary(s.env.Stdout, s.Collector.rows)
	}
	open := s.Collector.Progress().Open
	switch {
	case err != nil || sum != nil:
		return errors.Join(err, sum)
	case open > 0:
		return s.unfinished(ctx, open)
	}
	for _, f := range s.Collector.rows {
		if !f.succeeded() {
			return session.ExitStatus(1)
		}
	}
	return nil
}

// errWaited is why the context of who waited long enough ends.
var errWaited = errors.New("waited long enough")

func (s *Submission) unfinished(ctx context.Context, open int) error {
	how := "Run the same command again to go on waiting: no row is carried out twice"
	if s.Bulk.Single != "" {
		how = "What becomes of it: worker why " + session.ShellQuote(s.Bulk.Single)
	}
	after := "interrupted while"
	if errors.Is(context.Cause(ctx), errWaited) {
		after = "--timeout: after " + s.timeout.String()
	}
	return fmt.Errorf("%s %s no final result yet. %s", after, session.Count(open, "request had", "requests had"), how)
}

// display is what shows how far it has come: of a file a meter of the rows that are final.
func (s *Submission) display(m *Meter) func(context.Context, Progress) {
	if s.Bulk.Single != "" {
		return (&oneDisplay{s: s, asked: time.Now()}).show
	}
	quota := quotaNote{s: s}
	return func(ctx context.Context, now Progress) { m.Show(s.rows-now.Open, now.note(), quota.note(ctx, now)) }
}

// follow returns when no row is open or ctx has ended.
func (s *Submission) follow(ctx context.Context, from broker.FollowOptions, show func(context.Context, Progress)) error {
	if now := s.Collector.Progress(); now.Open == 0 {
		show(ctx, now)
		return nil
	}
	following, stop := context.WithCancel(ctx)
	ended := make(chan error, 1)
	go func() { ended <- session.FollowResults(following, s.broker, from, s.Collector.take) }()
	defer stop()
	look := time.NewTicker(awaitLook)
	defer look.Stop()
	for {
		select {
		case err := <-ended:
			show(ctx, s.Collector.Progress())
			return err
		case <-look.C:
		}
		s.confirmEarlier(following)
		now := s.Collector.Progress()
		show(ctx, now)
		if now.Open == 0 {
			stop()
		}
	}
}

// confirmEarlier finds out whether the earlier results of rows are final. The worker publishes the result of a new run, or
// of a message that it refuses, before it acknowledges the message.
func (s *Submission) confirmEarlier(ctx context.Context) {
	rows, seqs := s.Collector.reopenedRows()
	if len(rows) == 0 {
		return
	}
	acked, _ := s.broker.Acked(ctx, s.Bulk.Lane, seqs) // after an error it is only not known yet
	if acked == 0 {
		return
	}
	o := s.goOn()
	o.ToPresent = true
	if err := session.FollowResults(ctx, s.broker, o, s.Collector.take); err == nil && ctx.Err() == nil {
		s.Collector.confirm(rows[:acked])
	}
}

// note is the standing in words.
func (s Progress) note() string {
	var said []string
	for _, outcome := range Outcomes() {
		if n := s.counts[outcome]; n > 0 {
			said = append(said, fmt.Sprintf("%s %d", outcome, n))
		}
	}
	if s.underWay > 0 {
		said = append(said, fmt.Sprintf("under way %d", s.underWay))
	}
	return strings.Join(said, ", ")
}

// quotaNote says when the last request is expected to be called, as far as the quota allows.
type quotaNote struct {
	s     *Submission
	asked time.Time
	text  string
}

func (q *quotaNote) note(ctx context.Context, now Progress) string {
	if now.Open == now.underWay {
		return "" // all are called: only their machines know
	}
	if time.Since(q.asked) < awaitQuota {
		return q.text
	}
	q.asked, q.text = time.Now(), ""
	limits := config.Windows(q.s.env.Settings.Rates)
	o, err := q.s.broker.Overview(ctx, limits)
	if err != nil {
		return "" // a courtesy, which asks for more rights than submitting does
	}
	used, err := q.s.broker.Usage(ctx, limits, o.Reserve)
	if err != nil {
		return ""
	}
	switch end, ok := service.ExpectedEnd(time.Now(), o, used); {
	case o.Pause != nil:
		q.text = "the worker is paused: " + session.Plain(o.Pause.Reason)
	case len(o.Replicas) == 0:
		q.text = service.NoWorker
	case ok && time.Until(end) > time.Minute:
		q.text = "last call at about " + end.Local().Format("Jan 2 15:04")
	}
	return q.text
}
