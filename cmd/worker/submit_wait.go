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
	awaitLook  = 250 * time.Millisecond
	awaitQuota = 10 * time.Second // between two looks at queue and quota
)

// earlier reads the results that are there before anything is published, and returns where to go on. It finds those of
// an earlier run of the same rows, and that results can't be read while there is still time to say so.
func (s *submission) earlier(ctx context.Context) (broker.FollowOptions, error) {
	o := broker.FollowOptions{Since: time.Now().Add(-remembered)}
	if s.bulk.single != "" && !s.bulk.known { // its id is new
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
	if s.timeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeoutCause(ctx, s.timeout, errWaited)
		defer cancel()
	}
	err := s.follow(ctx, from, s.display())
	var sum error
	if s.bulk.single == "" {
		sum = writeSummary(s.env.Stdout, s.harvest.fates)
	}
	open := s.harvest.standing().open
	switch {
	case err != nil || sum != nil:
		return errors.Join(err, sum)
	case open > 0:
		return s.unfinished(ctx, open)
	}
	for _, f := range s.harvest.fates {
		if !f.succeeded() {
			return ExitStatus(1)
		}
	}
	return nil
}

// errWaited is why the context of who waited long enough ends.
var errWaited = errors.New("waited long enough")

func (s *submission) unfinished(ctx context.Context, open int) error {
	how := "Run the same command again to go on waiting: no row is carried out twice"
	if s.bulk.single != "" {
		how = "What becomes of it: worker why " + shellQuote(s.bulk.single)
	}
	after := "interrupted while"
	if errors.Is(context.Cause(ctx), errWaited) {
		after = "--timeout: after " + s.timeout.String()
	}
	return fmt.Errorf("%s %s no final result yet. %s", after, count(open, "request had", "requests had"), how)
}

// display shows how far it has come.
type display interface {
	show(context.Context, standing)
	end()
}

func (s *submission) display() display {
	if s.bulk.single != "" {
		return &oneDisplay{s: s, asked: time.Now()}
	}
	return &bulkDisplay{meter: s.meter("finished"), rows: s.rows, quota: quotaNote{s: s}}
}

// bulkDisplay is a meter of the rows that are final.
type bulkDisplay struct {
	meter *meter
	rows  int
	quota quotaNote
}

func (d *bulkDisplay) show(ctx context.Context, now standing) {
	d.meter.show(d.rows-now.open, now.note(), d.quota.note(ctx, now))
}

func (d *bulkDisplay) end() { d.meter.end() }

// follow returns when no row is open or ctx has ended.
func (s *submission) follow(ctx context.Context, from broker.FollowOptions, d display) error {
	defer d.end()
	if now := s.harvest.standing(); now.open == 0 {
		d.show(ctx, now)
		return nil
	}
	following, stop := context.WithCancel(ctx)
	ended := make(chan error, 1)
	go func() { ended <- followResults(following, s.broker, from, s.harvest.take) }()
	defer stop()
	look := time.NewTicker(awaitLook)
	defer look.Stop()
	for {
		select {
		case err := <-ended:
			d.show(ctx, s.harvest.standing())
			return err
		case <-look.C:
		}
		s.confirmEarlier(following)
		now := s.harvest.standing()
		d.show(ctx, now)
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
	case len(o.Replicas) == 0:
		q.text = noWorker
	case ok && time.Until(end) > time.Minute:
		q.text = "last call at about " + end.Local().Format("Jan 2 15:04")
	}
	return q.text
}
