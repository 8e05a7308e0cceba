package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"example.com/unrestrict-worker/internal/broker"
)

const (
	// remembered is for how long the worker knows an id after its end (contract §3): an older result is not this
	// request's, which is carried out anew.
	remembered = 7 * 24 * time.Hour

	awaitLook  = 250 * time.Millisecond
	awaitQuota = 10 * time.Second // between two looks at queue and quota
)

// earlier reads the results that are there before anything is published, and returns where to go on. It finds those of
// an earlier run of the same rows, and that results can't be read while there is still time to say so.
func (s *submission) earlier(ctx context.Context) (broker.FollowOptions, error) {
	o := broker.FollowOptions{Since: time.Now().Add(-remembered)}
	if s.bulk.single != "" { // its id is new
		last, err := s.broker.Latest(ctx, s.broker.Names().ResultsStream, 1)
		if err == nil && len(last) > 0 {
			o.From = last[0].Sequence + 1
		}
		return o, adviseMissing(err)
	}
	o.ToPresent = true
	err := followResults(ctx, s.broker, o, func(m broker.Message) error {
		_ = s.harvest.take(m) // enough is only what is enough to the end
		return ctx.Err()
	})
	if err == nil {
		err = context.Cause(ctx)
	}
	return s.goOn(), err
}

// goOn is where to go on reading results.
func (s *submission) goOn() broker.FollowOptions {
	if last := s.harvest.last(); last > 0 {
		return broker.FollowOptions{From: last + 1}
	}
	return broker.FollowOptions{Since: time.Now().Add(-remembered)}
}

// await follows the results until each row has its final one, and sums them up.
func (s *submission) await(ctx context.Context, from broker.FollowOptions) error {
	err := s.follow(ctx, from)
	sum := writeSummary(s.env.Stdout, s.harvest.fates)
	open := s.harvest.standing().open
	switch {
	case err != nil || sum != nil:
		return errors.Join(err, sum)
	case open > 0:
		return s.interrupted(open)
	}
	for _, f := range s.harvest.fates {
		if !f.succeeded() {
			return ExitStatus(1)
		}
	}
	return nil
}

func (s *submission) interrupted(open int) error {
	how := "Run the same command again to go on waiting: no row is submitted twice"
	if s.bulk.single != "" {
		how = "What becomes of it: worker why " + s.bulk.single
	}
	return fmt.Errorf("interrupted while %s no final result yet. %s", count(open, "request had", "requests had"), how)
}

// follow returns when no row is open or ctx has ended.
func (s *submission) follow(ctx context.Context, from broker.FollowOptions) error {
	if s.harvest.standing().open == 0 {
		return nil
	}
	m := s.meter("finished")
	defer m.end()
	following, stop := context.WithCancel(ctx)
	ended := make(chan error, 1)
	go func() { ended <- followResults(following, s.broker, from, s.harvest.take) }()
	defer stop()
	look := time.NewTicker(awaitLook)
	defer look.Stop()
	quota := quotaNote{s: s}
	for {
		select {
		case err := <-ended:
			now := s.harvest.standing()
			m.show(s.rows-now.open, now.note())
			return err
		case <-look.C:
		}
		s.confirmEarlier(following)
		now := s.harvest.standing()
		m.show(s.rows-now.open, now.note(), quota.note(ctx, now))
		if now.open == 0 {
			stop()
		}
	}
}

// confirmEarlier finds out whether what rows came to before is their end: the worker tells of a new run, or of a message
// it refuses, before it is done with the message.
func (s *submission) confirmEarlier(ctx context.Context) {
	rows, seqs := s.harvest.undecided()
	if len(rows) == 0 {
		return
	}
	taken, _ := s.broker.Taken(ctx, seqs) // an error only says that no more is known yet
	if taken == 0 {
		return
	}
	o := s.goOn()
	o.ToPresent = true
	if err := followResults(ctx, s.broker, o, s.harvest.take); err == nil && ctx.Err() == nil {
		s.harvest.confirm(rows[:taken])
	}
}

// note is the standing in words.
func (s standing) note() string {
	var said []string
	for _, outcome := range outcomes() {
		if n := s.counts[outcome]; n > 0 {
			said = append(said, fmt.Sprintf("%s %d", outcome, n))
		}
	}
	if s.underWay > 0 {
		said = append(said, fmt.Sprintf("under way %d", s.underWay))
	}
	return strings.Join(said, ", ")
}

// quotaNote tells when the last request will have been called, as far as the quota goes.
type quotaNote struct {
	s     *submission
	asked time.Time
	text  string
}

func (q *quotaNote) note(ctx context.Context, now standing) string {
	if now.open == now.underWay {
		return "" // all are called: only their machines know
	}
	if time.Since(q.asked) < awaitQuota {
		return q.text
	}
	q.asked, q.text = time.Now(), ""
	limits := windows(q.s.env.Settings.Rates)
	o, err := q.s.broker.Overview(ctx, limits)
	if err != nil {
		return "" // a courtesy, which asks for more rights than submitting does
	}
	used, err := q.s.broker.Usage(ctx, limits, o.Reserve)
	if err != nil {
		return ""
	}
	switch end, ok := expectedEnd(time.Now(), o, used); {
	case o.Pause != nil:
		q.text = "the worker is paused: " + plain(o.Pause.Reason)
	case ok && time.Until(end) > time.Minute:
		q.text = "last call at about " + end.Local().Format("Jan 2 15:04")
	}
	return q.text
}
