package remediation

import (
	"time"

	"example.com/unrestrict-worker/internal/message"
)

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
