package broker

import (
	"context"
	"fmt"
	"time"

	"github.com/nats-io/nats.go/jetstream"
)

// Room lists the streams, and the account, that are full or nearly full, so that the broker refuses messages now or soon. It
// leaves out streams that discard their oldest messages at the limit.
func (b *Broker) Room(ctx context.Context) (full, nearly []string, err error) {
	add := func(what string, used, limit uint64, unit string) {
		text := fmt.Sprintf("%s has %d of %d %s", what, used, limit, unit)
		switch {
		case used >= limit:
			full = append(full, text+": the broker refuses more")
		case used*100 >= limit*nearlyFull:
			nearly = append(nearly, text)
		}
	}
	asking, cancel := context.WithTimeout(ctx, time.Second) // without that permission there is no reply: the result then has only streams
	defer cancel()
	if account, err := b.js.AccountInfo(asking); err == nil && account.Limits.MaxStore > 0 {
		add("the account", account.Store, uint64(account.Limits.MaxStore), "bytes")
	}
	n := b.cfg.Names
	for _, name := range []string{n.Stream, n.ResultsStream, n.DeadletterStream, AuditStream, "KV_" + LedgerBucket, "KV_" + StateBucket} {
		s, err := b.js.Stream(ctx, name)
		if IsMissing(err) {
			continue
		}
		if err != nil {
			return nil, nil, fmt.Errorf("stream %s: %w", name, err)
		}
		info := s.CachedInfo()
		if info.Config.Discard != jetstream.DiscardNew {
			continue
		}
		if most := info.Config.MaxMsgs; most > 0 {
			add("the stream "+name, info.State.Msgs, uint64(most), "messages")
		}
		if most := info.Config.MaxBytes; most > 0 {
			add("the stream "+name, info.State.Bytes, uint64(most), "bytes")
		}
	}
	return full, nearly, nil
}
