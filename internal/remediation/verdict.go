package remediation

import (
	"cmp"
	"context"
	"slices"
	"time"

	"example.com/unrestrict-worker/internal/ledger"
	"example.com/unrestrict-worker/internal/message"
)

// verdictFault returns why an approve or a deny, whose signer may give it, counts for no existing run; nil: it counts, or
// its run has not begun yet.
func (s *Submitter) verdictFault(ctx context.Context, q Queue, o *message.Order) (why *message.Invalid, err error) {
	records, err := ledger.LoadOwners(ctx, s.Ledger, ledger.IDKey(s.Rules.Stream, message.Request{ID: o.ID}, time.Time{}))
	if err != nil {
		return nil, err
	}
	for key, rec := range records {
		e, err := ledger.DecodeEntry(rec)
		if err != nil || e.State == "" || e.Run != cmp.Or(o.Run, 1) || o.Signer != "" && o.Signer != e.SignedBy {
			continue
		}
		shared := othersHave(records, key, e.Fingerprint)
		if why = s.verdictFaultFor(&e, o, shared, nil); why != nil && why.Code == CodeOtherDigest {
			other, err := s.copyOf(ctx, q, &e, o.Digest)
			if err != nil {
				return nil, err
			}
			why = s.verdictFaultFor(&e, o, shared, other)
		}
		if why == nil {
			return nil, nil
		}
	}
	return why, nil
}

// copyOf finds another message of a run's request by its digest, such as one on a lane that the request was moved to. That
// message waits too, and its call needs an approval of its own digest. nil: there is none.
func (s *Submitter) copyOf(ctx context.Context, q Queue, e *ledger.Entry, digest string) (found *message.Request, err error) {
	_, err = q.Waiting(ctx, 0, func(d message.Delivery) error {
		if found != nil || message.SignedDigest(d.Subject, d.Data) != digest {
			return ctx.Err()
		}
		req, invalid := s.Rules.Parse(d) //nolint:contextcheck // the trace is in the delivery
		if invalid == nil && req.ID == e.ID && req.SignedBy == e.SignedBy && ledger.NewEntry(req, d, d.Published, d.Published).Fingerprint == e.Fingerprint {
			found = &req
		}
		return ctx.Err()
	})
	return found, err
}

// verdictFaultFor returns why an approve or a deny does not count for a run, as far as its entry shows, or for another
// message of its request.
func (s *Submitter) verdictFaultFor(e *ledger.Entry, o *message.Order, shared bool, other *message.Request) *message.Invalid {
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
		return &message.Invalid{Code: message.CodePolicy, Message: "the policy requires no approval for this request", ClaimedID: o.ID}
	case kept != nil && !o.Stored.Before(kept.ExpiresAt):
		return late("awaited approval until " + kept.ExpiresAt.UTC().Format(time.RFC3339))
	}
	a := requirement{
		need: rule.Approvals, digest: o.Digest, since: e.ReceivedAt, shared: shared,
		own: []string{e.SignedBy, e.Signer, s.Rules.Signers.NameOf(e.Signer)}, requestedBy: []string{e.RequestedBy},
	}
	switch {
	case other != nil:
		a.own, a.requestedBy = append(a.own, other.SignedBy), append(a.requestedBy, other.RequestedBy)
	case kept != nil:
		a.digest = kept.Digest
	}
	named := *o
	named.By = s.Rules.Signers.NameOf(o.Key)
	return a.refuses(&named)
}
