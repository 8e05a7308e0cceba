package submit

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"example.com/unrestrict-worker/internal/broker"
	"example.com/unrestrict-worker/internal/cli/orders"
	"example.com/unrestrict-worker/internal/cli/session"
	"example.com/unrestrict-worker/internal/message"
)

// Limit is how many rows may fail before a batch is halted: a number, or a share of those that are final. The zero value is no
// limit.
type Limit struct {
	text    string // as it was given
	most    int
	percent float64
	share   bool
}

// defaultLimit is the limit of a canary without --halt-on.
const defaultLimit = "20%"

// UnmarshalText reads 25 or 5%.
func (l *Limit) UnmarshalText(text []byte) (err error) {
	*l = Limit{text: string(text)}
	var digits string
	if digits, l.share = strings.CutSuffix(l.text, "%"); l.share {
		l.percent, err = strconv.ParseFloat(digits, 64)
	} else {
		l.most, err = strconv.Atoi(digits)
	}
	if err != nil || l.most < 0 || !(l.percent >= 0 && l.percent <= 100) {
		return errors.New("give how many rows may fail, such as 25, or which share of those that are final, such as 5%")
	}
	return nil
}

// Exceeded reports whether more rows have failed than allowed. A share of few rows says little: it is judged once enough rows are
// final for it to allow one failure, or once all are final.
func (l Limit) Exceeded(failed, final int, all bool) bool {
	switch {
	case l.text == "" || failed == 0:
		return false
	case !l.share:
		return failed > l.most
	case !all && l.percent > 0 && float64(final) < math.Ceil(100/l.percent):
		return false
	}
	return float64(failed)*100 > l.percent*float64(final)
}

// failures returns the outcomes that count against a limit. A cancelled row did not fail.
func failures() []string {
	return []string{message.Failed, message.TimedOut, message.Rejected, message.Abandoned}
}

// haltedError reports that more rows failed than --halt-on allows.
type haltedError struct{ failed, final int }

func (e *haltedError) Error() string {
	return fmt.Sprintf("halted: %d of %s did not succeed", e.failed, session.Count(e.final, "final row", "final rows"))
}

// judge returns a haltedError if the batch is to be halted. Only rows that became final since the batch was last resumed count, so
// that the same command can go on after that.
func (s *Submission) judge(since time.Time, all bool) error {
	failed, final := s.Collector.ended(since)
	if !s.haltOn.Exceeded(failed, final, all) {
		return nil
	}
	return &haltedError{failed: failed, final: final}
}

// halt pauses the batch, so that its other rows are not called, and returns an error that says how to go on. It is the one place
// where a batch is halted.
func (s *Submission) halt(ctx context.Context, why *haltedError) error {
	issuer, err := orders.NewIssuer(s.broker, orders.By{Reason: why.Error() + " (--halt-on " + s.haltOn.text + ")", SignWith: s.signWith})
	if err == nil {
		_, err = issuer.Issue(ctx, message.Order{Verb: message.VerbPause, Batch: s.Bulk.Batch})
	}
	if err != nil {
		return fmt.Errorf("%w\nNothing more is published, but what is queued is still carried out, because the batch could not be paused: %w", why, err)
	}
	rest := ""
	if n := s.rows - s.Stored; n > 0 {
		rest = fmt.Sprintf("; %s not published", session.Count(n, "row was", "rows were"))
	}
	name := session.ShellQuote(s.Bulk.Batch)
	return fmt.Errorf("%w, and --halt-on %s allows no more%s.\nTo go on: worker batch resume %s, then the same command again. To take back what is not called: worker cancel --batch %s",
		why, s.haltOn.text, rest, name, name)
}

// batchOrders returns whether the batch was ever cancelled, and when it was last resumed; zero: never. A user who may not read
// orders goes on without: the workers follow them in any case.
func (s *Submission) batchOrders(ctx context.Context) (cancelled bool, resumed time.Time) {
	ctx, cancel := context.WithTimeout(ctx, optionalCallLimit)
	defer cancel()
	_ = s.broker.OptionalCall(ctx, s.broker.Names().ControlStream, func(ctx context.Context) error {
		for d, err := range s.broker.Ordered(ctx) {
			if err != nil {
				return err
			}
			o, invalid := (message.Rules{}).ParseOrder(d)
			switch {
			case invalid != nil || o.Batch != s.Bulk.Batch:
			case o.Verb == message.VerbCancel:
				cancelled = true
			case o.Verb == message.VerbResume:
				resumed = o.Stored
			}
		}
		return nil
	})
	return cancelled, resumed
}

// runCanary publishes the first rows alone, and waits for their final results.
func (s *Submission) runCanary(ctx context.Context, from broker.FollowOptions) error {
	last := s.Collector.rows[s.canary-1].Line
	s.Collector.waitFor(last)
	defer s.Collector.waitFor(math.MaxInt)
	if err := s.publish(ctx, "canary published", s.canary, func(f *RowStatus) bool { return f.Line <= last }); err != nil {
		return s.cut(ctx, err)
	}
	fmt.Fprintf(s.env.Stdout, "The first %s published; the others follow once they have ended. Batch %s.\n", session.Count(s.canary, "row is", "rows are"), session.Plain(s.Bulk.Batch))
	s.printWhen(ctx)
	ctx, cancel := s.patience(ctx)
	defer cancel()
	m := s.meter("canary finished", s.canary)
	err := s.follow(ctx, from, s.display(m))
	m.End()
	if open := s.Collector.Progress().Open; err == nil && open > 0 {
		return s.unfinished(ctx, open)
	}
	if err != nil && s.wait {
		err = errors.Join(err, WriteSummary(s.env.Stdout, s.Collector.rows))
	}
	return err
}

// ended counts the rows that became final after a time, and those of them that failed.
func (h *collector) ended(since time.Time) (failed, final int) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, f := range h.rows {
		if f.Final && f.publishedAt.After(since) {
			final++
			if slices.Contains(failures(), f.Outcome) {
				failed++
			}
		}
	}
	return failed, final
}

// waitFor limits Progress to the rows up to a line.
func (h *collector) waitFor(line int) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.upTo = line
}
