package approvals

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"time"

	"example.com/unrestrict-worker/internal/broker"
	"example.com/unrestrict-worker/internal/cli/orders"
	"example.com/unrestrict-worker/internal/cli/session"
	"example.com/unrestrict-worker/internal/config"
	"example.com/unrestrict-worker/internal/ledger"
	"example.com/unrestrict-worker/internal/message"
	"example.com/unrestrict-worker/internal/service"
)

// flags are those of approve and deny.
type flags struct {
	IDs      []string `arg:"" optional:"" name:"id" help:"Request ids."`
	File     string   `placeholder:"FILE" help:"The file that was submitted: each of its rows whose waiting request says what the row says; needs --batch."`
	Batch    string   `placeholder:"NAME" help:"With --file: the batch that the file was submitted as."`
	Comment  string   `placeholder:"TEXT" help:"With --file: the comment that it was submitted with, if its rows have none."`
	SignedBy string   `placeholder:"NAME" help:"The requests of this signer, where several have that id."`
	orders.By
	JSON bool `name:"json" help:"One JSON object a line."`
}

// Validate is called by kong.
func (c *flags) Validate() error {
	switch {
	case (len(c.IDs) == 0) == (c.File == ""):
		return config.BadInput("say which requests: ids, or --file FILE --batch NAME")
	case (c.File == "") != (c.Batch == ""):
		return config.BadInput("--file and --batch go together: the rows' ids come from both")
	case c.File == "" && c.Comment != "":
		return config.BadInput("--comment goes with --file")
	case c.SignWith == "":
		return config.BadInput("--sign-with FILE: an approval or a denial is a signature; give the file with your nkey seed")
	}
	return nil
}

// ApproveCmd is `worker approve`.
type ApproveCmd struct{ flags }

// DenyCmd is `worker deny`.
type DenyCmd struct{ flags }

// Run gives the approvals.
func (c *ApproveCmd) Run(ctx context.Context, env *session.Env) error {
	return c.run(ctx, env, message.VerbApprove)
}

// Run gives the denials.
func (c *DenyCmd) Run(ctx context.Context, env *session.Env) error {
	return c.run(ctx, env, message.VerbDeny)
}

// What became of one request.
const (
	approved = "approved"
	denied   = "denied"
	given    = "given" // published, and no worker has recorded it yet
	refused  = "refused"
	unknown  = "unknown"
)

// outcome is what became of an approval or a denial of one request.
type outcome struct {
	ID     string `json:"requestId"`
	Whose  string `json:"signedBy,omitempty"`
	Run    int    `json:"run,omitempty"`
	Digest string `json:"digest,omitempty"`
	Result string `json:"result"`
	Why    string `json:"message,omitempty"`

	ref string // of the order; "": none was given
}

func (c *flags) run(ctx context.Context, env *session.Env, verb string) error {
	conn, err := session.DialForCommand(ctx, env)
	if err != nil {
		return err
	}
	defer session.CloseAfterCommand(conn)
	issuer, err := orders.NewIssuer(conn, c.By)
	if err != nil {
		return err
	}
	var waiting []Waiting
	var outcomes []outcome
	if c.File != "" {
		waiting, outcomes, err = c.fromFile(ctx, env, conn)
	} else {
		waiting, outcomes, err = c.byID(ctx, conn)
	}
	if err != nil {
		return err
	}
	for i, w := range waiting {
		f := outcome{ID: w.ID, Whose: w.SignedBy, Run: w.Run, Digest: w.Approval.Digest, Result: given}
		if w.wrong != nil {
			f.Result, f.Why = refused, w.wrong.Error()
		} else {
			if c.File == "" && !c.JSON {
				if i > 0 {
					fmt.Fprintln(env.Stdout)
				}
				if err := w.write(env.Stdout); err != nil {
					return err
				}
			}
			f.ref, err = issuer.Issue(ctx, message.Order{Verb: verb, ID: w.ID, Signer: w.SignedBy, Run: w.Run, Digest: w.Approval.Digest, ExpiresAt: w.Approval.ExpiresAt})
			if err != nil {
				return err
			}
		}
		outcomes = append(outcomes, f)
	}
	if err := await(ctx, issuer, verb, outcomes); err != nil {
		return err
	}
	return c.print(env, outcomes)
}

// byID finds the waiting requests with the ids. For an id without one it returns an outcome that says why.
func (c *flags) byID(ctx context.Context, conn *broker.Broker) (waiting []Waiting, outcomes []outcome, err error) {
	var entries []ledger.Entry
	for _, id := range slices.Compact(slices.Sorted(slices.Values(c.IDs))) {
		of, err := c.entries(ctx, conn, id)
		if err != nil {
			return nil, nil, err
		}
		open := slices.DeleteFunc(slices.Clone(of), func(e ledger.Entry) bool { return !e.Awaits() })
		switch {
		case len(of) == 0:
			outcomes = append(outcomes, outcome{ID: id, Result: unknown, Why: "no request of this id is known to a worker"})
		case len(open) == 0:
			outcomes = append(outcomes, outcome{ID: id, Whose: of[0].SignedBy, Run: of[0].Run, Result: refused, Why: "it does not await approval: it is " + cmp.Or(of[0].Outcome, string(of[0].State))})
		case len(open) > 1:
			outcomes = append(outcomes, outcome{ID: id, Result: refused, Why: "several have a request of this id; say whose with --signed-by"})
		default:
			entries = append(entries, open[0])
		}
	}
	waiting, err = withMessages(ctx, conn, entries)
	return waiting, outcomes, err
}

// entries returns the entries of an id, of every owner unless --signed-by names one.
func (c *flags) entries(ctx context.Context, conn *broker.Broker, id string) (all []ledger.Entry, err error) {
	records, err := ledger.LoadOwners(ctx, conn.NewLedger(), ledger.IDKey(conn.Names().Stream, message.Request{ID: id}, time.Time{}))
	if broker.IsMissing(err) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	for _, rec := range records {
		e, err := ledger.DecodeEntry(rec)
		if err != nil {
			return nil, err
		}
		if e.State != "" && (c.SignedBy == "" || e.SignedBy == c.SignedBy) {
			all = append(all, e)
		}
	}
	return all, nil
}

// await waits until a worker has recorded each order, or Within has passed.
func await(ctx context.Context, issuer *orders.Issuer, verb string, outcomes []outcome) error {
	refs := map[string]bool{}
	for _, f := range outcomes {
		if f.ref != "" {
			refs[f.ref] = true
		}
	}
	for deadline := time.Now().Add(orders.Within(len(refs))); len(refs) > 0; {
		recorded := issuer.Recorded(ctx, refs)
		for i, f := range outcomes {
			r, is := recorded[f.ref]
			switch {
			case !is:
				continue
			case r.Error != nil:
				outcomes[i].Result, outcomes[i].Why = refused, r.Error.Message
			case verb == message.VerbApprove:
				outcomes[i].Result = approved
			default:
				outcomes[i].Result = denied
			}
			delete(refs, f.ref)
		}
		if len(refs) == 0 || time.Now().After(deadline) {
			break
		}
		if !service.Pause(ctx, 500*time.Millisecond) {
			return context.Cause(ctx)
		}
	}
	for i, f := range outcomes {
		if refs[f.ref] {
			outcomes[i].Why = "no worker has confirmed it yet"
		}
	}
	return nil
}

func (c *flags) print(env *session.Env, outcomes []outcome) (err error) {
	failed := false
	for _, f := range outcomes {
		failed = failed || f.Result == refused || f.Result == unknown
		if c.JSON {
			err = session.WriteJSONLine(env.Stdout, f)
		} else {
			text := session.Plain(f.ID)
			if f.Whose != "" {
				text += " of " + session.Plain(f.Whose)
			}
			text += "  " + f.Result
			if f.Why != "" {
				text += ": " + session.Plain(f.Why)
			}
			_, err = fmt.Fprintln(env.Stdout, text)
		}
		if err != nil {
			return err
		}
	}
	if failed {
		return session.ExitStatus(1)
	}
	return nil
}
