package ledger

import (
	"context"
	"fmt"
	"time"

	"example.com/unrestrict-worker/internal/message"
)

// EntryKey is the ledger's key of a request. Its parts are digests, because ids and names may contain any character. The
// digest of the stream keeps two deployments on one account apart. The key is IDKey, plus a part for the owner if the
// request has one.
func EntryKey(stream string, r message.Request, published time.Time) string {
	key := IDKey(stream, r, published)
	switch {
	case r.Derived: // STREAM:SEQ names one message, so it needs no owner
		return key
	case r.SignedBy != "":
		return key + "." + Digest("signer "+r.SignedBy, 10)
	case r.Client != "":
		return key + "." + Digest("client "+r.Client, 10)
	}
	return key
}

// IDKey is the key of a request without an owner, and the prefix of the keys of all owners' requests with this id. The
// previous version stored every request under it. A derived id (STREAM:SEQ) counts from 1 again when the stream is
// recreated, so the key includes the message's time.
func IDKey(stream string, r message.Request, published time.Time) string {
	id := r.ID
	if r.Derived {
		id = fmt.Sprintf("%s %d", id, published.UnixNano())
	}
	return "e." + DeploymentDigest(stream) + "." + Digest(id, 20)
}

// EntryKeys matches the keys of all requests of a deployment, in the broker's notation.
func EntryKeys(stream string) string { return "e." + DeploymentDigest(stream) + ".>" }

// LoadOwners reads the records of all requests with an id, of every owner, by key.
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

// SignedBefore reports whether an entry of the previous version belongs to this request's signer: by name or, if the name
// had to change, by nkey.
func (e Entry) SignedBefore(r message.Request) bool {
	return r.SignedBy != "" && (e.SignedBy == r.SignedBy || e.Signer == r.Signer)
}
