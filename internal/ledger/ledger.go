package ledger

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"time"

	"example.com/unrestrict-worker/internal/message"
)

// ErrConflict is returned by Ledger.Save when another write came first.
var ErrConflict = errors.New("another write came first")

// ErrRecreated is returned when the ledger was lost and recreated: its old content is gone, and nothing was written.
var ErrRecreated = errors.New("it was recreated")

// Pinner is a Ledger that may be lost and recreated. Pin binds to the present one: once it was recreated, writes fail with
// ErrRecreated, so that no write rests on a decision from before.
type Pinner interface{ Pin() Ledger }

// Pin pins a ledger that can be pinned, and returns any other as it is.
func Pin(l Ledger) Ledger {
	if p, ok := l.(Pinner); ok {
		return p.Pin()
	}
	return l
}

// Record is one value in the ledger.
type Record struct {
	Value    []byte    // nil: no value
	Revision uint64    // 0: no value
	Written  time.Time // by the broker's clock
}

// Ledger keeps one small value per key, durably, for all replicas.
//
// Save is a compare-and-swap: it succeeds only while the key's revision is the given one (0: the key is absent or has
// expired), and the value is durable when it returns nil. ErrConflict means that the value was not written. After any other
// error the value may have been written, or may be later. Save resolves a lost acknowledgement by reading back, so two
// writes of one key must never have equal bytes (entries carry a nonce). With ttl > 0 the broker removes the key that long
// after the write. Save does not retry a refused write. Load may be stale: decisions rest on Save.
//
// SaveBoth is two Saves of different keys, the second sent right after the first. The broker processes them in this order,
// and each succeeds or fails on its own. It saves one round trip.
//
// LoadBelow reads the values of all keys that extend the given one by exactly one part.
//
// All are safe for concurrent use.
type Ledger interface {
	Load(ctx context.Context, key string) (Record, error)
	LoadBelow(ctx context.Context, key string) (map[string]Record, error)
	Save(ctx context.Context, w Write) (revision uint64, err error)
	SaveBoth(ctx context.Context, first, second Write) (Saved, Saved)
}

// Write is one compare-and-swap: it stores Value if the key is at Revision. The key expires after TTL (0: never).
type Write struct {
	Key      string
	Value    []byte
	Revision uint64
	TTL      time.Duration
}

// Saved is what Save returns.
type Saved struct {
	Revision uint64
	Err      error
}

// Retention is how long the ledger remembers a request after its end (docs/messages.md): longer than a signature can be
// valid, by more than the replicas' clocks may differ.
const Retention = message.MaxSignFor + time.Hour

func machineKey(stream, machine string) string {
	return "m." + DeploymentDigest(stream) + "." + machine
}

// DeploymentDigest identifies a deployment, by its request stream, in keys that several deployments share.
func DeploymentDigest(stream string) string { return Digest(stream, 4) }

// Digest is the first size bytes of the SHA-256 of s, in hexadecimal.
func Digest(s string, size int) string {
	sum := sha256.Sum256([]byte(s))
	return hex.EncodeToString(sum[:size])
}

// Nonce is random text that makes equal writes differ.
func Nonce() string {
	var b [9]byte
	_, _ = rand.Read(b[:]) // never fails (crypto/rand)
	return hex.EncodeToString(b[:])
}

// Load reads an entry. It returns a zero one (Revision 0) if the key has none.
func Load(ctx context.Context, l Ledger, key string) (Entry, error) {
	rec, err := l.Load(ctx, key)
	if err != nil {
		return Entry{}, fmt.Errorf("read the ledger: %w", err)
	}
	return DecodeEntry(rec)
}

// DecodeEntry reads an entry from its record. It returns a zero one if the record has none.
func DecodeEntry(rec Record) (Entry, error) {
	e := Entry{Revision: rec.Revision, Written: rec.Written}
	if rec.Value == nil {
		return Entry{Revision: rec.Revision}, nil
	}
	head, action, _ := bytes.Cut(rec.Value, []byte("\n"))
	if err := decode(head, &e, &e.Version); err != nil {
		return Entry{}, fmt.Errorf("ledger entry at revision %d: %w", rec.Revision, err)
	}
	switch {
	case e.State == StateHeld:
		return Entry{Revision: rec.Revision}, nil
	case !e.State.Known():
		return Entry{}, ErrNewer
	}
	if len(action) > 0 {
		e.Action = action
	}
	return e, nil
}

// unfollowedPrefixes are how Write begins the JSON of entries whose call is under way, or whose end is published.
var unfollowedPrefixes = [][]byte{
	fmt.Appendf(nil, `{"v":%d,"state":%q,`, FormatVersion, StateCalled),
	fmt.Appendf(nil, `{"v":%d,"state":%q,"published":true,`, FormatVersion, StateFinal),
}

// Settled reports whether a record's first bytes already show that there is nothing to follow or to publish. That holds
// for half of all records, and decoding an entry costs as much as its write. For any other record use DecodeEntry.
func Settled(rec Record) bool {
	return slices.ContainsFunc(unfollowedPrefixes, func(prefix []byte) bool { return bytes.HasPrefix(rec.Value, prefix) })
}

// Save writes e if the key is still at the revision that e was read at, and sets e's new revision.
func Save(ctx context.Context, l Ledger, key string, e *Entry, ttl time.Duration) error {
	w, err := e.Write(key, ttl)
	if err != nil {
		return err
	}
	rev, err := l.Save(ctx, w)
	return e.Wrote(Saved{rev, err})
}

// Write returns the compare-and-swap that stores the entry as it is now.
func (e *Entry) Write(key string, ttl time.Duration) (Write, error) {
	e.Version, e.Nonce = FormatVersion, Nonce()
	value, err := message.EncodeJSON(e)
	if err != nil {
		return Write{}, fmt.Errorf("encode ledger entry: %w", err)
	}
	if e.Action != nil {
		value = append(append(value, '\n'), e.Action...)
	}
	return Write{key, value, e.Revision, ttl}, nil
}

// Wrote applies the outcome of Write.
func (e *Entry) Wrote(s Saved) error {
	if s.Err != nil {
		return fmt.Errorf("write the ledger: %w", s.Err)
	}
	e.Revision = s.Revision
	return nil
}
