package submit

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"time"

	"example.com/unrestrict-worker/internal/broker"
	"example.com/unrestrict-worker/internal/cli/session"
	"example.com/unrestrict-worker/internal/message"
	"example.com/unrestrict-worker/internal/service"
)

// Submission is one bulk on its way to the broker.
type Submission struct {
	env       *session.Env
	Bulk      *Bulk
	broker    *broker.Broker
	rows      int
	Collector *collector
	wait      bool // for the results
	canary    int  // rows that go first; 0: all at once
	haltOn    Limit
	signWith  string        // the file of the seed, for orders too
	since     time.Time     // results before this count for no limit
	timeout   time.Duration // of waiting; 0: none
	anyLane   bool          // no lane was given: if there is no bulk lane for it, normal is used

	Stored, Duplicates int
	before             uint64 // sequence of the last result that was there before anything was published
	forgotten          int    // rows queued again that have results of an earlier run of the command
}

// CarryOut publishes and waits. The report is written whatever happens, with what is known by then.
func (s *Submission) CarryOut(ctx context.Context, reportPath string) error {
	out, err := OpenReport(reportPath)
	if err != nil {
		return err
	}
	err = s.dialAndRun(ctx)
	if !s.wait {
		return err
	}
	if failed := out.Write(s.Collector.rows); failed != nil {
		if _, isStatus := errors.AsType[session.ExitStatus](err); isStatus {
			err = nil
		}
		return errors.Join(err, failed)
	}
	return err
}

func (s *Submission) dialAndRun(ctx context.Context) (err error) {
	if s.broker, err = session.DialForCommand(ctx, s.env); err != nil {
		return err
	}
	defer session.CloseAfterCommand(s.broker)
	return s.run(ctx)
}

func (s *Submission) run(ctx context.Context) error {
	from := broker.FollowOptions{}
	var err error
	if s.Bulk.Single == "" {
		cancelled, resumed := s.batchOrders(ctx)
		if s.since = resumed; cancelled {
			return fmt.Errorf("the batch %s was cancelled, and nothing of it is published any more; give what is left of it another name (--batch)", session.Plain(s.Bulk.Batch))
		}
	}
	if s.wait || s.canary > 0 {
		if from, err = s.earlier(ctx); err != nil {
			return s.cut(ctx, err)
		}
		s.before = s.Collector.last()
	}
	if s.canary > 0 {
		err = s.runCanary(ctx, from)
		from = s.resumeFrom()
	}
	if err == nil {
		err = s.runRest(ctx, from)
	}
	if why, halted := errors.AsType[*haltedError](err); halted {
		return s.halt(ctx, why)
	}
	return err
}

// runRest publishes the rows after the canary's, or all if there is no canary, and waits for them.
func (s *Submission) runRest(ctx context.Context, from broker.FollowOptions) error {
	last := 0 // line that is published
	if s.canary > 0 {
		last = s.Collector.rows[s.canary-1].Line
	}
	if err := s.publish(ctx, "published", s.rows, func(f *RowStatus) bool { return f.Line > last }); err != nil {
		return s.cut(ctx, err)
	}
	s.printPublished()
	s.printWhen(ctx)
	if !s.wait {
		s.printHowToGoOn()
		return nil
	}
	return s.await(ctx, from)
}

// publish publishes the rows that meant selects. If no lane was given, and the stream has no bulk lane or this user may not
// publish on it, they go to normal.
func (s *Submission) publish(ctx context.Context, what string, of int, meant func(*RowStatus) bool) error {
	err := s.publishOnLane(ctx, what, of, meant)
	_, denied := errors.AsType[*broker.DeniedError](err)
	if (denied || errors.Is(err, broker.ErrNoLane)) && s.anyLane && s.Bulk.Lane != message.LaneNormal {
		fmt.Fprintf(s.env.Stderr, "%v: publishing on %s instead, in line with all others\n", err, s.Bulk.base)
		s.Bulk.Lane = message.LaneNormal
		err = s.publishOnLane(ctx, what, of, meant)
	}
	return err
}

func (s *Submission) publishOnLane(ctx context.Context, what string, of int, meant func(*RowStatus) bool) error {
	m := s.meter(what, of)
	defer m.End()
	err := s.publishRows(ctx, meant, func(f *RowStatus, r broker.Stored) {
		s.Stored++
		switch {
		case r.Duplicate:
			s.Duplicates++
		case f.resultSeq > 0 && f.rerun() == 0:
			s.forgotten++
		}
		s.Collector.published(f, r)
		m.Show(s.Stored)
	})
	if err != nil || s.wait || s.canary > 0 || s.Duplicates == 0 {
		return err
	}
	return s.publishReruns(ctx)
}

// publishReruns publishes again the rows that the broker dropped as duplicates, but whose dry run has ended. Without the
// permission to read results it publishes none.
func (s *Submission) publishReruns(ctx context.Context) error {
	err := s.broker.OptionalCall(ctx, s.broker.Names().ResultsStream, func(ctx context.Context) error {
		_, err := s.earlier(ctx)
		return err
	})
	if err != nil {
		return context.Cause(ctx)
	}
	ended := func(f *RowStatus) bool { return f.duplicate && f.rerun() > 0 }
	return s.publishRows(ctx, ended, func(_ *RowStatus, r broker.Stored) {
		if !r.Duplicate {
			s.Duplicates--
		}
	})
}

// publishRows publishes the rows that meant selects, in order.
func (s *Submission) publishRows(ctx context.Context, meant func(*RowStatus) bool, stored func(*RowStatus, broker.Stored)) error {
	var sent []*RowStatus // not stored yet, the oldest first
	requests := iter.Seq2[broker.Outgoing, error](func(yield func(broker.Outgoing, error) bool) {
		row := 0
		for p := range s.Bulk.Requests() {
			f := s.Collector.rows[row]
			if row++; !meant(f) {
				continue
			}
			sent = append(sent, f)
			if !yield(s.Bulk.Outgoing(p, f.rerun()), p.err) {
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

// cut adds to an error how to go on after it.
func (s *Submission) cut(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		err = errors.New("interrupted")
	}
	if s.Bulk.Single != "" {
		return err
	}
	return fmt.Errorf("%w\n%d of %s are queued. Run the same command again to go on: no row is carried out twice", err, s.Stored, session.Count(s.rows, "request", "requests"))
}

func (s *Submission) meter(what string, of int) *Meter {
	if s.Bulk.Single != "" {
		return nil
	}
	term, _ := s.env.Lookup("TERM")
	return NewMeter(s.env.Stderr, service.IsTerminal(s.env.Stderr) && term != "dumb", what, of)
}
