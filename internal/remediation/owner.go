package remediation

import (
	"cmp"
	"errors"

	"example.com/unrestrict-worker/internal/ledger"
	"example.com/unrestrict-worker/internal/message"
)

// An id belongs to its owner: the signer, by name, or, where no signers are configured, the client that the message names.
// The same id of two owners names two requests, and no owner can use up, answer or replay another's.
//
// The previous version had one entry for an id, regardless of owner (docs/adr/0013-ids-belong-to-their-signer.md).

// find returns the key of the entry that a message is about, or own if there is none yet. It is the entry that this message
// opened, under whatever configuration; otherwise its owner's; otherwise the previous version's, if that belongs to its
// signer. own is "" for a message that has no claim on an id: then only the first applies.
func (p *attempt) find(r message.Request, own string) (string, error) {
	idKey := ledger.IDKey(p.Rules.Stream, r, p.origin.Published)
	if own == idKey && p.origin.Header.Get(message.HeaderSigner) == "" {
		return own, nil // the request never had an owner
	}
	records, err := ledger.LoadOwners(p.work, p.Ledger, idKey)
	if err != nil {
		return "", err
	}
	p.owners = records
	var before ledger.Entry
	for key, rec := range records {
		e, err := ledger.DecodeEntry(rec)
		switch {
		case errors.Is(err, ledger.ErrNewer) && own == "":
			return "", err // the entry may be this message's
		case err == nil && e.State != "" && p.isSource(e):
			return key, nil
		case err == nil && key == idKey:
			before = e
		}
	}
	if records[own].Value == nil && own != "" && before.SignedBefore(r) {
		return idKey, nil
	}
	return own, nil
}

// othersHave reports whether another owner has a request with the same id, machine and comment.
func othersHave(owners map[string]ledger.Record, own, fingerprint string) bool {
	for key, rec := range owners {
		if e, err := ledger.DecodeEntry(rec); key != own && err == nil && e.State != "" && e.Fingerprint == fingerprint {
			return true
		}
	}
	return false
}

// isSource reports whether this message opened the entry.
func (p *attempt) isSource(e ledger.Entry) bool {
	return e.Source == p.d.Ref() && e.ReplayOf == p.replay.seq &&
		(p.replay.seq != 0 || cmp.Or(e.AskedAt, p.origin.Published).Equal(p.origin.Published))
}

// reserveID keeps replicas of the previous version, which read only IDKey, from carrying out a request that is begun here:
// they leave the placeholder that it writes there alone, as a newer version's. It is durable before the entry is; a crash
// between the two leaves an id that only this version works on.
func (p *attempt) reserveID() error {
	idKey := ledger.IDKey(p.Rules.Stream, p.req, p.origin.Published)
	if p.key == idKey {
		return nil
	}
	e, err := ledger.Load(p.work, p.Ledger, idKey)
	switch {
	case errors.Is(err, ledger.ErrNewer), errors.Is(err, ledger.ErrGarbled):
		return nil
	case err != nil:
		return err
	case e.SignedBefore(p.req) || e.State != "" && p.isSource(e):
		return ledger.ErrConflict // begun by such a replica since it was read
	case e.State != "":
		return nil // another owner's
	}
	held := ledger.Entry{State: ledger.StateHeld, Revision: e.Revision}
	return ledger.Save(p.work, p.Ledger, idKey, &held, ledger.Retention)
}
