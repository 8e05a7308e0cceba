package orders

import (
	"cmp"
	"context"
	"fmt"
	"strings"
	"time"

	"example.com/unrestrict-worker/internal/broker"
	"example.com/unrestrict-worker/internal/cli/session"
	"example.com/unrestrict-worker/internal/ledger"
	"example.com/unrestrict-worker/internal/message"
	"example.com/unrestrict-worker/internal/service"
)

// Rows counts a batch's rows by their state.
type Rows struct {
	Waiting   int `json:"waiting"`   // not called yet
	Unclear   int `json:"unclear"`   // their calls may be under way
	Accepted  int `json:"accepted"`  // their actions are followed
	Asked     int `json:"asked"`     // of these: the API was asked to cancel them
	Cancelled int `json:"cancelled"` // before their call
	Ended     int `json:"ended"`     // otherwise
}

// All is how many rows there are.
func (r Rows) All() int { return r.Waiting + r.Unclear + r.Accepted + r.Cancelled + r.Ended }

// CountRows counts the rows of a batch in the queue and in the ledger, of one signer or client if whose is not "". The queue is
// read first: the ledger has what a worker takes out of it meanwhile.
func CountRows(ctx context.Context, conn *broker.Broker, batch, whose string) (r Rows, err error) {
	queued, err := service.ReadQueue(ctx, conn, "", func(q service.Queued) bool { return q.Req.Batch == batch })
	if err != nil {
		return r, err
	}
	entries, taken := map[string]ledger.Entry{}, map[string]bool{} // an entry that is written during the search is read twice
	err = conn.NewLedger().Search(ctx, func(e ledger.Entry) {
		owner := cmp.Or(e.SignedBy, e.Client)
		if e.Batch == batch && (whose == "" || owner == whose) {
			entries[e.ID+"\x00"+owner] = e
			taken[e.Source] = true
		}
	})
	if err != nil && !broker.IsMissing(err) {
		return r, err
	}
	for _, e := range entries {
		r.add(&e)
	}
	stream := conn.Names().Stream
	for _, q := range queued {
		if !taken[fmt.Sprintf("%s:%d", stream, q.Sequence)] {
			r.Waiting++
		}
	}
	return r, nil
}

func (r *Rows) add(e *ledger.Entry) {
	switch {
	case e.State == ledger.StateWaiting:
		r.Waiting++
	case e.State == ledger.StateSubmitted:
		r.Accepted++
		if e.Cancel != nil && e.Cancel.Asked > 0 {
			r.Asked++
		}
	case e.State != ledger.StateFinal:
		r.Unclear++
	case e.Outcome == message.Cancelled && e.ActionID == "":
		r.Cancelled++
	default:
		r.Ended++
	}
}

// open counts the rows that an order may still change.
func (c *CancelCmd) open(r Rows) int {
	n := r.Waiting + r.Unclear
	if c.Actions {
		n += r.Accepted - r.Asked
	}
	return n
}

func (c *CancelCmd) batch(ctx context.Context, env *session.Env, issuer *Issuer) error {
	before, err := CountRows(ctx, issuer.conn, c.Batch, c.SignedBy)
	if err != nil {
		return err
	}
	if c.Actions && before.Accepted > 0 && !c.JSON {
		fmt.Fprintf(env.Stderr, "Asking the API to cancel %s takes as many calls.\n", session.Count(before.Accepted, "action", "actions"))
	}
	ref, err := issuer.Issue(ctx, message.Order{Verb: message.VerbCancel, Batch: c.Batch, Signer: c.SignedBy, Actions: c.Actions})
	if err != nil {
		return err
	}
	rows := before
	for deadline := time.Now().Add(Within(c.open(before))); c.open(rows) > 0 && time.Now().Before(deadline); {
		if !service.Pause(ctx, time.Second) {
			return context.Cause(ctx)
		}
		if r, is := issuer.Recorded(ctx, map[string]bool{ref: true})[ref]; is && r.Error != nil {
			return fmt.Errorf("refused: %s", session.Plain(r.Error.Message))
		}
		if rows, err = CountRows(ctx, issuer.conn, c.Batch, c.SignedBy); err != nil {
			return err
		}
	}
	if c.JSON {
		err = session.WriteJSONLine(env.Stdout, rows)
	} else {
		err = c.printBatch(env, before, rows)
	}
	if err == nil && c.open(before) == 0 {
		return session.ExitStatus(1)
	}
	return err
}

func (c *CancelCmd) printBatch(env *session.Env, before, rows Rows) error {
	name := session.Plain(c.Batch)
	if before.All() == 0 {
		_, err := fmt.Fprintf(env.Stdout, "No row of the batch %s is known. The order is kept: rows that come later end cancelled.\n", name)
		return err
	}
	parts := []string{fmt.Sprintf("%d of %s of the batch %s were cancelled before their call", rows.Cancelled, session.Count(rows.All(), "row", "rows"), name)}
	for _, more := range []struct {
		n    int
		what string
	}{
		{rows.Waiting, "are still to end"},
		{rows.Unclear, "may be under way, which is found out first"},
		{rows.Asked, "were accepted, and the API was asked to cancel their actions"},
		{rows.Accepted - rows.Asked, "were accepted"},
		{rows.Ended, "had ended"},
	} {
		if more.n > 0 {
			parts = append(parts, fmt.Sprintf("%d %s", more.n, more.what))
		}
	}
	_, err := fmt.Fprintln(env.Stdout, strings.Join(parts, "; ")+". Rows that come later end cancelled: the rest needs a new batch name.")
	return err
}
