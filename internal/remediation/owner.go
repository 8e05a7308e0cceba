package remediation

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"strings"
	"time"
)

// An id belongs to whoever asked: to the signer, by name, and where no signers are configured to the client that the
// message names. So the same id by two of them names two requests, and none can use up, answer for or revive another's.
//
// The version before had one entry for an id, whoever asked (docs/adr/0013-ids-belong-to-their-signer.md).

// HeaderClient names the client of worker intake whose request the message is.
const HeaderClient = "Request-Client"

// maxName bounds the name of a signer or client in characters.
const maxName = 64

// checkName says what keeps a text from being the name of a signer or client. It does not repeat it.
func checkName(name string) error {
	other := strings.ContainsFunc(name, func(r rune) bool {
		return (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9') && !strings.ContainsRune("._@-", r)
	})
	if name == "" || len(name) > maxName || other {
		return fmt.Errorf("must be 1 to %d of the characters a to z, A to Z, 0 to 9 and . _ @ -; choose another name", maxName)
	}
	return nil
}

// clientOf is the client that a message names, "" if it names none.
func clientOf(h Header) (string, error) {
	name, there := h.lookup(HeaderClient)
	if !there {
		return "", nil
	}
	if err := checkName(name); err != nil {
		return "", fmt.Errorf("header %s: %w", HeaderClient, err)
	}
	return name, nil
}

// Owner is the name of the signer or client whose request it is, "" if it is nobody's.
func (r Request) Owner() string { return cmp.Or(r.SignedBy, r.Client) }

// EntryKey is the ledger's key of a request: digests, for ids and names may hold anything. The stream keeps two
// deployments on one account apart. Below IDKey it has a part for its owner, if it has one.
func EntryKey(stream string, r Request, published time.Time) string {
	key := IDKey(stream, r, published)
	switch {
	case r.Derived: // its message's place is nobody else's
		return key
	case r.SignedBy != "":
		return key + "." + digest("signer "+r.SignedBy, 10)
	case r.Client != "":
		return key + "." + digest("client "+r.Client, 10)
	}
	return key
}

// IDKey is the key of a request that belongs to nobody, and what the keys of all owners' requests of this id begin with. The
// version before had every request there. A derived id (STREAM:SEQ) counts from 1 again when the stream is made anew, so
// the message's time belongs to it.
func IDKey(stream string, r Request, published time.Time) string {
	id := r.ID
	if r.Derived {
		id = fmt.Sprintf("%s %d", id, published.UnixNano())
	}
	return "e." + DeploymentDigest(stream) + "." + digest(id, 20)
}

// EntryKeys matches the keys of all requests of a deployment, in the broker's notation.
func EntryKeys(stream string) string { return "e." + DeploymentDigest(stream) + ".>" }

// LoadOwners reads what the ledger has of all requests of an id, whoever's they are, by key.
func LoadOwners(ctx context.Context, l Ledger, idKey string) (map[string]Record, error) {
	records, err := l.LoadBelow(ctx, idKey)
	if err == nil {
		records[idKey], err = l.Load(ctx, idKey)
	}
	if err != nil {
		return nil, fmt.Errorf("read the ledger: %w", err)
	}
	return records, nil
}

// find is the key of the entry that a message is about, own if there is none yet. It is the one that this very message
// opened, whatever was configured then; else its owner's own; else the one of the version before, if that is its signer's.
// own is "" for a message that has no claim on an id: only the first holds for it.
func (p *attempt) find(r Request, own string) (string, error) {
	idKey := IDKey(p.Rules.Stream, r, p.origin.Published)
	if own == idKey && p.origin.Header.Get(HeaderSigner) == "" {
		return own, nil // it was never anybody's
	}
	records, err := LoadOwners(p.work, p.Ledger, idKey)
	if err != nil {
		return "", err
	}
	var before Entry
	for key, rec := range records {
		e, err := DecodeEntry(rec)
		switch {
		case errors.Is(err, errNewer) && own == "":
			return "", err // it may be this message's
		case err == nil && e.State != "" && p.isSource(e):
			return key, nil
		case err == nil && key == idKey:
			before = e
		}
	}
	if records[own].Value == nil && own != "" && r.signedBefore(before) {
		return idKey, nil
	}
	return own, nil
}

// isSource says whether the entry is of this very message.
func (p *attempt) isSource(e Entry) bool {
	return e.Source == p.d.Ref() && e.ReplayOf == p.replay.seq &&
		(p.replay.seq != 0 || cmp.Or(e.Asked, p.origin.Published).Equal(p.origin.Published))
}

// signedBefore says whether an entry of the version before is of this request's signer, by name or, where the name had to
// change, by nkey.
func (r Request) signedBefore(e Entry) bool {
	return r.SignedBy != "" && (e.SignedBy == r.SignedBy || e.Signer == r.Signer)
}

// holdID keeps replicas of the version before, which look at IDKey alone, from carrying out a request that is begun here:
// what it leaves there they leave to a newer version. Durable before the entry is; a crash between the two leaves an id
// that only this version works on.
func (p *attempt) holdID() error {
	idKey := IDKey(p.Rules.Stream, p.req, p.origin.Published)
	if p.key == idKey {
		return nil
	}
	e, err := load(p.work, p.Ledger, idKey)
	switch {
	case errors.Is(err, errNewer), errors.Is(err, errGarbled):
		return nil
	case err != nil:
		return err
	case p.req.signedBefore(e) || e.State != "" && p.isSource(e):
		return ErrConflict // begun by such a replica since it was looked for
	case e.State != "":
		return nil // somebody else's
	}
	held := Entry{State: stateHeld, Revision: e.Revision}
	return save(p.work, p.Ledger, idKey, &held, keep)
}
