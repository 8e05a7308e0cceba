package session

import (
	"cmp"
	"context"
	"fmt"
	"os"
	"os/user"
	"strings"
	"time"

	"example.com/unrestrict-worker/internal/broker"
	"example.com/unrestrict-worker/internal/ledger"
	"example.com/unrestrict-worker/internal/service"
)

// Operator records in the audit trail what a person does by command. Each command is a writer of its own there, with its
// own chain.
type Operator struct {
	auditor *broker.Auditor
	by      string
	claimed bool // by is the user of this machine, which the broker has not verified
	reason  string
}

// NewOperator returns the operator: the NATS user of the connection or, if it has none, the user of this machine.
func NewOperator(conn *broker.Broker, reason string) *Operator {
	o := &Operator{auditor: conn.NewAuditor(service.RandomID()), by: conn.User(), reason: strings.TrimSpace(reason)}
	if o.by == "" {
		o.by, o.claimed = localUser(), true
	}
	return o
}

// Who returns who acts, in words.
func (o *Operator) Who() string {
	return ByWhom(ledger.AuditRecord{By: o.by, ByClaimed: o.claimed})
}

// ByWhom returns who acted according to a record, in words.
func ByWhom(r ledger.AuditRecord) string {
	if r.ByClaimed {
		return r.By + " (as that machine says)"
	}
	return r.By
}

// localUser is USER@HOST.
func localUser() string {
	name := ""
	if u, err := user.Current(); err == nil {
		name = u.Username
	}
	host, _ := os.Hostname()
	return cmp.Or(name, "unknown") + "@" + cmp.Or(host, "unknown")
}

// Record records an act before it is done; r has its details. A crash between the two leaves the record of an act that was
// not done.
func (o *Operator) Record(ctx context.Context, act string, r ledger.AuditRecord) error {
	ctx, cancel := context.WithTimeout(ctx, recordWithin)
	defer cancel()
	r.Kind, r.Act, r.By, r.ByClaimed, r.Reason, r.DecidedAt = ledger.AuditOperated, act, o.by, o.claimed, o.reason, time.Now().UTC()
	err := o.auditor.Record(ctx, r)
	switch {
	case broker.IsMissing(err):
		return fmt.Errorf("%w: start `worker run`, which creates it", err)
	case err != nil:
		return fmt.Errorf("%w: see whether the NATS user may publish on %s", err, broker.AuditSubject)
	}
	return nil
}

// recordWithin bounds the wait for the audit trail: a broker that denies the publish sends no answer.
const recordWithin = 10 * time.Second
