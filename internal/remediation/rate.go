package remediation

import (
	"errors"
	"fmt"
	"time"

	"example.com/unrestrict-worker/internal/ledger"
	"example.com/unrestrict-worker/internal/message"
)

// reserveSignerQuota adds the run to its signer's hours, once a run, after the permit and right before the intent. After a
// crash between the two the same call is added again, which makes no difference unless an hour has passed. The error is
// refused if an hour is full.
func (p *attempt) reserveSignerQuota() error {
	for { // a conflict means that another writer succeeded, so this ends
		hours, err := p.signerHours()
		for _, h := range hours {
			if err == nil {
				h.Machines[h.counts] = p.BrokerNow().UnixMilli()
				err = h.Save(p.work, p.Ledger, h.key, p.rateMemory())
			}
		}
		switch {
		case err == nil:
			p.e.Counted = p.e.Counted || len(hours) > 0
			return nil
		case !errors.Is(err, ledger.ErrConflict):
			return err
		}
	}
}

// signerHour is a limit of a signer, and its use in the last hour.
type signerHour struct {
	ledger.SignerHour
	key    string
	counts string // the key that the run adds to it
}

// signerHours checks the run against its signer's limits; none if it need not be counted. It is also checked before a call
// is taken from the budget, so that a signer over the limit uses up no calls.
func (p *attempt) signerHours() (hours []signerHour, err error) {
	if p.Policy == nil || p.e.Counted {
		return nil, nil
	}
	who, rule := p.Policy.Rule(p.signer())
	if rule == nil {
		return nil, nil // the rule was removed since the run was allowed
	}
	for _, limit := range []struct {
		n                  int
		key, counts, named string
	}{
		{rule.PerHour, ledger.RateKey(p.Rules.Stream, who), p.e.MachineID, "machines"},
		{rule.Urgent, ledger.RateKey(p.Rules.Stream, who+"\nurgent"), p.key, "urgent requests"},
	} {
		if limit.n == 0 || limit.counts == p.key && p.lane() != message.LaneUrgent {
			continue
		}
		c, err := ledger.LoadSignerHour(p.work, p.Ledger, limit.key, p.BrokerNow(), p.rateMemory())
		if err != nil {
			return nil, err
		}
		if oldest, full := c.Full(limit.counts, limit.n); full {
			return nil, refused{&message.Failure{Code: message.CodePolicy, Origin: message.OriginRequest, Message: fmt.Sprintf(
				"the policy allows signer %s no more than %d %s an hour; replay it after %s",
				who, limit.n, limit.named, oldest.Add(p.rateMemory()).UTC().Format(time.RFC3339))}}
		}
		hours = append(hours, signerHour{c, limit.key, limit.counts})
	}
	return hours, nil
}

// rateMemory is how long a call counts: an hour, plus the time that may pass between the count and the call.
func (p *attempt) rateMemory() time.Duration { return time.Hour + p.Config.StartLimit }
