package remediation

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"
)

// called is the ledger's record of the machines that were called for at one signer's request, for all replicas. It holds
// at most mostPerHour of them.
type called struct {
	Version  int              `json:"v"`
	Nonce    string           `json:"nonce"`
	Machines map[string]int64 `json:"machines"` // the latest call, in Unix milliseconds of the broker's clock

	revision uint64
}

func rateKey(stream, who string) string {
	return "p." + digest(stream, 4) + "." + digest(who, 20)
}

// loadCalled reads the record without what is older than memory.
func loadCalled(ctx context.Context, l Ledger, key string, now time.Time, memory time.Duration) (called, error) {
	rec, err := l.Load(ctx, key)
	if err != nil {
		return called{}, fmt.Errorf("read a signer's rate: %w", err)
	}
	c := called{}
	if rec.Value != nil {
		if err := decode(rec.Value, &c, &c.Version); err != nil {
			return called{}, fmt.Errorf("a signer's rate: %w", err)
		}
	}
	c.revision = rec.Revision
	if c.Machines == nil {
		c.Machines = map[string]int64{}
	}
	for id, at := range c.Machines {
		if now.Sub(time.UnixMilli(at)) > memory {
			delete(c.Machines, id)
		}
	}
	return c, nil
}

// full says whether no call for the machine may be added, and when one leaves.
func (c *called) full(machine string, limit int) (until time.Time, full bool) {
	if _, again := c.Machines[machine]; again || len(c.Machines) < limit {
		return time.Time{}, false
	}
	for _, at := range c.Machines {
		if t := time.UnixMilli(at); until.IsZero() || t.Before(until) {
			until = t
		}
	}
	return until, true
}

func (c *called) save(ctx context.Context, l Ledger, key string, memory time.Duration) error {
	c.Version, c.Nonce = formatVersion, nonce()
	value, err := json.Marshal(c)
	if err != nil {
		return fmt.Errorf("encode a signer's rate: %w", err)
	}
	if _, err := l.Save(ctx, Write{key, value, c.revision, 2 * memory}); err != nil {
		return fmt.Errorf("count a call for a signer: %w", err)
	}
	return nil
}

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
func (p *attempt) inRate() (c called, key string, err error) {
	if p.Rules.Policy == nil || p.e.Counted {
		return called{}, "", nil
	}
	who, rule := p.Rules.Policy.rule(p.signer())
	if rule == nil || rule.perHour == 0 {
		return called{}, "", nil // a rule that was taken away since the run was allowed
	}
	key = rateKey(p.Rules.Stream, who)
	c, err = loadCalled(p.work, p.Ledger, key, p.BrokerNow(), p.rateMemory())
	if err != nil {
		return called{}, "", err
	}
	if oldest, full := c.full(p.e.MachineID, rule.perHour); full {
		return called{}, "", refused{&Failure{Code: CodePolicy, Origin: OriginRequest, Message: fmt.Sprintf(
			"the policy allows signer %s no more than %d machines an hour; replay it after %s",
			who, rule.perHour, oldest.Add(p.rateMemory()).UTC().Format(time.RFC3339))}}
	}
	return c, key, nil
}

// rateMemory is how long a call counts: an hour, and what may pass between the count and the call.
func (p *attempt) rateMemory() time.Duration { return time.Hour + p.Config.StartLimit }
