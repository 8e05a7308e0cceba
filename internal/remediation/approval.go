package remediation

import (
	"cmp"
	"slices"
	"strings"
	"time"

	"example.com/unrestrict-worker/internal/ledger"
	"example.com/unrestrict-worker/internal/message"
	"example.com/unrestrict-worker/internal/policy"
)

// Codes of an approve or a deny that does not count, besides policy, expired and repeated.
const (
	CodeOtherDigest = "otherDigest" // its digest is that of another message
	CodeOwnRequest  = "ownRequest"  // its signer requests the release himself
	CodeWhoseIsOpen = "whoseIsOpen" // several owners have that request, and it names none of them
	CodeTooLate     = "tooLate"     // the run's call was made, or the run has ended
)

func isVerdict(o *message.Order) bool {
	return o.Verb == message.VerbApprove || o.Verb == message.VerbDeny
}

// verdicts are the approvals and denials of a run, in the order in which they were stored, under the names that their keys
// have now. requirement.refuses decides whether they count.
func (o *Orders) verdicts(t target) (all []message.Order) {
	if o == nil {
		return nil
	}
	o.mu.Lock()
	orders := slices.Clone(o.ids[t.id])
	o.mu.Unlock()
	for _, order := range orders {
		whose, may := o.means(&order)
		if isVerdict(&order) && may && whose.has(t) && cmp.Or(order.Run, 1) == t.run && time.Since(order.Stored) <= OrderLifetime {
			order.By = o.Rules.Signers.NameOf(order.Key)
			all = append(all, order)
		}
	}
	slices.SortFunc(all, func(a, b message.Order) int { return cmp.Or(a.Stored.Compare(b.Stored), cmp.Compare(a.Ref, b.Ref)) })
	return all
}

// requirement is the approval that a run needs before its call. The zero value requires nothing.
type requirement struct {
	need   *policy.Approvals
	digest string    // of the delivered message
	since  time.Time // when the run was first delivered

	own         []string // names and key of its signer
	requestedBy []string
	shared      bool // another signer has an identical request under the same id
}

// refuses returns why an approve or a deny does not count; nil: it counts. The requester may deny his own request.
func (a requirement) refuses(o *message.Order) *message.Invalid {
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

// tally finds the first deny that counts, and the first set of approvals that is sufficient. The result depends only on the
// stored orders: a later or repeated look finds the same.
func (a requirement) tally(orders []message.Order, until time.Time) (given []ledger.Verdict, denied *ledger.Verdict) {
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
