package trail

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"example.com/unrestrict-worker/internal/ledger"
	"example.com/unrestrict-worker/internal/message"
)

// unproved is what a record claims that people signed and that its own signatures do not prove; "" if all is proved. It needs
// only the public keys, which are in the record, and trusts no worker. Signers says whose keys they are.
func (c *Chain) unproved(r ledger.AuditRecord) string {
	if r.Kind == ledger.AuditOrdered && r.Signature != "" && !r.Shortened && !message.Signed(r.Signer, r.Signature, r.Subject, []byte(r.Order)) {
		return "has an order that its signer has not signed"
	}
	a := r.Approval
	if a == nil {
		return ""
	}
	names := map[string]bool{}
	for _, v := range a.Given {
		if names[v.By] {
			return "counts " + v.By + "'s approval twice"
		}
		names[v.By] = true
		if why := c.unprovedVerdict(r, v, message.VerbApprove); why != "" {
			return why
		}
	}
	if a.Denied != nil {
		if why := c.unprovedVerdict(r, *a.Denied, message.VerbDeny); why != "" {
			return why
		}
	}
	if (r.Attempts > 0 || r.ActionID != "") && len(a.Given) < a.Required {
		return fmt.Sprintf("is of a run that was called with %d approvals of %d", len(a.Given), a.Required)
	}
	return ""
}

func (c *Chain) unprovedVerdict(r ledger.AuditRecord, v ledger.Verdict, verb string) string {
	approves := verb == message.VerbApprove
	switch {
	case !slices.Contains(r.Approval.By, v.By):
		return "counts " + v.By + ", who may not approve it"
	case approves && (v.By == r.SignedBy || v.Signer == r.Signer):
		return "counts " + v.By + ", who signed the request himself"
	case approves && strings.EqualFold(v.By, r.RequestedBy):
		return "counts " + v.By + ", whom requestedBy names"
	case c.Signers != nil && c.Signers.NameOf(v.Signer) != v.By:
		return "counts " + v.By + " by a key that is not his"
	case r.Shortened: // what was signed is in the order's own record
		return ""
	case !message.Signed(v.Signer, v.Signature, v.Subject, []byte(v.Order)):
		return "counts " + v.By + ", who has not signed it"
	}
	o, invalid := message.Rules{}.ParseOrder(message.Delivery{Subject: v.Subject, Data: []byte(v.Order), Published: v.At})
	switch {
	case invalid != nil || o.Verb != verb || o.ID != r.RequestID || cmp.Or(o.Run, 1) != r.Run || o.Digest != r.Approval.Digest && (approves || o.Digest != ""):
		return "counts " + v.By + " for what he signed of something else"
	case o.Signer != "" && o.Signer != r.SignedBy || o.Client != "" && o.Client != r.Client:
		return "counts " + v.By + " for a signature about somebody else's request"
	case !o.ExpiresAt.IsZero() && !r.ReceivedAt.Before(o.ExpiresAt):
		return "counts " + v.By + " for what had expired when the run was taken"
	}
	return ""
}
