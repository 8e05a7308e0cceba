package main

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"slices"
	"time"
	"unicode/utf8"

	"example.com/unrestrict-worker/internal/broker"
	"example.com/unrestrict-worker/internal/remediation"
)

// signFor is how long a signed request without expiresAt is good for.
const signFor = 24 * time.Hour

// Run checks everything first, and then publishes it, or nothing.
func (c *SubmitCmd) Run(ctx context.Context, env *Env) error {
	s, done, err := c.prepare(ctx, env)
	if err != nil {
		return err
	}
	defer done()
	if c.ValidateOnly {
		fmt.Fprintf(env.Stdout, "%s in good form; nothing was published.\n", count(s.rows, "request", "requests"))
		return nil
	}
	return s.carryOut(ctx, c.Report)
}

// prepare reads and checks. The caller calls done at the end.
func (c *SubmitCmd) prepare(ctx context.Context, env *Env) (_ *submission, done func(), err error) {
	s := &submission{env: env}
	if s.bulk, done, err = c.bulk(ctx, env); err != nil {
		return nil, nil, err
	}
	if c.Wait {
		s.harvest = newHarvest(s.bulk.rules.Stream)
		s.harvest.signer = s.bulk.signer
	}
	if s.rows, err = s.bulk.check(s.harvest); err != nil {
		done()
		return nil, nil, err
	}
	return s, done, nil
}

// bulk is what the command line asks for. The caller calls done at the end.
func (c *SubmitCmd) bulk(ctx context.Context, env *Env) (_ *bulk, done func(), err error) {
	names := env.Settings.Names
	b := &bulk{
		batch: c.Batch, named: c.Batch != "", subject: names.Subject,
		rules: remediation.Rules{Stream: names.Stream, OwnSubjects: broker.Names(names).OwnSubjects()},
	}
	if err := checkBatch(c.Batch, names.Stream); err != nil {
		return nil, nil, err
	}
	if !utf8.ValidString(c.Comment) {
		return nil, nil, badInput("--comment: is not UTF-8; encode it as UTF-8")
	}
	if err := c.signWith(b); err != nil {
		return nil, nil, err
	}
	if c.Machine != "" {
		b.single = randomID()
		b.rows = slices.Values([]row{{line: 1, message: message{ID: b.single, MachineID: c.Machine, Comment: c.Comment}}})
		return b, func() {}, nil
	}
	in, err := openInput(ctx, c.File, env.Stdin)
	if err != nil {
		return nil, nil, err
	}
	unsigned := b.rules
	unsigned.Signers = nil // a row is signed only once it is complete
	b.name, b.rows = in.name, in.rows(c.Comment, unsigned)
	if !b.named {
		b.batch = in.digest
	}
	return b, in.close, nil
}

// signWith makes the rules those of a worker that trusts this one signer.
func (c *SubmitCmd) signWith(b *bulk) (err error) {
	if c.SignWith == "" {
		return nil
	}
	if b.seed, err = readSmall(c.SignWith); err != nil {
		return badInput("--sign-with %s: %w", c.SignWith, err)
	}
	if b.signer, _, err = remediation.Sign(b.seed, b.subject, nil); err != nil {
		return badInput("--sign-with %s: %w", c.SignWith, err)
	}
	if b.rules.Signers, err = remediation.ParseSigners(b.signer); err != nil {
		return badInput("--sign-with %s: %w", c.SignWith, err)
	}
	b.expires = time.Now().Add(signFor).UTC().Format(time.RFC3339)
	return nil
}

// submission is one bulk on its way to the broker.
type submission struct {
	env     *Env
	bulk    *bulk
	broker  *broker.Broker
	rows    int
	harvest *harvest // nil: not waited for

	stored, duplicates int
	foreign            int // rows whose message ids other messages had
}

// carryOut publishes and waits. The report is written whatever happens, with what is known by then.
func (s *submission) carryOut(ctx context.Context, reportPath string) error {
	out, err := openReport(reportPath)
	if err != nil {
		return err
	}
	err = s.dialAndRun(ctx)
	if s.harvest == nil {
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
	if s.harvest != nil {
		var err error
		if from, err = s.earlier(ctx); err != nil {
			return s.cut(ctx, err)
		}
	}
	if err := s.publish(ctx); err != nil {
		return s.cut(ctx, err)
	}
	s.sayPublished()
	if s.harvest == nil {
		s.sayHowToFollow()
		return nil
	}
	return s.await(ctx, from)
}

func (s *submission) publish(ctx context.Context) error {
	m := s.meter("published")
	defer m.end()
	stored := func(row int, r broker.Stored) {
		if s.harvest != nil {
			s.harvest.published(s.harvest.fates[row], r)
		}
		s.stored++
		if r.Duplicate {
			s.duplicates++
		}
		m.show(s.stored)
	}
	var doubts []doubt
	row := 0
	err := s.broker.PublishAll(ctx, s.outgoing(), func(r broker.Stored) {
		if r.Duplicate {
			doubts = append(doubts, doubt{row, r.Sequence})
		} else {
			stored(row, r)
		}
		row++
	})
	if err != nil {
		return err
	}
	return s.settle(ctx, doubts, stored)
}

// outgoing are all rows.
func (s *submission) outgoing() iter.Seq2[broker.Outgoing, error] {
	return func(yield func(broker.Outgoing, error) bool) {
		row := 0
		for p := range s.bulk.requests() {
			if !yield(s.bulk.outgoing(p, s.again(row)), p.err) {
				return
			}
			row++
		}
	}
}

// again is the run that a row of an earlier dry run asks for, else 0.
func (s *submission) again(row int) int {
	if s.harvest == nil {
		return 0
	}
	return s.harvest.fates[row].rerun()
}

func (s *submission) sayPublished() {
	if s.bulk.single != "" {
		fmt.Fprintf(s.env.Stdout, "Published as %s.\n", s.bulk.single)
		return
	}
	fmt.Fprintf(s.env.Stdout, "%s published, %d were already there. Batch %s.\n", count(s.stored-s.duplicates, "request", "requests"), s.duplicates, plain(s.bulk.batch))
	if s.foreign > 0 {
		fmt.Fprintf(s.env.Stdout, "Other messages bore the message ids of %s, which went out under new ones: see who else may publish on %s.\n",
			count(s.foreign, "row", "rows"), plain(s.bulk.subject))
	}
}

func (s *submission) sayHowToFollow() {
	how := "results --batch " + shellQuote(s.bulk.batch)
	if s.bulk.single != "" {
		how = "why " + s.bulk.single
	}
	fmt.Fprintf(s.env.Stdout, "What becomes of %s: worker %s\n", pronoun(s.rows), how)
}

// cut says how to go on after what was cut short.
func (s *submission) cut(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		err = errors.New("interrupted")
	}
	if s.bulk.single != "" {
		return err
	}
	return fmt.Errorf("%w\n%d of %s are queued. Run the same command again to go on: no row is submitted twice", err, s.stored, count(s.rows, "request", "requests"))
}

func (s *submission) meter(what string) *meter {
	if s.bulk.single != "" {
		return nil
	}
	term, _ := s.env.Lookup("TERM")
	return newMeter(s.env.Stderr, isTerminal(s.env.Stderr) && term != "dumb", what, s.rows)
}

func count(n int, one, many string) string {
	if n == 1 {
		return "1 " + one
	}
	return fmt.Sprint(n, " ", many)
}

func pronoun(n int) string {
	if n == 1 {
		return "it"
	}
	return "them"
}
