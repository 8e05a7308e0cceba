package broker

import (
	"bytes"
	"context"
	"encoding/json"

	"example.com/unrestrict-worker/internal/broker/stream"
	"example.com/unrestrict-worker/internal/ledger"
	"example.com/unrestrict-worker/internal/remediation"
)

// Ledger is remediation's Ledger and Feed on the bucket UNRESTRICT_LEDGER.
type Ledger struct {
	*stream.Bucket
	b *Broker
}

var (
	_ ledger.Ledger    = (*Ledger)(nil)
	_ remediation.Feed = (*Ledger)(nil)
)

// NewLedger is the ledger of the deployment whose request stream is the Broker's. While the bucket does not exist, its methods
// fail with an error that is IsMissing.
func (b *Broker) NewLedger() *Ledger { return &Ledger{b.ledger, b} }

// Entries implements remediation.Feed.
func (l *Ledger) Entries(ctx context.Context, synced func(), fn func(string, ledger.Record)) error {
	return l.Watch(ctx, []string{ledger.EntryKeys(l.b.cfg.Names.Stream)}, synced, fn)
}

// Search calls fn for each present entry, perhaps twice for one that is written meanwhile.
func (l *Ledger) Search(ctx context.Context, fn func(ledger.Entry)) error {
	return l.SearchFor(ctx, nil, fn)
}

// SearchFor is Search for the entries whose JSON contains a text, in upper or lower case. It decodes only these, because to
// decode tens of thousands takes seconds. If the text has characters that JSON escapes, all entries match.
func (l *Ledger) SearchFor(ctx context.Context, text []byte, fn func(ledger.Entry)) error {
	if quoted, err := json.Marshal(string(text)); err != nil || len(quoted) != len(text)+2 {
		text = nil
	}
	text = bytes.ToLower(text)
	p := part{subject: l.Subject(ledger.EntryKeys(l.b.cfg.Names.Stream)), bucket: true, most: manyMessages}
	for m, err := range l.b.scan(ctx, "KV_"+LedgerBucket, p) {
		if err != nil {
			return err
		}
		if !bytes.Contains(bytes.ToLower(m.Data), text) {
			continue
		}
		// An entry that can't be decoded is skipped.
		if e, err := ledger.DecodeEntry(stream.Record(m)); err == nil && e.State != "" {
			fn(e)
		}
	}
	return nil
}
