package intake

import (
	"context"
	"time"

	"example.com/unrestrict-worker/internal/broker"
	"example.com/unrestrict-worker/internal/intake/clients"
	"example.com/unrestrict-worker/internal/ledger"
	"example.com/unrestrict-worker/internal/message"
)

// known is what is stored of a client's request.
type known struct {
	entry  ledger.Entry // its State is "" if the ledger has none
	queued []queued     // its messages that no worker has finished; not filled in if the entry was found
}

// queued is one message of a request in the stream.
type queued struct {
	message.Delivery
	req message.Request
}

func (k known) empty() bool { return k.entry.State == "" && len(k.queued) == 0 }

// ended reports whether its last result is published.
func (k known) ended() bool { return k.entry.State == ledger.StateFinal && k.entry.Published }

// identityOf is a client's request of an id, as the ledger identifies it.
func (s *Server) identityOf(c *clients.Client, id string) message.Request {
	r := message.Request{ID: id, Client: c.Name}
	if s.rules.Signers != nil {
		r.SignedBy = s.rules.Signers.NameOf(c.Signer)
	}
	return r
}

// find looks for a request in the ledger, then in the stream, then in the ledger again: a worker writes the entry
// before it acknowledges the message.
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

// inStream returns the messages of a request in the stream. Each is read as a worker would read it: one of another
// request may look like one of this.
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
