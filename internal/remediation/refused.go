package remediation

import (
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"example.com/unrestrict-worker/internal/ledger"
	"example.com/unrestrict-worker/internal/message"
)

// A signed request whose expiresAt is too far ahead would be good once enough time has passed, for whoever has kept its
// bytes: perhaps when its id has been used by another request, ended and forgotten. So what was refused for that stays
// refused: the ledger remembers it for as long as it would live.
//
// A crash before this record is written leaves the message, which comes again.

const refusedAlready = "expiresAt: this request was refused when it was more than 7 days ahead, and stays so; sign it anew"

// refusedKey stands for what was signed, whoever signed it and however the signature is written down.
func (p *attempt) refusedKey() string {
	return "x." + ledger.DeploymentDigest(p.Rules.Stream) + "." + ledger.Digest(string(message.SignedText(p.origin.Subject, p.origin.Data)), 20)
}

// rememberRefusal is for a request that expires too late, before anybody is told.
func (p *attempt) rememberRefusal(expiresAt time.Time) error {
	const most = 100 * 365 * 24 * time.Hour // what the broker can reckon with
	value, err := json.Marshal(struct {
		Version int    `json:"v"`
		Nonce   string `json:"nonce"`
	}{ledger.FormatVersion, ledger.Nonce()})
	if err != nil {
		return err
	}
	w := ledger.Write{Key: p.refusedKey(), Value: value, TTL: min(time.Until(expiresAt)+time.Hour, most)}
	if _, err := p.Ledger.Save(p.work, w); err != nil && !errors.Is(err, ledger.ErrConflict) { // it is there already
		return fmt.Errorf("remember a refused request: %w", err)
	}
	return nil
}

// refusedBefore says whether the same bytes were refused for expiring too late. Only a signature makes that matter: who
// needs none can write what he likes.
func (p *attempt) refusedBefore() (bool, error) {
	if p.Rules.Signers == nil || p.e.State != "" {
		return false, nil
	}
	rec, err := p.Ledger.Load(p.work, p.refusedKey())
	if err != nil {
		return false, fmt.Errorf("read the ledger: %w", err)
	}
	return rec.Value != nil, nil
}
