package remediation

import (
	"cmp"
	"context"
	"maps"
	"slices"
	"strings"
	"time"

	"example.com/unrestrict-worker/internal/ledger"
	"example.com/unrestrict-worker/internal/message"
	"example.com/unrestrict-worker/internal/policy"
)

// Codes of an approve or a deny that does not count, besides policy, expired and repeated.
const (
	CodeOtherDigest = "otherDigest" // it is for another message
	CodeOwnRequest  = "ownRequest"  // its signer asks for the release himself
	CodeWhoseIsOpen = "whoseIsOpen" // several have that request, and it does not say whose is meant
	CodeTooLate     = "tooLate"     // the run was called, or has ended
)

func isVerdict(o *message.Order) bool {
	return o.Verb == message.VerbApprove || o.Verb == message.VerbDeny
}

// verdicts are the approvals and denials of a run, in the order in which they were stored, under the names that their keys have
// now. Whether they count for what the run asks, asking says.
func (o *Orders) verdicts(t target) (all []message.Order) {
	if o == nil {
		return nil
	}
	o.mu.Lock()
	orders := slices.Collect(maps.Values(o.ids[t.id]))
	o.mu.Unlock()
	for _, order := range orders {
		whose, may := o.means(&order)
		if isVerdict(&order) && may && whose.has(t) && cmp.Or(order.Run, 1) == t.run && time.Since(order.Stored) <= OrdersFor {
			order.By = o.Rules.Signers.NameOf(order.Key)
			all = append(all, order)
		}
	}
	slices.SortFunc(all, func(a, b message.Order) int { return cmp.Or(a.Stored.Compare(b.Stored), cmp.Compare(a.Ref, b.Ref)) })
	return all
}

// asking is what a run asks of people before its call. The zero value asks nothing.
type asking struct {
	need   *policy.Approvals
	digest string    // of the message in hand
	since  time.Time // the run was taken

	own         []string // names and key of who signed it
	requestedBy []string
	shared      bool // another signer has this very request under the same id
}

// refuses is why an approve or a deny does not count for what is asked; nil: it does. Who asks for a release may deny it.
func (a asking) refuses(o *message.Order) *message.Invalid {
	no := func(code, why string) *message.Invalid {
		return &message.Invalid{Code: code, Message: why, ClaimedID: o.ID}
	}
	approves := o.Verb == message.VerbApprove
	isBy := func(name string) bool { return strings.EqualFold(name, o.By) }
	switch {
	case !slices.Contains(a.need.By, o.By):
		return no(message.CodePolicy, "signedBy: the policy does not name "+o.By+" among those who approve this request; they are "+strings.Join(a.need.By, ", "))
	case o.Digest != a.digest && (approves || o.Digest != ""):
		return no(CodeOtherDigest, "digest: is that of another message; the request's is "+a.digest)
	case approves && (slices.Contains(a.own, o.By) || slices.Contains(a.own, o.Key)):
		return no(CodeOwnRequest, "signedBy: "+o.By+" signed the request, and can't approve it too")
	case approves && slices.ContainsFunc(a.requestedBy, isBy):
		return no(CodeOwnRequest, "signedBy: "+o.By+" is whom requestedBy names, and can't approve it too")
	case approves && a.shared && o.Signer == "":
		return no(CodeWhoseIsOpen, "signedBy: others have this request under the same id; name whose is meant")
	case !o.ExpiresAt.IsZero() && !a.since.Before(o.ExpiresAt):
		return no(message.CodeExpired, "expiresAt: it had expired when the request was taken")
	}
	return nil
}

// tally finds the first deny that counts, and the approvals that were the first to be enough together. Each moment at which
// one comes decides by itself: who looks later, or looks again, finds the same.
func (a asking) tally(orders []message.Order, until time.Time) (given []ledger.Verdict, denied *ledger.Verdict) {
	var valid []message.Order
	for _, o := range orders {
		if a.refuses(&o) != nil {
			continue
		}
		if o.Verb == message.VerbDeny {
			if denied == nil {
				v := verdictOf(&o)
				denied = &v
			}
			continue
		}
		if valid = append(valid, o); given != nil || !o.Stored.Before(until) {
			continue
		}
		moment, names := o.Stored, map[string]bool{}
		if moment.Before(a.since) {
			moment = a.since
		}
		var together []ledger.Verdict
		for _, v := range valid {
			if !names[v.By] && (v.ExpiresAt.IsZero() || moment.Before(v.ExpiresAt)) {
				names[v.By] = true
				together = append(together, verdictOf(&v))
			}
		}
		if len(together) >= a.need.Required {
			given = together
		}
	}
	return given, denied
}

func verdictOf(o *message.Order) ledger.Verdict {
	return ledger.Verdict{By: o.By, Signer: o.Key, At: o.Stored.UTC(), Message: o.Ref, Reason: o.Reason, Subject: o.Subject, Order: o.Text, Signature: o.Signature}
}

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

// approval gathers what is asked of people before the call of a run that is not called yet, and what they said.
func (p *attempt) approval() (a approval) {
	if p.Policy == nil || p.e.State == ledger.StateSubmitted || p.e.State == ledger.StateFinal {
		return a
	}
	name, key := p.signer()
	_, rule := p.Policy.Rule(name, key)
	if rule == nil || rule.Approvals == nil {
		return a
	}
	a.asking = asking{
		need: rule.Approvals, digest: message.SignedDigest(p.origin.Subject, p.origin.Data), since: p.e.ReceivedAt,
		own: []string{name, key, p.Rules.Signers.NameOf(key), p.req.SignedBy}, requestedBy: []string{p.e.RequestedBy, p.req.RequestedBy}, shared: othersHave(p.owners, p.key, p.e.Print),
	}
	a.until = p.req.ExpiresAt
	kept := p.e.Approval
	if kept != nil && kept.Digest == a.digest && len(kept.Given) > 0 {
		a.given = a.stillGiven(kept.Given, p.Rules.Signers)
	}
	end := a.end(kept, time.Now())
	given, denied := a.tally(p.Orders.verdicts(targetOf(&p.e)), end)
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

// discounts is why an approve or a deny, whose signer may give it, counts for no run that there is; nil: it counts, or the run
// is still to come.
func (s *Submitter) discounts(ctx context.Context, o *message.Order) (why *message.Invalid, err error) {
	records, err := ledger.LoadOwners(ctx, s.Ledger, ledger.IDKey(s.Rules.Stream, message.Request{ID: o.ID}, time.Time{}))
	if err != nil {
		return nil, err
	}
	for key, rec := range records {
		e, err := ledger.DecodeEntry(rec)
		if err != nil || e.State == "" || e.Run != cmp.Or(o.Run, 1) || o.Signer != "" && o.Signer != e.SignedBy {
			continue
		}
		if why = s.weigh(&e, o, othersHave(records, key, e.Print)); why == nil {
			return nil, nil
		}
	}
	return why, nil
}

// weigh is why an approve or a deny does not count for a run, as far as its entry tells.
func (s *Submitter) weigh(e *ledger.Entry, o *message.Order, shared bool) *message.Invalid {
	counted := func(v ledger.Verdict) bool { return v.Message == o.Ref }
	kept := e.Approval
	if kept != nil && (slices.ContainsFunc(kept.Given, counted) || kept.Denied != nil && counted(*kept.Denied)) {
		return nil
	}
	late := func(what string) *message.Invalid {
		return &message.Invalid{Code: CodeTooLate, Message: "run: it comes too late: the run " + what, ClaimedID: o.ID}
	}
	_, rule := s.Policy.Rule(e.SignedBy, e.Signer)
	switch {
	case e.State == ledger.StateFinal:
		return late("has ended: " + e.Outcome)
	case e.State != ledger.StateWaiting:
		return late("was called")
	case rule == nil || rule.Approvals == nil:
		return &message.Invalid{Code: message.CodePolicy, Message: "the policy asks nobody's approval for this request", ClaimedID: o.ID}
	case kept != nil && !o.Stored.Before(kept.ExpiresAt):
		return late("awaited approval until " + kept.ExpiresAt.UTC().Format(time.RFC3339))
	}
	a := asking{
		need: rule.Approvals, digest: o.Digest, since: e.ReceivedAt, shared: shared,
		own: []string{e.SignedBy, e.Signer, s.Rules.Signers.NameOf(e.Signer)}, requestedBy: []string{e.RequestedBy},
	}
	if kept != nil {
		a.digest = kept.Digest
	}
	named := *o
	named.By = s.Rules.Signers.NameOf(o.Key)
	return a.refuses(&named)
}
