package remediation

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
