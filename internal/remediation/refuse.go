package remediation

import (
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"go.uber.org/zap"

	"example.com/unrestrict-worker/internal/ledger"
	"example.com/unrestrict-worker/internal/message"
)

// refuse rejects a message that has no claim on an id, under the id STREAM:SEQ. Nothing is written to the ledger: result and
// dead letter have message ids, so after a crash between them the broker drops duplicates.
func (p *attempt) refuse(r message.Request, why *message.Invalid) (message.Outcome, error) {
	p.startSpan()
	r.TraceParent, r.TraceState = p.req.TraceParent, p.req.TraceState
	unverified := why.Unverified(r)
	// The entry is never written. It serves to publish the refusal like the end of any run.
	e := ledger.NewEntry(r, p.d, p.d.Published, p.BrokerNow())
	e.ID, e.Owned, e.ReplayOf, e.ReceivedAt = p.d.Ref(), false, p.replay.seq, later(p.began, p.d.Published).UTC()
	e = ended(e, time.Now(), message.Rejected, &message.Failure{Code: why.Code, Message: why.Message, Origin: message.OriginRequest}, true)
	p.e = e
	audit, letter, result := e.Audit(), *p.deadLetter(), e.Result()
	audit.Kind, audit.ClaimedID, result.ClaimedID = ledger.AuditRefused, why.ClaimedID, why.ClaimedID
	letter.Delivery, letter.Unverified, result.Unverified = p.d, unverified, unverified
	if err := p.recordRefusal(audit, unverified); err != nil {
		return message.Outcome{}, notPublished{err}
	}
	if err := p.Publisher.DeadLetter(p.work, letter, p.d.Published); err != nil {
		return message.Outcome{}, notPublished{err}
	}
	if err := p.Publisher.Result(p.work, result, e.Trace(), r.ReplyTo, p.d.Published); err != nil {
		return message.Outcome{}, notPublished{err}
	}
	p.Breaker.ResetFrom(faultPublish)
	if p.replay.found {
		if err := p.DeadLetters.Drop(p.work, p.replay.seq); err != nil {
			return message.Outcome{}, err
		}
	}
	p.Metrics.refused(why.Code)
	p.Log.Info("message rejected", p.about(e.ID, zap.String("claimed_id", why.ClaimedID), zap.String("lane", string(e.Lane)),
		zap.String("code", why.Code), zap.String("why", why.Message), zap.String("signed_by", r.SignedBy))...)
	return message.Done(), nil
}

// later is the later of two times. A message counts as received after it was published, whatever the clocks show:
// Publisher.Result relies on that to recognise the result of this message.
func later(a, b time.Time) time.Time {
	if a.Before(b) {
		return b
	}
	return a
}

// A signed request whose expiresAt is too far ahead would become valid once enough time has passed, for anybody who has kept its
// bytes: perhaps after another request used its id, ended and was forgotten. So such a refusal is permanent: the ledger remembers
// it until the request expires.
//
// A crash before this record is written leaves the message, which is redelivered.

const refusedAlready = "expiresAt: this request was refused because it was more than 7 days ahead, and stays refused; sign the request again"

// refusedKey identifies the signed text, regardless of the signer and of the signature's encoding.
func (p *attempt) refusedKey() string {
	return "x." + ledger.DeploymentDigest(p.Rules.Stream) + "." + ledger.Digest(string(message.SignedText(p.origin.Subject, p.origin.Data)), 20)
}

// rememberRefusal records a request that expires too late, before its result is published.
func (p *attempt) rememberRefusal(expiresAt time.Time) error {
	const most = 100 * 365 * 24 * time.Hour // the longest TTL that the broker can handle
	value, err := json.Marshal(struct {
		Version int    `json:"v"`
		Nonce   string `json:"nonce"`
	}{ledger.FormatVersion, ledger.Nonce()})
	if err != nil {
		return err
	}
	w := ledger.Write{Key: p.refusedKey(), Value: value, TTL: min(time.Until(expiresAt)+time.Hour, most)}
	if _, err := p.Ledger.Save(p.work, w); err != nil && !errors.Is(err, ledger.ErrConflict) { // already recorded
		return fmt.Errorf("remember a refused request: %w", err)
	}
	return nil
}

// refusedBefore reports whether the same bytes were refused for expiring too late. It matters only where signatures are
// required: without them anybody can write any request.
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
