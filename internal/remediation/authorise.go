package remediation

import (
	"time"

	"example.com/unrestrict-worker/internal/ledger"
	"example.com/unrestrict-worker/internal/message"
)

// forbidden returns why the policy forbids the run; "" if it does not. A run is judged once, before its first call, not for
// each attempt. One that needs approval, which may take days, is judged each time.
func (p *attempt) forbidden() string {
	if p.Policy == nil || p.e.Allowed && p.e.Approval == nil {
		return ""
	}
	_, rule := p.Policy.Rule(p.signer())
	asked := p.req
	asked.SignedBy, _ = p.signer()
	asked.Ticket = p.e.Ticket
	if why := rule.Forbids(asked); why != "" {
		return why
	}
	return rule.ForbidsLane(asked.SignedBy, p.lane())
}

// wrongLane returns why a message must not move a known request to the message's lane; "": it may, or it moves none. The
// request stays as it is, because another sender may have moved it.
func (p *attempt) wrongLane() string {
	if p.Policy == nil || p.e.State == "" || p.e.State == ledger.StateFinal || p.isSource(p.e) || p.replay.seq != 0 {
		return ""
	}
	name, key := p.signer()
	_, rule := p.Policy.Rule(name, key)
	return rule.ForbidsLane(name, p.lane())
}

// signer is the signer of the request: the name, and the nkey that verified it. If several messages carry the same request,
// it is the first one's signer, which results and records name too. An entry has no signer if none was required when it was
// opened.
func (p *attempt) signer() (name, key string) {
	if p.e.Signer == "" {
		return p.req.SignedBy, p.req.Signer
	}
	return p.e.SignedBy, p.e.Signer
}

// claimed is the request that a message with an invalid form or signature may have been accepted as, under earlier rules.
func (p *attempt) claimed(why *message.Invalid) message.Request {
	if why.ClaimedID == "" {
		return message.Request{ID: p.origin.Ref(), Derived: true}
	}
	return message.Request{ID: why.ClaimedID}
}

// refuseUnknown refuses a message that the rules reject and that was never accepted.
func (p *attempt) refuseUnknown(r message.Request, why *message.Invalid) (message.Outcome, error) {
	if why.Code == message.CodeExpiresTooLate {
		if err := p.rememberRefusal(r.ExpiresAt); err != nil {
			return message.Outcome{}, err
		}
	}
	return p.refuse(r, why)
}

// handleUnauthorized handles a message that the rules reject. If the same message was accepted before, under rules that have
// changed since (a signer was withdrawn, or signatures are now required), it keeps its claim on its id: a call that may have
// been made is followed to its end, and the result is published under that id, because the machine may be released. Only
// further calls are not made.
//
// The entry shows that the message was accepted before: it names the message by its stream and sequence, which no other
// message has. The name of a withdrawn signer is no longer known, so the entry is searched for among all owners of the id.
func (p *attempt) handleUnauthorized(why *message.Invalid) (message.Outcome, error) {
	if err := p.read(); err != nil {
		return message.Outcome{}, err
	}
	if !p.isSource(p.e) {
		return message.Later(100*time.Millisecond, "overtaken"), nil
	}
	p.unauthorized = why
	if p.replay.found { // a crash came between the run it opened and its end
		if err := p.DeadLetters.Drop(p.work, p.replay.seq); err != nil {
			return message.Outcome{}, err
		}
	}
	return p.carry()
}
