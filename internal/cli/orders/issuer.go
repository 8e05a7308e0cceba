// Package orders is `worker cancel`, and how the commands give orders.
package orders

import (
	"context"
	"encoding/json"
	"strings"
	"time"

	"example.com/unrestrict-worker/internal/broker"
	"example.com/unrestrict-worker/internal/broker/trail"
	"example.com/unrestrict-worker/internal/cli/session"
	"example.com/unrestrict-worker/internal/config"
	"example.com/unrestrict-worker/internal/ledger"
	"example.com/unrestrict-worker/internal/message"
)

// By are the flags for who gives an order, and why.
type By struct {
	Reason   string `placeholder:"TEXT" help:"Why; recorded in results and in the audit trail."`
	SignWith string `placeholder:"FILE" help:"Sign with the nkey seed in this file; needed where the worker has trusted signers."`
}

// Issuer gives orders.
type Issuer struct {
	conn     *broker.Broker
	by       By
	seed     []byte            // nil: unsigned
	operator *session.Operator // of unsigned ones
	began    time.Time
}

// NewIssuer gives orders over a connection. A mistake about the seed is bad input.
func NewIssuer(conn *broker.Broker, by By) (*Issuer, error) {
	g := &Issuer{conn: conn, by: by, began: time.Now()}
	if by.SignWith == "" {
		g.operator = session.NewOperator(conn, by.Reason)
		return g, nil
	}
	var err error
	if g.seed, err = config.ReadSmall(by.SignWith); err != nil {
		return nil, config.BadInput("--sign-with %s: %w", by.SignWith, err)
	}
	if _, _, err := message.Sign(g.seed, conn.Names().ControlSubject, nil); err != nil {
		return nil, config.BadInput("--sign-with %s: %w", by.SignWith, err)
	}
	return g, nil
}

// Issue publishes an order, and returns its reference. An unsigned one is first recorded in the audit trail with the operator, like
// an operator's other acts. A signed one names its signer itself.
func (g *Issuer) Issue(ctx context.Context, o message.Order) (ref string, err error) {
	o.Reason, o.IssuedAt = strings.TrimSpace(g.by.Reason), time.Now().UTC()
	payload, err := o.Encode()
	if err != nil {
		return "", err
	}
	if _, invalid := (message.Rules{}).ParseOrder(message.Delivery{Data: payload, Published: time.Now()}); invalid != nil {
		return "", config.BadInput("%s", invalid.Message)
	}
	h := message.Header{}
	if g.seed != nil {
		signer, signature, err := message.Sign(g.seed, g.conn.Names().ControlSubject, payload)
		if err != nil {
			return "", err
		}
		h[message.HeaderSigner], h[message.HeaderSignature] = []string{signer}, []string{signature}
	} else if err := g.operator.Record(ctx, o.Verb, ledger.AuditRecord{RequestID: o.ID, Batch: o.Batch, Run: o.Run}); err != nil {
		return "", err
	}
	return g.conn.PublishOrder(ctx, h, payload)
}

// Recorded returns the workers' audit records of orders, by reference; nil if the trail can't be opened. The record of an order
// that changes nothing has an error.
func (g *Issuer) Recorded(ctx context.Context, refs map[string]bool) map[string]ledger.AuditRecord {
	stream, err := g.conn.OpenAuditTrail(ctx)
	if err != nil {
		return nil // optional, because it needs more permissions than ordering does
	}
	recorded := map[string]ledger.AuditRecord{}
	_ = stream.Each(ctx, g.began.Add(-time.Minute), func(m trail.Message) error {
		var r ledger.AuditRecord
		if json.Unmarshal(m.Data, &r) == nil && r.Kind == ledger.AuditOrdered && refs[r.Message] {
			recorded[r.Message] = r
		}
		return nil
	})
	return recorded
}
