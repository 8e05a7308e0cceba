package main

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"time"

	"example.com/unrestrict-worker/internal/broker"
)

// submission is one bulk on its way to the broker.
type submission struct {
	env     *Env
	bulk    *bulk
	broker  *broker.Broker
	rows    int
	harvest *harvest
	wait    bool          // for the results
	timeout time.Duration // of waiting; 0: none

	stored, duplicates int
	forgotten          int // rows queued again that have results of an earlier run of the command
}

// carryOut publishes and waits. The report is written whatever happens, with what is known by then.
func (s *submission) carryOut(ctx context.Context, reportPath string) error {
	out, err := openReport(reportPath)
	if err != nil {
		return err
	}
	err = s.dialAndRun(ctx)
	if !s.wait {
		return err
	}
	if failed := out.write(s.harvest.fates); failed != nil {
		if _, said := errors.AsType[ExitStatus](err); said {
			err = nil
		}
		return errors.Join(err, failed)
	}
	return err
}

func (s *submission) dialAndRun(ctx context.Context) (err error) {
	if s.broker, err = dialForCommand(ctx, s.env); err != nil {
		return err
	}
	defer closeAfterCommand(s.broker)
	return s.run(ctx)
}

func (s *submission) run(ctx context.Context) error {
	from := broker.FollowOptions{}
	if s.wait {
		var err error
		if from, err = s.earlier(ctx); err != nil {
			return s.cut(ctx, err)
		}
	}
	if err := s.publish(ctx); err != nil {
		return s.cut(ctx, err)
	}
	s.sayPublished()
	if !s.wait {
		s.sayHowToGoOn()
		return nil
	}
	return s.await(ctx, from)
}

func (s *submission) publish(ctx context.Context) error {
	m := s.meter("published")
	defer m.end()
	all := func(*fate) bool { return true }
	err := s.publishRows(ctx, all, func(f *fate, r broker.Stored) {
		s.stored++
		switch {
		case r.Duplicate:
			s.duplicates++
		case f.told > 0 && f.rerun() == 0:
			s.forgotten++
		}
		s.harvest.published(f, r)
		m.show(s.stored)
	})
	if err != nil || s.wait || s.duplicates == 0 {
		return err
	}
	return s.publishReruns(ctx)
}

// publishReruns publishes the rows that were there, but from a dry run that has ended. For who may not read results the
// rows stay as they were.
func (s *submission) publishReruns(ctx context.Context) error {
	if _, err := s.earlier(ctx); err != nil {
		return context.Cause(ctx)
	}
	ended := func(f *fate) bool { return f.duplicate && f.rerun() > 0 }
	return s.publishRows(ctx, ended, func(_ *fate, r broker.Stored) {
		if !r.Duplicate {
			s.duplicates--
		}
	})
}

// publishRows publishes those that are meant, in their order.
func (s *submission) publishRows(ctx context.Context, meant func(*fate) bool, stored func(*fate, broker.Stored)) error {
	var sent []*fate // not stored yet, the oldest first
	requests := iter.Seq2[broker.Outgoing, error](func(yield func(broker.Outgoing, error) bool) {
		row := 0
		for p := range s.bulk.requests() {
			f := s.harvest.fates[row]
			if row++; !meant(f) {
				continue
			}
			sent = append(sent, f)
			if !yield(s.bulk.outgoing(p, f.rerun()), p.err) {
				return
			}
		}
	})
	return s.broker.PublishAll(ctx, requests, func(r broker.Stored) {
		f := sent[0]
		sent = sent[1:]
		stored(f, r)
	})
}

// cut says how to go on after what was cut short.
func (s *submission) cut(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		err = errors.New("interrupted")
	}
	if s.bulk.single != "" {
		return err
	}
	return fmt.Errorf("%w\n%d of %s are queued. Run the same command again to go on: no row is carried out twice", err, s.stored, count(s.rows, "request", "requests"))
}

func (s *submission) meter(what string) *meter {
	if s.bulk.single != "" {
		return nil
	}
	term, _ := s.env.Lookup("TERM")
	return newMeter(s.env.Stderr, isTerminal(s.env.Stderr) && term != "dumb", what, s.rows)
}
