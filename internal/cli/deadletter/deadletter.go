// Package deadletter is `worker deadletter`: list, show, replay and drop.
package deadletter

import (
	"cmp"
	"context"
	"fmt"
	"strconv"
	"strings"
	"time"

	"example.com/unrestrict-worker/internal/admin"
	"example.com/unrestrict-worker/internal/broker"
	"example.com/unrestrict-worker/internal/cli/session"
	"example.com/unrestrict-worker/internal/ledger"
	"example.com/unrestrict-worker/internal/message"
	"example.com/unrestrict-worker/internal/service"
)

// Letter is one dead letter as the commands see it.
type Letter struct {
	Seq    uint64
	Dead   message.DeadLetter
	Header message.Header // as it is kept
	Data   []byte

	Claimed string         // the id that its message gave itself without owning it
	Replay  service.Replay // what to expect of its replay
}

// Run lists dead letters.
func (c *ListCmd) Run(ctx context.Context, env *session.Env) error {
	conn, err := session.DialForCommand(ctx, env)
	if err != nil {
		return err
	}
	defer session.CloseAfterCommand(conn)
	letters, err := ReadLetters(ctx, conn, func(l Letter) bool { return c.Code == "" || l.Dead.Code == c.Code })
	if err != nil {
		return err
	}
	if c.JSON {
		for _, l := range letters {
			if err := session.WriteJSONLine(env.Stdout, l.View(conn.Names())); err != nil {
				return err
			}
		}
		return nil
	}
	if len(letters) == 0 {
		_, err := fmt.Fprintln(env.Stdout, "No dead letters.")
		return err
	}
	t := session.NewTable("SEQ", "TIME", "REQUEST", "RUN", "MACHINE", "CODE", "MESSAGE")
	for _, l := range letters {
		r, _, _ := service.RequestOfDeadLetter(l.Dead, l.Header, l.Data, conn.Names().Stream)
		t.Row(strconv.FormatUint(l.Seq, 10), admin.Clock(l.Dead.Time), session.Claiming(l.Dead.RequestID, l.Claimed),
			strconv.Itoa(l.Dead.Run), r.MachineID, l.Dead.Code, l.Dead.Message)
	}
	if err := t.Fit(env.Stdout); err != nil {
		return err
	}
	_, err = fmt.Fprintln(env.Stdout, "\n"+strings.Join(advice(letters), "\n"))
	return err
}

// Run shows dead letters in full.
func (c *ShowCmd) Run(ctx context.Context, env *session.Env) error {
	return c.each(ctx, env, nil, func(conn *broker.Broker, l Letter) error {
		if c.JSON {
			v := l.View(conn.Names())
			v.Headers = l.shownHeaders()
			return session.WriteJSONLine(env.Stdout, v)
		}
		return l.Show(env.Stdout)
	})
}

// Run publishes the requests of dead letters again.
func (c *ReplayCmd) Run(ctx context.Context, env *session.Env) error {
	reporter := Reporter{Env: env, JSON: c.JSON, Done: "replayed"}
	var by *session.Operator
	before := func(_ *broker.Broker, letters []Letter) (bool, error) {
		what, hopeful := "", 0
		var fail []Letter
		for _, l := range letters {
			switch l.Replay.Chance {
			case service.ReplayFails:
				fail = append(fail, l)
				fallthrough
			case service.ReplayHelps:
				hopeful++
			}
		}
		if left := len(letters) - hopeful; left > 0 {
			what = fmt.Sprintf(" (and %d that can't be)", left)
		}
		what = "Replaying " + session.Count(hopeful, "dead letter", "dead letters") + what + "."
		return reporter.Confirm(ctx, c.Yes || hopeful == 0, strings.Join(append([]string{what}, advice(fail)...), "\n"), len(letters))
	}
	err := c.each(ctx, env, before, func(conn *broker.Broker, l Letter) error {
		if l.Replay.Chance == service.ReplayRefused {
			return reporter.report(l, l.Replay.Text)
		}
		if by == nil {
			by = session.NewOperator(conn, c.Reason)
		}
		if err := recordLetter(ctx, by, ledger.ActReplay, l); err != nil {
			return err // the next one would fail too
		}
		if err := l.Publish(ctx, conn); err != nil {
			return reporter.report(l, err.Error())
		}
		return reporter.report(l, "")
	})
	return reporter.status(err)
}

// Publish replays a dead letter: it publishes its request again, on its own lane, which its signature covers. If the broker
// drops the replay as a duplicate, that does not prove that it is queued: its message id is fixed, and anybody who may publish can
// have used it. So it is published once more under an id that nobody can guess. A superfluous replay does no harm, because a dead
// letter opens one run.
func (l Letter) Publish(ctx context.Context, conn *broker.Broker) error {
	header, lane := message.ReplayHeader(l.Seq, l.Header), message.LaneOf(conn.Names().Subject, l.Dead.Delivery.Subject)
	stored, err := conn.Publish(ctx, lane, header, l.Data)
	if err != nil || !stored.Duplicate {
		return err
	}
	header["Nats-Msg-Id"] = []string{header.Get("Nats-Msg-Id") + ":" + service.RandomID()}
	_, err = conn.Publish(ctx, lane, header, l.Data)
	return err
}

// Run deletes dead letters. The audit trail keeps a record of each.
func (c *DropCmd) Run(ctx context.Context, env *session.Env) error {
	reporter := Reporter{Env: env, JSON: c.JSON, Done: "dropped"}
	before := func(_ *broker.Broker, letters []Letter) (bool, error) {
		what := fmt.Sprintf("Dropping %s for good.", session.Count(len(letters), "dead letter", "dead letters"))
		if len(letters) > 1 {
			if err := session.RequireYes(env, c.Yes, strings.ToLower(what[:1])+what[1:len(what)-1]); err != nil {
				return false, err
			}
		}
		return reporter.Confirm(ctx, c.Yes || len(letters) == 1, what, len(letters))
	}
	var by *session.Operator
	err := c.each(ctx, env, before, func(conn *broker.Broker, l Letter) error {
		if by == nil {
			by = session.NewOperator(conn, c.Reason)
		}
		if err := recordLetter(ctx, by, ledger.ActDrop, l); err != nil {
			return err // the next one would fail too
		}
		if err := conn.NewPublisher().Drop(ctx, l.Seq); err != nil {
			return reporter.report(l, err.Error())
		}
		return reporter.report(l, "")
	})
	return reporter.status(err)
}

// advice returns what to expect of the replays, each text once, with the sequences of some of the dead letters that it is about.
func advice(letters []Letter) (lines []string) {
	const named = 5
	seqs := map[string][]string{}
	var texts []string
	for _, l := range letters {
		text := l.Replay.Text
		if seqs[text] == nil {
			texts = append(texts, text)
		}
		seqs[text] = append(seqs[text], strconv.FormatUint(l.Seq, 10))
	}
	for _, text := range texts {
		all := seqs[text]
		of := strings.Join(all[:min(len(all), named)], ", ")
		if more := len(all) - named; more > 0 {
			of += fmt.Sprintf(" and %d more", more)
		}
		lines = append(lines, of+": "+session.Plain(text))
	}
	return lines
}

// owner returns the signer or client whose request it is, "" if it is nobody's.
func (l Letter) owner() string {
	return cmp.Or(l.Dead.SignedBy, l.Header.Get(message.HeaderClient))
}

// ReadLetters reads the dead letters that means selects, the oldest first.
func ReadLetters(ctx context.Context, conn *broker.Broker, means func(Letter) bool) ([]Letter, error) {
	var letters []Letter
	for m, err := range conn.DeadLetters(ctx) {
		if broker.IsMissing(err) {
			return nil, fmt.Errorf("%w: start `worker run`, which creates it, or check WORKER_DEADLETTER_STREAM", err)
		}
		if err != nil {
			return nil, err
		}
		l := Letter{Seq: m.Sequence, Dead: message.ReadDeadLetter(m.Header, m.Data), Header: m.Header, Data: m.Data}
		_, l.Claimed, _ = service.RequestOfDeadLetter(l.Dead, l.Header, l.Data, conn.Names().Stream)
		if means(l) {
			l.Replay = service.ReplayOf(conn.Names(), l.Dead, l.Header, l.Data, time.Now())
			letters = append(letters, l)
		}
	}
	return letters, nil
}

// Cmd is `worker deadletter`.
type Cmd struct {
	List   ListCmd   `cmd:"" help:"List the dead letters."`
	Show   ShowCmd   `cmd:"" help:"Show dead letters with their payload and headers."`
	Replay ReplayCmd `cmd:"" help:"Publish their requests again, each as its next run."`
	Drop   DropCmd   `cmd:"" help:"Delete dead letters."`
}

// ListCmd is `worker deadletter list`.
type ListCmd struct {
	Code string `placeholder:"CODE" help:"Only dead letters with this error code."`
	JSON bool   `name:"json" help:"One JSON object a line."`
}

// ShowCmd is `worker deadletter show`.
type ShowCmd struct{ Selection }

// ReplayCmd is `worker deadletter replay`.
type ReplayCmd struct {
	Selection
	Reason string `placeholder:"TEXT" help:"Why; recorded in the audit trail."`
	Yes    bool   `help:"Do not ask, as it does on a terminal alone."`
}

// DropCmd is `worker deadletter drop`.
type DropCmd struct {
	Selection
	Reason string `placeholder:"TEXT" help:"Why; recorded in the audit trail."`
	Yes    bool   `help:"Do not ask before several are dropped; needed for that where there is no terminal."`
}

// recordLetter records what is about to be done to a dead letter.
func recordLetter(ctx context.Context, o *session.Operator, act string, l Letter) error {
	return o.Record(ctx, act, ledger.AuditRecord{
		RequestID: l.Dead.RequestID, SignedBy: l.Dead.SignedBy, Client: l.Header.Get(message.HeaderClient), Run: l.Dead.Run, DeadLetter: l.Seq,
		Error: &message.Failure{Code: l.Dead.Code, Message: l.Dead.Message, Origin: message.OriginWorker},
	})
}
