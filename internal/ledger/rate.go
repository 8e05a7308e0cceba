package ledger

import (
	"context"
	"encoding/json"
	"fmt"
	"time"
)

// SignerHour is the ledger's record of the machines that were called for on behalf of one signer, shared by all replicas. It
// holds at most as many machines as the policy allows an hour.
type SignerHour struct {
	Version  int              `json:"v"`
	Nonce    string           `json:"nonce"`
	Machines map[string]int64 `json:"machines"` // the latest call, in Unix milliseconds of the broker's clock

	revision uint64
}

// RateKey is the key of a signer's record.
func RateKey(stream, who string) string {
	return "p." + Digest(stream, 4) + "." + Digest(who, 20)
}

// LoadSignerHour reads the record, without the calls that are older than memory.
func LoadSignerHour(ctx context.Context, l Ledger, key string, now time.Time, memory time.Duration) (SignerHour, error) {
	rec, err := l.Load(ctx, key)
	if err != nil {
		return SignerHour{}, fmt.Errorf("read a signer's rate: %w", err)
	}
	c := SignerHour{}
	if rec.Value != nil {
		if err := decode(rec.Value, &c, &c.Version); err != nil {
			return SignerHour{}, fmt.Errorf("a signer's rate: %w", err)
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

// Full reports whether the limit allows no further machine. until is the time of the oldest call, which ages out first.
func (c *SignerHour) Full(machine string, limit int) (until time.Time, full bool) {
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

// Save writes the record by compare-and-swap.
func (c *SignerHour) Save(ctx context.Context, l Ledger, key string, memory time.Duration) error {
	c.Version, c.Nonce = FormatVersion, Nonce()
	value, err := json.Marshal(c)
	if err != nil {
		return fmt.Errorf("encode a signer's rate: %w", err)
	}
	if _, err := l.Save(ctx, Write{key, value, c.revision, 2 * memory}); err != nil {
		return fmt.Errorf("count a call for a signer: %w", err)
	}
	return nil
}
