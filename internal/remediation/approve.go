package remediation

import (
	"slices"
	"time"

	"example.com/unrestrict-worker/internal/ledger"
	"example.com/unrestrict-worker/internal/message"
)

// approval is what is asked before the call, and how far it has come.
type approval struct {
	asking
	until  time.Time        // the request's own end; zero: none
	given  []ledger.Verdict // enough; nil: there are not
	denied *ledger.Verdict
}

// stops reports whether the run may not be called for.
func (a approval) stops() bool { return a.need != nil && (a.given == nil || a.denied != nil) }

// halts reports whether people, or that it is not known what they say, keep the run from being called for.
func (f facts) halts() bool {
	return f.ordered != (ordered{}) || f.unheard || f.approval.stops()
}

// over reports whether a run awaits approval that did not come in time.
func (a approval) over(asked *ledger.Approval, now time.Time) bool {
	return a.need != nil && a.given == nil && asked != nil && !now.Before(asked.ExpiresAt)
}

// approval gathers what is asked of people before the call of a run that is not called yet, and what they said.
func (p *attempt) approval(e *ledger.Entry) (a approval) {
	if p.Policy == nil || e.State == ledger.StateSubmitted || e.State == ledger.StateFinal {
		return a
	}
	name, key := p.signer()
	_, rule := p.Policy.Rule(name, key)
	if rule == nil || rule.Approvals == nil {
		return a
	}
	a.asking = asking{
		need: rule.Approvals, digest: message.SignedDigest(p.origin.Subject, p.origin.Data), since: e.ReceivedAt,
		own: []string{name, key, p.Rules.Signers.NameOf(key), p.req.SignedBy}, requestedBy: []string{e.RequestedBy, p.req.RequestedBy}, shared: othersHave(p.owners, p.key, e.Print),
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

// stillGiven are the approvals that the entry has, if they are enough without those whose key or name was withdrawn since.
func (a asking) stillGiven(kept []ledger.Verdict, signers *message.Signers) (given []ledger.Verdict) {
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

// end is until when approvals count: as it was asked for, or would be now.
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
