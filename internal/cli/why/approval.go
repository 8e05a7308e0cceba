package why

import (
	"fmt"
	"strings"

	"example.com/unrestrict-worker/internal/admin"
	"example.com/unrestrict-worker/internal/ledger"
)

// approvals adds the approvals and the denial of the run that counted.
func approvals(e *ledger.Entry, add adder) {
	a := e.Approval
	if a == nil {
		return
	}
	if a.Asked {
		add(a.Since, e.Run, "asked", "approval is asked for: %d of %s until %s", a.Required, strings.Join(a.By, ", "), admin.Clock(a.ExpiresAt))
	}
	for _, v := range a.Given {
		add(v.At, e.Run, "approved", "approved by %s", whoAndWhy(ledger.AuditRecord{By: v.By, Reason: v.Reason}))
	}
	if v := a.Denied; v != nil {
		add(v.At, e.Run, "denied", "denied by %s", whoAndWhy(ledger.AuditRecord{By: v.By, Reason: v.Reason}))
	}
}

// awaits describes the approval that a run awaits; "" if it awaits none.
func awaits(e *ledger.Entry) string {
	if !e.Awaits() {
		return ""
	}
	a := e.Approval
	return fmt.Sprintf("approval by %d of %s, until %s; `worker approvals` shows what is asked", a.Required, strings.Join(a.By, ", "), admin.Clock(a.ExpiresAt))
}
