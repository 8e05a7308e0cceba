package intake

import (
	"context"
	"time"

	"example.com/unrestrict-worker/internal/broker"
	"example.com/unrestrict-worker/internal/intake/clients"
	"example.com/unrestrict-worker/internal/ledger"
	"example.com/unrestrict-worker/internal/message"
)

// known is what there is of a client's request.
type known struct {
	entry  ledger.Entry // its State is "" where the ledger has none
	queued []queued     // messages of it that the worker is not done with, as far as they were looked for
}

// queued is a message of it.
type queued struct {
	message.Delivery
	req message.Request
}

func (k known) nothing() bool { return k.entry.State == "" && len(k.queued) == 0 }

// ended reports whether its last result is published.
func (k known) ended() bool { return k.entry.State == ledger.StateFinal && k.entry.Published }

// as is how the ledger knows a client's request of an id.
func (s *Server) as(c *clients.Client, id string) message.Request {
	r := message.Request{ID: id, Client: c.Name}
	if s.rules.Signers != nil {
		r.SignedBy = s.rules.Signers.NameOf(c.Signer)
	}
	return r
}

// find looks for a request in the ledger, then in the stream, and once more in the ledger: a worker writes there before it
// acknowledges.
func (s *Server) find(ctx context.Context, conn *broker.Broker, r message.Request) (known, error) {
	key := ledger.EntryKey(s.rules.Stream, r, time.Time{})
	k, err := entry(ctx, conn, key)
	if err != nil || k.entry.State != "" {
		return k, err
	}
	if k.queued, err = s.inStream(ctx, conn, key); err != nil || len(k.queued) > 0 {
		return k, err
	}
	return entry(ctx, conn, key)
}

func entry(ctx context.Context, conn *broker.Broker, key string) (known, error) {
	e, err := ledger.Load(ctx, conn.NewLedger(), key)
	if broker.IsMissing(err) {
		return known{}, nil
	}
	return known{entry: e}, err
}

// inStream are the messages of a request that wait. Each is read as a worker would: another may only look like one of it.
func (s *Server) inStream(ctx context.Context, conn *broker.Broker, key string) (list []queued, err error) {
	if err = s.waiting.look(ctx, conn, s.keyOf); broker.IsMissing(err) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	for _, sequence := range s.waiting.of(key) {
		d, there, err := conn.Arrival(ctx, sequence)
		if err != nil {
			return nil, err
		}
		if !there {
			continue
		}
		if r, invalid := s.rules.Parse(d); invalid == nil && ledger.EntryKey(s.rules.Stream, r, d.Published) == key {
			list = append(list, queued{d, r})
		}
	}
	return list, nil
}
