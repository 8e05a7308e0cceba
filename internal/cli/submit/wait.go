package submit

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"example.com/unrestrict-worker/internal/broker"
	"example.com/unrestrict-worker/internal/cli/session"
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
		_ = s.Collector.take(m) // StopFollow means only that no row is open by now
		return ctx.Err()
	})
	if err == nil {
		err = context.Cause(ctx)
	}
	return s.resumeFrom(), err
}

// resumeFrom returns where to go on reading results.
func (s *Submission) resumeFrom() broker.FollowOptions {
	if last := s.Collector.last(); last > 0 {
		return broker.FollowOptions{From: last + 1}
	}
	return broker.FollowOptions{Since: time.Now().Add(-session.Remembered)}
}

// await follows the results until each row has its final one, and sums them up.
func (s *Submission) await(ctx context.Context, from broker.FollowOptions) error {
	ctx, cancel := s.patience(ctx)
	defer cancel()
	m := s.meter("finished", s.rows)
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

// patience returns a context that ends after --timeout.
func (s *Submission) patience(ctx context.Context) (context.Context, context.CancelFunc) {
	if s.timeout == 0 {
		return ctx, func() {}
	}
	return context.WithTimeoutCause(ctx, s.timeout, errWaited)
}

// errWaited is the cause with which --timeout ends a context.
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

// display returns the function that shows the progress: for a file, a meter of the rows that are final.
func (s *Submission) display(m *Meter) func(context.Context, Progress) {
	if s.Bulk.Single != "" {
		return (&oneDisplay{s: s, asked: time.Now()}).show
	}
	when := whenNote{s: s}
	return func(ctx context.Context, now Progress) { m.Show(m.total-now.Open, now.note(), when.note(ctx, now)) }
}

// follow returns when no row is open, too many have failed, or ctx has ended.
func (s *Submission) follow(ctx context.Context, from broker.FollowOptions, show func(context.Context, Progress)) error {
	if now := s.Collector.Progress(); now.Open == 0 {
		show(ctx, now)
		return s.judge(s.since, true)
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
			now := s.Collector.Progress()
			show(ctx, now)
			if err == nil {
				err = s.judge(s.since, now.Open == 0)
			}
			return err
		case <-look.C:
		}
		s.confirmEarlier(following)
		now := s.Collector.Progress()
		show(ctx, now)
		if err := s.judge(s.since, now.Open == 0); err != nil {
			stop()
			return cmp.Or(err, <-ended) // err, once the reader has ended
		}
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
	o := s.resumeFrom()
	o.ToPresent = true
	if err := session.FollowResults(ctx, s.broker, o, s.Collector.take); err == nil && ctx.Err() == nil {
		s.Collector.confirm(rows[:acked])
	}
}

// note is the progress in words.
func (s Progress) note() string {
	var parts []string
	for _, outcome := range Outcomes() {
		if n := s.counts[outcome]; n > 0 {
			parts = append(parts, fmt.Sprintf("%s %d", outcome, n))
		}
	}
	if s.underWay > 0 {
		parts = append(parts, fmt.Sprintf("under way %d", s.underWay))
	}
	return strings.Join(parts, ", ")
}
