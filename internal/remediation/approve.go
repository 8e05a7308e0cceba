package remediation

import (
	"slices"
	"time"

	"example.com/unrestrict-worker/internal/ledger"
	"example.com/unrestrict-worker/internal/message"
)

// approval is the approval required before the call, and the verdicts so far.
type approval struct {
	requirement
	until  time.Time        // the request's expiresAt; zero: none
	given  []ledger.Verdict // sufficient approvals; nil: not enough yet
	denied *ledger.Verdict
}

// stops reports whether missing approvals or a denial forbid the call.
func (a approval) stops() bool { return a.need != nil && (a.given == nil || a.denied != nil) }

// halts reports whether the call must not be made because of orders or approvals, or because the orders are out of sync.
func (f facts) halts() bool {
	return f.ordered != (ordered{}) || f.ordersStale || f.approval.stops()
}

// expired reports whether a run awaited approval and did not get it in time.
func (a approval) expired(asked *ledger.Approval, now time.Time) bool {
	return a.need != nil && a.given == nil && asked != nil && !now.Before(asked.ExpiresAt)
}

// approval gathers the approval that a run needs before its call, and the verdicts so far. It applies only to a run that is
// not called yet.
func (p *attempt) approval(e *ledger.Entry) (a approval) {
	if p.Policy == nil || e.State == ledger.StateSubmitted || e.State == ledger.StateFinal {
		return a
	}
	name, key := p.signer()
	_, rule := p.Policy.Rule(name, key)
	if rule == nil || rule.Approvals == nil {
		return a
	}
	a.requirement = requirement{
		need: rule.Approvals, digest: message.SignedDigest(p.origin.Subject, p.origin.Data), since: e.ReceivedAt,
		own: []string{name, key, p.Rules.Signers.NameOf(key), p.req.SignedBy}, requestedBy: []string{e.RequestedBy, p.req.RequestedBy}, shared: othersHave(p.owners, p.key, e.Fingerprint),
	}
	a.until = p.req.ExpiresAt
	kept := e.Approval
	if kept != nil && kept.Digest == a.digest && len(kept.Given) > 0 {
		a.given = a.stillGiven(kept.Given, p.Rules.Signers)
	}
	end := a.end(kept, time.Now())
	given, denied := a.tally(p.Orders.verdicts(targetOf(e)), end)
	if a.denied = denied; a.given == nil {
		a.given = given
	}
	return a
}

// stillGiven returns the approvals stored in the entry, if they suffice without those whose key or name was withdrawn since.
func (a requirement) stillGiven(kept []ledger.Verdict, signers *message.Signers) (given []ledger.Verdict) {
	for _, v := range kept {
		if signers.NameOf(v.Signer) == v.By && slices.Contains(a.need.By, v.By) && !slices.Contains(a.own, v.By) {
			given = append(given, v)
		}
	}
	if len(given) < a.need.Required {
		return nil
	}
	return given
}

// end is when approvals stop counting: as stored when approval was requested, or as it would be if requested now.
func (a approval) end(kept *ledger.Approval, now time.Time) time.Time {
	if kept != nil {
		return kept.ExpiresAt
	}
	end := now.Add(a.need.Within)
	if !a.until.IsZero() && a.until.Before(end) {
		end = a.until
	}
	return end
}
