package orders

import (
	"context"
	"fmt"
	"slices"
	"time"

	"example.com/unrestrict-worker/internal/cli/session"
	"example.com/unrestrict-worker/internal/config"
	"example.com/unrestrict-worker/internal/message"
)

// CancelCmd is `worker cancel`.
type CancelCmd struct {
	IDs      []string `arg:"" optional:"" name:"id" help:"Request ids."`
	Batch    string   `placeholder:"NAME" help:"All rows of this batch, those that come later too."`
	Actions  bool     `help:"Also ask the API to cancel actions that are under way, a call each; how they end the API alone says."`
	SignedBy string   `placeholder:"NAME" help:"The requests of this signer or client, where several have that id."`
	By
	JSON bool `name:"json" help:"One JSON object a line."`
}

// Validate is called by kong.
func (c *CancelCmd) Validate() error {
	if (len(c.IDs) == 0) == (c.Batch == "") {
		return config.BadInput("say what is taken back: request ids, or --batch NAME")
	}
	return nil
}

// What became of an order about one request.
const (
	cancelled = "cancelled" // before its call
	asked     = "asked"     // the API was asked to cancel the action
	ordered   = "ordered"   // the order is published, and the request has not ended yet
	tooLate   = "tooLate"
	refused   = "refused"
	unknown   = "unknown"
)

// outcome is what became of an order about one request.
type outcome struct {
	ID     string `json:"requestId"`
	Whose  string `json:"signedBy,omitempty"` // or the client's
	Result string `json:"result"`
	Why    string `json:"message,omitempty"`
}

func (f outcome) failed() bool {
	return f.Result == tooLate || f.Result == refused || f.Result == unknown
}

// Run gives the orders, and prints what became of each.
func (c *CancelCmd) Run(ctx context.Context, env *session.Env) error {
	conn, err := session.DialForCommand(ctx, env)
	if err != nil {
		return err
	}
	defer session.CloseAfterCommand(conn)
	issuer, err := NewIssuer(conn, c.By)
	if err != nil {
		return err
	}
	if c.Batch != "" {
		return c.batch(ctx, env, issuer)
	}
	w := &watch{conn: conn, signedBy: c.SignedBy, actions: c.Actions}
	ids := slices.Compact(slices.Sorted(slices.Values(c.IDs)))
	if err := w.begin(ctx, ids); err != nil {
		return err
	}
	refs := map[string]string{} // of the orders, by id
	for _, id := range ids {
		o := message.Order{Verb: message.VerbCancel, ID: id, Actions: c.Actions}
		if o.Signer = c.SignedBy; w.isClient(id, c.SignedBy) {
			o.Signer, o.Client = "", c.SignedBy
		}
		if refs[id], err = issuer.Issue(ctx, o); err != nil {
			return err
		}
	}
	outcomes, err := w.await(ctx, issuer, refs)
	if err != nil {
		return err
	}
	failed := false
	for _, f := range outcomes {
		failed = failed || f.failed()
		if err := c.print(env, f); err != nil {
			return err
		}
	}
	if failed {
		return session.ExitStatus(1)
	}
	return nil
}

func (c *CancelCmd) print(env *session.Env, f outcome) error {
	if c.JSON {
		return session.WriteJSONLine(env.Stdout, f)
	}
	id := session.Plain(f.ID)
	if f.Whose != "" {
		id += " of " + session.Plain(f.Whose)
	}
	what := map[string]string{cancelled: "cancelled", asked: "asked", ordered: "ordered", tooLate: "too late", refused: "refused", unknown: "unknown"}[f.Result]
	if f.Why != "" {
		what += ": " + session.Plain(f.Why)
	}
	_, err := fmt.Fprintf(env.Stdout, "%s  %s\n", id, what)
	return err
}

// Within is how long to wait for the results of n orders: a worker ends 80 runs a second at least.
func Within(n int) time.Duration {
	return min(12*time.Second+time.Duration(n)*time.Second/80, 70*time.Second)
}
