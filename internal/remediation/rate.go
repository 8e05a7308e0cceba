package remediation

import (
	"errors"
	"fmt"
	"time"
)

// mostCounting bounds how often a count that others overtook is tried again. Whenever one is overtaken another has
// got through, so that as many tries are more than there are callers.
const mostCounting = 1000

// reserveSignerQuota enters the run's machine in its signer's hour, once a run, when a call was granted: right before the intent,
// which makes it known. After a crash between the two the same machine is entered again, which makes no difference
// unless an hour has passed. The error is refused if the hour is full.
func (p *attempt) reserveSignerQuota() error {
	for range mostCounting {
		c, key, err := p.inRate()
		if err != nil || key == "" {
			return err
		}
		c.Machines[p.e.MachineID] = p.BrokerNow().UnixMilli()
		switch err := c.save(p.work, p.Ledger, key, p.rateMemory()); {
		case err == nil:
			p.e.Counted = true
			return nil
		case !errors.Is(err, ErrConflict):
			return err
		}
	}
	return errors.New("count a call for a signer: overtaken without end")
}

// inRate holds the run against its signer's rate; key is "" if it need not be counted. It is asked before a call is
// taken from the budget too, so that who asks too much uses up no calls.
func (p *attempt) inRate() (c signerHour, key string, err error) {
	if p.Policy == nil || p.e.Counted {
		return signerHour{}, "", nil
	}
	who, rule := p.Policy.rule(p.signer())
	if rule == nil || rule.perHour == 0 {
		return signerHour{}, "", nil // a rule that was taken away since the run was allowed
	}
	key = rateKey(p.Rules.Stream, who)
	c, err = loadSignerHour(p.work, p.Ledger, key, p.BrokerNow(), p.rateMemory())
	if err != nil {
		return signerHour{}, "", err
	}
	if oldest, full := c.full(p.e.MachineID, rule.perHour); full {
		return signerHour{}, "", refused{&Failure{Code: CodePolicy, Origin: OriginRequest, Message: fmt.Sprintf(
			"the policy allows signer %s no more than %d machines an hour; replay it after %s",
			who, rule.perHour, oldest.Add(p.rateMemory()).UTC().Format(time.RFC3339))}}
	}
	return c, key, nil
}

// rateMemory is how long a call counts: an hour, and what may pass between the count and the call.
func (p *attempt) rateMemory() time.Duration { return time.Hour + p.Config.StartLimit }
