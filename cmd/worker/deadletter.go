package main

import (
	"bytes"
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
	t := newTable("SEQ", "TIME", "REQUEST", "RUN", "CODE", "MESSAGE")
	for _, l := range letters {
		t.row(strconv.FormatUint(l.seq, 10), l.dead.Time.Local().Format(time.DateTime), l.dead.RequestID,
			strconv.Itoa(l.dead.Run), l.dead.Code, l.dead.Message)
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
		return l.show(env.Stdout)
	})
}

// Run publishes the requests of dead letters again.
func (c *DeadletterReplayCmd) Run(ctx context.Context, env *Env) error {
	say := sayer{env: env, json: c.JSON, done: "replayed"}
	var by *operator
	before := func(conn *broker.Broker, letters []letter) (bool, error) {
		what, hopeful := "", 0
		for _, l := range letters {
			if l.hopeless(conn.Names(), time.Now()) == "" {
				hopeful++
			}
		}
		if left := len(letters) - hopeful; left > 0 {
			what = fmt.Sprintf(" (and %d that can't be)", left)
		}
		return say.before(ctx, c.Yes, "Replaying "+count(hopeful, "dead letter", "dead letters")+what+".", len(letters))
	}
	err := c.each(ctx, env, before, func(conn *broker.Broker, l letter) error {
		if why := l.hopeless(conn.Names(), time.Now()); why != "" {
			return say.after(l, why)
		}
		if by == nil {
			by = newOperator(conn, c.Reason)
		}
		if err := by.recordLetter(ctx, remediation.ActReplay, l); err != nil {
			return err // the next would fare no better
		}
		if err := l.replay(ctx, conn); err != nil {
			return say.after(l, err.Error())
		}
		return say.after(l, "")
	})
	return say.failed(err)
}

// replay publishes a dead letter's request again, or finds that this was done already. That the broker calls it a
// duplicate does not say so: anybody who may publish can have used the replay's message id, which is fixed.
func (l letter) replay(ctx context.Context, conn *broker.Broker) error {
	stored, err := conn.PublishOnce(ctx, remediation.ReplayHeader(l.seq, l.header), l.data)
	if err != nil || !stored.Duplicate {
		return err
	}
	kept, err := conn.Kept(ctx, []uint64{stored.Sequence})
	if err != nil {
		return fmt.Errorf("its message id is in use, and it can't be told by what: %w", err)
	}
	if m, there := kept[stored.Sequence]; there {
		// The worker takes the rest from the dead letter.
		if seq, replay, _ := remediation.ParseReplay(m.Header); replay && seq == l.seq && bytes.Equal(m.Data, l.data) {
			return nil
		}
		return l.notOurs(ctx, conn)
	}
	// It was acknowledged. A replay drops its dead letter before that.
	left, err := readLetters(ctx, conn, func(other letter) bool { return other.seq == l.seq })
	if err != nil {
		return fmt.Errorf("its message id was used, and it can't be told by what: %w", err)
	}
	if len(left) > 0 {
		return l.notOurs(ctx, conn)
	}
	return nil
}

func (l letter) notOurs(ctx context.Context, conn *broker.Broker) error {
	window := ""
	if d, err := conn.DuplicateWindow(ctx); err == nil {
		window = " (" + roughly(d) + ")"
	}
	return fmt.Errorf("its message id replay:%d is in use by another message; try again when the broker's duplicate window has passed%s", l.seq, window)
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
		if err := by.recordLetter(ctx, remediation.ActDrop, l); err != nil {
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
		(s.Code == "" || l.dead.Code == s.Code) && (s.Seq == 0 || l.seq == s.Seq)
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
	return fmt.Errorf("no such dead letter: %s (worker deadletter list shows those there are)", strings.Join(names, ", "))
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
			return fmt.Errorf("there are %d dead letters of %s: say which with --seq, one of %s", len(seqs), plain(id), strings.Join(seqs, ", "))
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
		if l := (letter{seq: m.Sequence, dead: remediation.ReadDeadLetter(m.Header, m.Data), header: m.Header, data: m.Data}); means(l) {
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
	r, invalid := remediation.Rules{Stream: n.Stream, OwnSubjects: n.OwnSubjects()}.Parse(original)
	switch {
	case invalid != nil:
		return "it would be rejected again: " + invalid.Error() + "; publish a corrected request"
	case !r.ExpiresAt.IsZero() && now.After(r.ExpiresAt):
		return "it expired at " + r.ExpiresAt.Local().Format(time.DateTime) + "; publish the request anew"
	}
	return ""
}
