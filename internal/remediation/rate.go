package remediation

import (
	"errors"
	"fmt"
	"time"

	"example.com/unrestrict-worker/internal/ledger"
	"example.com/unrestrict-worker/internal/message"
)

// reserveSignerQuota adds the run's machine to its signer's hour, once a run, after the permit and right before the intent.
// After a crash between the two the same machine is added again, which makes no difference unless an hour has passed. The
// error is refused if the hour is full.
func (p *attempt) reserveSignerQuota() error {
	for { // whenever one is overtaken another has got through
		c, key, err := p.signerHour()
		if err != nil || key == "" {
			return err
		}
		c.Machines[p.e.MachineID] = p.BrokerNow().UnixMilli()
		switch err := c.Save(p.work, p.Ledger, key, p.rateMemory()); {
		case err == nil:
			p.e.Counted = true
			return nil
		case !errors.Is(err, ledger.ErrConflict):
			return err
		}
	}
}

// signerHour holds the run against its signer's rate; key is "" if it need not be counted. It is asked before a call is
// taken from the budget too, so that who asks too much uses up no calls.
func (p *attempt) signerHour() (c ledger.SignerHour, key string, err error) {
	if p.Policy == nil || p.e.Counted {
		return ledger.SignerHour{}, "", nil
	}
	who, rule := p.Policy.Rule(p.signer())
	if rule == nil || rule.PerHour == 0 {
		return ledger.SignerHour{}, "", nil // a rule that was taken away since the run was allowed
	}
	key = ledger.RateKey(p.Rules.Stream, who)
	c, err = ledger.LoadSignerHour(p.work, p.Ledger, key, p.BrokerNow(), p.rateMemory())
	if err != nil {
		return ledger.SignerHour{}, "", err
	}
	if oldest, full := c.Full(p.e.MachineID, rule.PerHour); full {
		return ledger.SignerHour{}, "", refused{&message.Failure{Code: message.CodePolicy, Origin: message.OriginRequest, Message: fmt.Sprintf(
			"the policy allows signer %s no more than %d machines an hour; replay it after %s",
			who, rule.PerHour, oldest.Add(p.rateMemory()).UTC().Format(time.RFC3339))}}
	}
	return c, key, nil
}

// rateMemory is how long a call counts: an hour, and what may pass between the count and the call.
func (p *attempt) rateMemory() time.Duration { return time.Hour + p.Config.StartLimit }
