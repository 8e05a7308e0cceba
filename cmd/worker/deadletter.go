package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"example.com/unrestrict-worker/internal/broker"
	"example.com/unrestrict-worker/internal/remediation"
)

// letter is one dead letter as the commands see it.
type letter struct {
	seq    uint64
	dead   remediation.DeadLetter
	header remediation.Header // as it is kept
	data   []byte

	stuck string // why a replay would be rejected whatever happens; "": it need not be
}

// Run lists dead letters.
func (c *DeadletterListCmd) Run(ctx context.Context, env *Env) error {
	conn, err := dialForCommand(ctx, env)
	if err != nil {
		return err
	}
	defer closeAfterCommand(conn)
	letters, err := readLetters(ctx, conn, func(l letter) bool { return c.Code == "" || l.dead.Code == c.Code })
	if err != nil {
		return err
	}
	if c.JSON {
		for _, l := range letters {
			if err := writeJSONLine(env.Stdout, l.view(conn.Names())); err != nil {
				return err
			}
		}
		return nil
	}
	if len(letters) == 0 {
		_, err := fmt.Fprintln(env.Stdout, "No dead letters.")
		return err
	}
	t := newTable("SEQ", "TIME", "REQUEST", "RUN", "MACHINE", "CODE", "MESSAGE")
	for _, l := range letters {
		r, claimed, _ := asked(l.dead, l.header, l.data, conn.Names().Stream)
		t.row(strconv.FormatUint(l.seq, 10), clock(l.dead.Time), claiming(l.dead.RequestID, claimed),
			strconv.Itoa(l.dead.Run), r.MachineID, l.dead.Code, l.dead.Message)
	}
	return t.fit(env.Stdout)
}

// Run shows dead letters in full.
func (c *DeadletterShowCmd) Run(ctx context.Context, env *Env) error {
	return c.each(ctx, env, nil, func(conn *broker.Broker, l letter) error {
		if c.JSON {
			v := l.view(conn.Names())
			v.Headers = l.shownHeaders()
			return writeJSONLine(env.Stdout, v)
		}
		return l.show(conn.Names(), env.Stdout)
	})
}

// Run publishes the requests of dead letters again.
func (c *DeadletterReplayCmd) Run(ctx context.Context, env *Env) error {
	say := sayer{env: env, json: c.JSON, done: "replayed"}
	var by *operator
	before := func(conn *broker.Broker, letters []letter) (bool, error) {
		what, hopeful := "", 0
		for _, l := range letters {
			if l.stuck == "" {
				hopeful++
			}
		}
		if left := len(letters) - hopeful; left > 0 {
			what = fmt.Sprintf(" (and %d that can't be)", left)
		}
		return say.before(ctx, c.Yes || hopeful == 0, "Replaying "+count(hopeful, "dead letter", "dead letters")+what+".", len(letters))
	}
	err := c.each(ctx, env, before, func(conn *broker.Broker, l letter) error {
		if l.stuck != "" {
			return say.after(l, l.stuck)
		}
		if by == nil {
			by = newOperator(conn, c.Reason)
		}
		if err := recordLetter(ctx, by, remediation.ActReplay, l); err != nil {
			return err // the next would fare no better
		}
		if err := l.replay(ctx, conn); err != nil {
			return say.after(l, err.Error())
		}
		return say.after(l, "")
	})
	return say.failed(err)
}

// replay publishes a dead letter's request again. That the broker calls the replay a duplicate does not say that it is
// queued: its message id is fixed, and anybody who may publish can have used it up. So it goes out once more under an id
// that nobody can guess. A message too many costs nothing, for a dead letter opens one run.
func (l letter) replay(ctx context.Context, conn *broker.Broker) error {
	header := remediation.ReplayHeader(l.seq, l.header)
	stored, err := conn.PublishOnce(ctx, header, l.data)
	if err != nil || !stored.Duplicate {
		return err
	}
	header["Nats-Msg-Id"] = []string{header.Get("Nats-Msg-Id") + ":" + randomID()}
	_, err = conn.PublishOnce(ctx, header, l.data)
	return err
}

// Run deletes dead letters. That there was one stays in the audit trail.
func (c *DeadletterDropCmd) Run(ctx context.Context, env *Env) error {
	say := sayer{env: env, json: c.JSON, done: "dropped"}
	before := func(_ *broker.Broker, letters []letter) (bool, error) {
		what := fmt.Sprintf("Dropping %s for good.", count(len(letters), "dead letter", "dead letters"))
		if len(letters) > 1 {
			if err := unasked(env, c.Yes, strings.ToLower(what[:1])+what[1:len(what)-1]); err != nil {
				return false, err
			}
		}
		return say.before(ctx, c.Yes || len(letters) == 1, what, len(letters))
	}
	var by *operator
	err := c.each(ctx, env, before, func(conn *broker.Broker, l letter) error {
		if by == nil {
			by = newOperator(conn, c.Reason)
		}
		if err := recordLetter(ctx, by, remediation.ActDrop, l); err != nil {
			return err // the next would fare no better
		}
		if err := conn.NewPublisher().Drop(ctx, l.seq); err != nil {
			return say.after(l, err.Error())
		}
		return say.after(l, "")
	})
	return say.failed(err)
}

// each does something about each dead letter that is meant. before is told of all of them first and can refuse; where
// it is given, an id alone must mean one of them. Ids that mean none are named at the end, with exit status 1.
func (s DeadletterSelection) each(ctx context.Context, env *Env, before func(*broker.Broker, []letter) (bool, error), do func(*broker.Broker, letter) error) error {
	conn, err := dialForCommand(ctx, env)
	if err != nil {
		return err
	}
	defer closeAfterCommand(conn)
	letters, err := readLetters(ctx, conn, s.means)
	if err != nil {
		return err
	}
	unknown := s.unknown(letters)
	if before != nil {
		if err := s.ambiguous(letters); err != nil {
			return err
		}
		if goOn, err := before(conn, letters); err != nil || !goOn {
			return errors.Join(err, unknown)
		}
	}
	for _, l := range letters {
		err := ctx.Err()
		if err == nil {
			err = do(conn, l)
		}
		if ctx.Err() != nil {
			return errors.New("interrupted; run the same command again to go on")
		}
		if err != nil {
			return err
		}
	}
	return unknown
}

func (s DeadletterSelection) means(l letter) bool {
	return (len(s.IDs) == 0 || slices.Contains(s.IDs, l.dead.RequestID)) &&
		(s.Code == "" || l.dead.Code == s.Code) && (s.Seq == 0 || l.seq == s.Seq) && (s.SignedBy == "" || l.owner() == s.SignedBy)
}

// owner is the signer or client whose request it is, "" if it is nobody's.
func (l letter) owner() string {
	return cmp.Or(l.dead.SignedBy, l.header.Get(remediation.HeaderClient))
}

// unknown names the ids and the sequence that no dead letter has.
func (s DeadletterSelection) unknown(letters []letter) error {
	var names []string
	for _, id := range s.IDs {
		if !slices.ContainsFunc(letters, func(l letter) bool { return l.dead.RequestID == id }) {
			names = append(names, plain(id))
		}
	}
	if s.Seq > 0 && len(letters) == 0 && len(names) == 0 {
		names = append(names, fmt.Sprintf("sequence %d", s.Seq))
	}
	if names == nil {
		return nil
	}
	of := ""
	if s.SignedBy != "" {
		of = " of " + plain(s.SignedBy)
	}
	return fmt.Errorf("no such dead letter%s: %s (worker deadletter list shows those there are)", of, strings.Join(names, ", "))
}

// ambiguous refuses an id of several dead letters: one may be of another message, or out of date.
func (s DeadletterSelection) ambiguous(letters []letter) error {
	for _, id := range s.IDs {
		var seqs []string
		for _, l := range letters {
			if l.dead.RequestID == id {
				seqs = append(seqs, strconv.FormatUint(l.seq, 10))
			}
		}
		if len(seqs) > 1 {
			return fmt.Errorf("there are %d dead letters of %s: say which with --seq, one of %s, or whose with --signed-by", len(seqs), plain(id), strings.Join(seqs, ", "))
		}
	}
	return nil
}

func readLetters(ctx context.Context, conn *broker.Broker, means func(letter) bool) ([]letter, error) {
	var letters []letter
	for m, err := range conn.DeadLetters(ctx) {
		if broker.IsMissing(err) {
			return nil, fmt.Errorf("%w: start `worker run`, which creates it, or check WORKER_DEADLETTER_STREAM", err)
		}
		if err != nil {
			return nil, err
		}
		l := letter{seq: m.Sequence, dead: remediation.ReadDeadLetter(m.Header, m.Data), header: m.Header, data: m.Data}
		if means(l) {
			l.stuck = l.hopeless(conn.Names(), time.Now())
			letters = append(letters, l)
		}
	}
	return letters, nil
}

// hopeless is why a replay would be rejected whatever happens, "" if it need not be. Signatures and policy are the
// worker's to judge, which knows the signers of today.
func (l letter) hopeless(n broker.Names, now time.Time) string {
	original, _, _, err := remediation.OriginalDelivery(l.header, l.data)
	switch {
	case err != nil:
		return err.Error()
	case original.Stream != n.Stream || original.Subject != n.Subject:
		return "it is of a request on " + original.Subject + " of stream " + original.Stream + ": replay it there"
	}
	if l.dead.Code == remediation.CodeIDConflict && now.Sub(l.dead.Time) < remembered {
		return "another request has its id; publish the request under an id of its own"
	}
	r, invalid := remediation.Rules{Stream: n.Stream, OwnSubjects: n.OwnSubjects()}.Parse(original)
	switch {
	case invalid != nil:
		return "it would be rejected again: " + invalid.Error() + "; publish a corrected request"
	case !r.ExpiresAt.IsZero() && now.After(r.ExpiresAt):
		return "it expired at " + clock(r.ExpiresAt) + "; publish the request anew"
	}
	return ""
}

// DeadletterCmd is `worker deadletter`.
type DeadletterCmd struct {
	List   DeadletterListCmd   `cmd:"" help:"List the dead letters."`
	Show   DeadletterShowCmd   `cmd:"" help:"Show dead letters with their payload and headers."`
	Replay DeadletterReplayCmd `cmd:"" help:"Publish the requests of dead letters again, each as its next run."`
	Drop   DeadletterDropCmd   `cmd:"" help:"Delete dead letters."`
}

// DeadletterListCmd is `worker deadletter list`.
type DeadletterListCmd struct {
	Code string `placeholder:"CODE" help:"Only dead letters with this error code."`
	JSON bool   `name:"json" help:"One JSON object a line."`
}

// DeadletterShowCmd is `worker deadletter show`.
type DeadletterShowCmd struct{ DeadletterSelection }

// DeadletterReplayCmd is `worker deadletter replay`.
type DeadletterReplayCmd struct {
	DeadletterSelection
	Reason string `placeholder:"TEXT" help:"Why; stands in the audit trail."`
	Yes    bool   `help:"Do not ask, as it does on a terminal alone."`
}

// DeadletterDropCmd is `worker deadletter drop`.
type DeadletterDropCmd struct {
	DeadletterSelection
	Reason string `placeholder:"TEXT" help:"Why; stands in the audit trail."`
	Yes    bool   `help:"Do not ask before several are dropped; needed for that where there is no terminal."`
}

// DeadletterSelection says which dead letters are meant: those that match
// everything given. At least one thing is given, so that all are meant only
// where --all says it.
type DeadletterSelection struct {
	IDs      []string `arg:"" optional:"" name:"id" help:"Request ids."`
	All      bool     `help:"All dead letters."`
	Code     string   `placeholder:"CODE" help:"All dead letters with this error code."`
	Seq      uint64   `placeholder:"SEQ" help:"The dead letter with this sequence in the dead-letter stream: tells several of one id apart."`
	SignedBy string   `placeholder:"NAME" help:"Of those, only requests of this signer or client."`
	JSON     bool     `name:"json" help:"One JSON object a line."`
}

// Validate is called by kong.
func (s DeadletterSelection) Validate() error {
	if len(s.IDs) == 0 && !s.All && s.Code == "" && s.Seq == 0 {
		return badInput("say which dead letters: request ids, --seq SEQ, --code CODE or --all")
	}
	if s.All && (len(s.IDs) > 0 || s.Code != "" || s.Seq != 0) {
		return badInput("--all means every dead letter: leave out request ids, --seq and --code")
	}
	return nil
}

// recordLetter records what is about to be done to a dead letter, which may be the last that is heard of it.
func recordLetter(ctx context.Context, o *operator, act string, l letter) error {
	return o.record(ctx, act, remediation.AuditRecord{
		RequestID: l.dead.RequestID, SignedBy: l.dead.SignedBy, Client: l.header.Get(remediation.HeaderClient), Run: l.dead.Run, DeadLetter: l.seq,
		Error: &remediation.Failure{Code: l.dead.Code, Message: l.dead.Message, Origin: remediation.OriginWorker},
	})
}
