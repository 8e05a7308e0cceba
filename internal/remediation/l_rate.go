package remediation

import (
	"context"
	"encoding/json"
	"fmt"
	"time"
)

// signerHour is the ledger's record of the machines that were called for at one signer's request, for all replicas. It holds
// at most mostPerHour of them.
type signerHour struct {
	Version  int              `json:"v"`
	Nonce    string           `json:"nonce"`
	Machines map[string]int64 `json:"machines"` // the latest call, in Unix milliseconds of the broker's clock

	revision uint64
}

func rateKey(stream, who string) string {
	return "p." + digest(stream, 4) + "." + digest(who, 20)
}

// loadSignerHour reads the record without what is older than memory.
func loadSignerHour(ctx context.Context, l Ledger, key string, now time.Time, memory time.Duration) (signerHour, error) {
	rec, err := l.Load(ctx, key)
	if err != nil {
		return signerHour{}, fmt.Errorf("read a signer's rate: %w", err)
	}
	c := signerHour{}
	if rec.Value != nil {
		if err := decode(rec.Value, &c, &c.Version); err != nil {
			return signerHour{}, fmt.Errorf("a signer's rate: %w", err)
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
func (c *signerHour) full(machine string, limit int) (until time.Time, full bool) {
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

func (c *signerHour) save(ctx context.Context, l Ledger, key string, memory time.Duration) error {
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
