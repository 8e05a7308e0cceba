package ledger

import (
	"context"
	"fmt"
	"time"

	"example.com/unrestrict-worker/internal/message"
)

// EntryKey is the ledger's key of a request: digests, for ids and names may hold anything. The stream keeps two
// deployments on one account apart. Below IDKey it has a part for its owner, if it has one.
func EntryKey(stream string, r message.Request, published time.Time) string {
	key := IDKey(stream, r, published)
	switch {
	case r.Derived: // its message's place is nobody else's
		return key
	case r.SignedBy != "":
		return key + "." + Digest("signer "+r.SignedBy, 10)
	case r.Client != "":
		return key + "." + Digest("client "+r.Client, 10)
	}
	return key
}

// IDKey is the key of a request that belongs to nobody, and what the keys of all owners' requests of this id begin with. The
// version before had every request there. A derived id (STREAM:SEQ) counts from 1 again when the stream is made anew, so
// the message's time belongs to it.
func IDKey(stream string, r message.Request, published time.Time) string {
	id := r.ID
	if r.Derived {
		id = fmt.Sprintf("%s %d", id, published.UnixNano())
	}
	return "e." + DeploymentDigest(stream) + "." + Digest(id, 20)
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

// SignedBefore says whether an entry of the version before is of this request's signer, by name or, where the name had to
// change, by nkey.
func (e Entry) SignedBefore(r message.Request) bool {
	return r.SignedBy != "" && (e.SignedBy == r.SignedBy || e.Signer == r.Signer)
}
