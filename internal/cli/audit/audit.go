// Package audit is `worker audit`: verify and export.
package audit

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"time"

	"example.com/unrestrict-worker/internal/broker"
	"example.com/unrestrict-worker/internal/broker/trail"
	"example.com/unrestrict-worker/internal/cli/session"
	"example.com/unrestrict-worker/internal/config"
	"example.com/unrestrict-worker/internal/message"
)

// report is what `worker audit verify` found.
type report struct {
	Whole   bool         `json:"whole"`
	Broken  *trail.Break `json:"broken,omitempty"`
	Records uint64       `json:"records"` // verified, up to the break
	trail.Kept
}

// Run verifies the trail. Exit status 1: it is not whole.
func (c *VerifyCmd) Run(ctx context.Context, env *session.Env) error {
	kept, err := c.kept()
	if err != nil {
		return err
	}
	var signers *message.Signers
	if c.Signers != "" {
		if signers, err = message.SignersFile(c.Signers); err != nil {
			return config.BadInput("--signers: %w", err)
		}
	}
	var chain *trail.Chain
	if c.File != "" {
		chain, err = verifyExport(ctx, c.File, kept, signers)
	} else {
		chain, err = verifyTrail(ctx, env, kept, signers)
	}
	found, isBreak := errors.AsType[*trail.Break](err)
	if err != nil && !isBreak {
		return err
	}
	report := report{Whole: !isBreak, Broken: found, Kept: trail.Kept{Heads: []trail.Head{}}}
	if there := chain.Found(); there.Last >= there.First {
		report.Records, report.Kept = there.Last-there.First+1, there
	}
	if c.JSON {
		err = session.WriteJSONLine(env.Stdout, report)
	} else {
		err = report.write(env.Stdout)
	}
	if err == nil && !report.Whole {
		return session.ExitStatus(1)
	}
	return err
}

func (c *VerifyCmd) kept() (trail.Kept, error) {
	if c.Heads == "" {
		return trail.Kept{}, nil
	}
	text, err := os.ReadFile(c.Heads)
	var earlier report
	if err == nil {
		err = json.Unmarshal(text, &earlier)
	}
	if err == nil && len(earlier.Heads) == 0 {
		err = errors.New("has no heads: give what `worker audit verify --json` wrote")
	}
	if err != nil {
		return trail.Kept{}, config.BadInput("--heads: %w", err)
	}
	return earlier.Kept, nil
}

func (r report) write(out io.Writer) error {
	if r.Broken != nil {
		_, err := fmt.Fprintf(out, "BROKEN at %s.\nWhat comes before it is whole. The runbook says what to do (A break in the audit trail).\n", session.Plain(r.Broken.Error()))
		return err
	}
	if r.Records == 0 {
		_, err := fmt.Fprintln(out, "Whole: there is no record yet.")
		return err
	}
	what := fmt.Sprintf("Whole: %d records, sequences %d to %d, of %s.", r.Records, r.First, r.Last, session.Count(len(r.Heads), "writer", "writers"))
	if r.First > 1 {
		what += " What was before is not in it."
	}
	if _, err := fmt.Fprintf(out, "%s\nSHA-256 of their export: %s. Their last records:\n", what, r.ExportSHA256); err != nil {
		return err
	}
	t := session.NewTable("SEQ", "WRITER", "N", "SHA256")
	for _, h := range r.Heads {
		t.Row(strconv.FormatUint(h.Sequence, 10), h.Writer, strconv.FormatUint(h.N, 10), h.SHA256)
	}
	return t.Write(out)
}

func openAuditTrail(ctx context.Context, conn *broker.Broker) (*broker.AuditTrail, error) {
	stream, err := conn.OpenAuditTrail(ctx)
	if broker.IsMissing(err) {
		return nil, fmt.Errorf("%w: start `worker run`, which creates it", err)
	}
	return stream, err
}

func verifyTrail(ctx context.Context, env *session.Env, kept trail.Kept, signers *message.Signers) (*trail.Chain, error) {
	conn, err := session.DialForCommand(ctx, env)
	if err != nil {
		return nil, err
	}
	defer session.CloseAfterCommand(conn)
	stream, err := openAuditTrail(ctx, conn)
	if err != nil {
		return nil, err
	}
	chain := trail.NewChain(1, kept, func(seq uint64) ([]byte, error) { return stream.Payload(ctx, seq) })
	chain.Signers = signers
	err = stream.Each(ctx, time.Time{}, chain.Add)
	if err == nil {
		err = chain.End(stream.Last())
	}
	return chain, err
}

// Cmd is `worker audit`.
type Cmd struct {
	Verify VerifyCmd `cmd:"" help:"Name the first record that was altered or is missing."`
	Export ExportCmd `cmd:"" help:"Write the audit trail as JSON lines."`
}

// VerifyCmd is `worker audit verify`.
type VerifyCmd struct {
	File    string `placeholder:"FILE" help:"Verify an export instead; needs no broker."`
	Heads   string `placeholder:"FILE" help:"What --json wrote at an earlier time: the last records of then must still be there."`
	Signers string `placeholder:"FILE" help:"Who has which key, one NKEY NAME a line, those of former signers too: an approval counts only by a key of the name that it bears. Without it the signatures are verified with the keys that the records name."`
	JSON    bool   `name:"json" help:"One JSON object."`
}
