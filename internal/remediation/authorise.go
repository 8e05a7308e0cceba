package remediation

import (
	"time"

	"example.com/unrestrict-worker/internal/message"
)

// forbidden is why the policy forbids the run, "" if it does not. A run is judged when it is about to call for the first
// time, not again for each attempt; what has to be looked for is looked for first.
func (p *attempt) forbidden() string {
	if p.Policy == nil || p.e.Allowed {
		return ""
	}
	_, rule := p.Policy.Rule(p.signer())
	asked := p.req
	asked.SignedBy, _ = p.signer()
	asked.Ticket = p.e.Ticket
	return rule.Forbids(asked)
}

// signer is whose request it is: the name, and the nkey that it was verified with. Of several messages that ask the same
// the first one's, which results and records name too. An entry has none if no signature was asked for then.
func (p *attempt) signer() (name, key string) {
	if p.e.Signer == "" {
		return p.req.SignedBy, p.req.Signer
	}
	return p.e.SignedBy, p.e.Signer
}

// handleUnauthorized answers a message that the rules do not take. One that was taken before, under rules that have changed since (a
// signer was withdrawn, signatures are asked for now), keeps its claim on its id: what may have been called for is followed
// to its end and told under that id, for the machine may be released. Only a call, the first or a further one, is not made.
//
// That it was taken is told by the entry, which names the message by its place in the stream. Another message with the
// same id has another place. The name of a signer who was withdrawn is no longer known, so the entry is sought among all
// of the id.
func (p *attempt) handleUnauthorized(r message.Request, why *message.Invalid) (message.Outcome, error) {
	claimed := message.Request{ID: why.ClaimedID}
	if claimed.ID == "" {
		claimed = message.Request{ID: p.origin.Ref(), Derived: true}
	}
	key, err := p.find(claimed, "")
	if err != nil {
		return message.Outcome{}, err
	}
	if key == "" {
		if why.Code == message.CodeExpiresTooLate {
			if err := p.rememberRefusal(r.ExpiresAt); err != nil {
				return message.Outcome{}, err
			}
		}
		return p.refuse(r, why)
	}
	p.key = key
	if !p.inFlight.enter(p.key) {
		return message.Later(inHandFor, "inHand"), nil
	}
	defer p.inFlight.leave(p.key)
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
