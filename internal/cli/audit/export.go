package audit

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"example.com/unrestrict-worker/internal/broker"
	"example.com/unrestrict-worker/internal/broker/trail"
	"example.com/unrestrict-worker/internal/cli/session"
	"example.com/unrestrict-worker/internal/config"
	"example.com/unrestrict-worker/internal/message"
)

// Run exports the trail up to the present.
func (c *ExportCmd) Run(ctx context.Context, env *session.Env) error {
	conn, err := session.DialForCommand(ctx, env)
	if err != nil {
		return err
	}
	defer session.CloseAfterCommand(conn)
	stream, err := openAuditTrail(ctx, conn)
	if err != nil {
		return err
	}
	var since time.Time
	if c.Since > 0 {
		since = time.Now().Add(-c.Since)
	}
	if c.Out == "-" {
		return exportTrail(ctx, stream, since, env.Stdout)
	}
	f, err := os.OpenFile(c.Out, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return config.BadInput("--out: %w", err)
	}
	err = exportTrail(ctx, stream, since, f)
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return errors.Join(err, os.Remove(c.Out)) // half an export would pass for a whole one
	}
	return nil
}

func exportTrail(ctx context.Context, stream *broker.AuditTrail, since time.Time, out io.Writer) error {
	w := bufio.NewWriter(out)
	err := stream.Each(ctx, since, func(m trail.Message) error {
		line, err := trail.Export(m)
		if err == nil {
			_, err = w.Write(line)
		}
		return err
	})
	return errors.Join(err, w.Flush())
}

// verifyExport verifies from the file's first line on: what was before is not in it.
func verifyExport(ctx context.Context, path string, kept trail.Kept, signers *message.Signers) (*trail.Chain, error) {
	chain := trail.NewChain(1, kept, nil)
	begun, last := false, uint64(0)
	err := eachExported(ctx, path, func(m trail.Message) error {
		if !begun {
			begun = true
			chain = trail.NewChain(m.Sequence, kept, func(seq uint64) ([]byte, error) { return exported(ctx, path, seq) })
			chain.Signers = signers
		}
		last = m.Sequence
		return chain.Add(m)
	})
	if err == nil {
		err = chain.End(last)
	}
	return chain, err
}

// exported looks one payload up in an export.
func exported(ctx context.Context, path string, seq uint64) (found []byte, err error) {
	enough := errors.New("enough")
	err = eachExported(ctx, path, func(m trail.Message) error {
		if m.Sequence != seq {
			return nil
		}
		found = m.Data
		return enough
	})
	if errors.Is(err, enough) {
		err = nil
	}
	return found, err
}

func eachExported(ctx context.Context, path string, fn func(trail.Message) error) error {
	f, err := os.Open(path)
	if err != nil {
		return config.BadInput("--file: %w", err)
	}
	defer f.Close()
	r := bufio.NewReader(f)
	for n := 1; ; n++ {
		line, err := r.ReadBytes('\n')
		if errors.Is(err, io.EOF) && len(line) == 0 {
			return nil
		}
		if err != nil && !errors.Is(err, io.EOF) {
			return fmt.Errorf("read %s: %w", path, err)
		}
		m, err := trail.Import(line)
		if _, altered := errors.AsType[*trail.Break](err); altered {
			return err
		}
		if err != nil {
			return config.BadInput("%s, line %d: %w", path, n, err)
		}
		if err := fn(m); err != nil {
			return err
		}
		if err := context.Cause(ctx); err != nil {
			return err
		}
	}
}

// ExportCmd is `worker audit export`.
type ExportCmd struct {
	Since time.Duration `placeholder:"DURATION" help:"Only records of the last so long, such as 24h or 7d (default: from the first)."`
	Out   string        `placeholder:"FILE" default:"-" help:"Where to write; - is standard output (default: ${default}). A file must not exist."`
}

// Validate is called by kong.
func (c ExportCmd) Validate() error {
	if c.Since < 0 {
		return config.BadInput("--since: give how long ago, such as 24h")
	}
	return nil
}
