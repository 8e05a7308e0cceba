package intake

import (
	"context"
	"hash/maphash"
	"sync"
	"sync/atomic"

	"example.com/unrestrict-worker/internal/broker"
	"example.com/unrestrict-worker/internal/ledger"
	"example.com/unrestrict-worker/internal/message"
)

// waiting is an index of the clients' requests in the request stream that no worker has taken yet, whichever intake
// published them. It reads each message once, on demand, and keeps only digests; a match is read again.
type waiting struct {
	seed  maphash.Seed
	asked atomic.Uint64

	mu      sync.Mutex
	served  uint64 // value of asked that the last look covered
	next    uint64 // sequence to continue at
	entries int
	at      map[uint64][]uint64 // sequences by the digest of an entry's key
}

func newWaiting() *waiting {
	return &waiting{seed: maphash.MakeSeed(), next: 1, at: map[uint64][]uint64{}}
}

// spare is by how many the known messages may exceed those in the stream before all are read anew.
const spare = 10_000

// look reads on to the present. One look serves all calls that came before it began.
func (w *waiting) look(ctx context.Context, conn *broker.Broker, key func(message.Delivery) string) error {
	asked := w.asked.Add(1)
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.served >= asked {
		return nil
	}
	covers := w.asked.Load()
	arrived, err := conn.Arrivals(ctx, w.next, func(d message.Delivery) {
		if k := key(d); k != "" {
			digest := maphash.String(w.seed, k)
			w.at[digest] = append(w.at[digest], d.Sequence)
			w.entries++
		}
	})
	if err != nil {
		w.forget() // some may have been read, and will be read again
		return err
	}
	if arrived.Next < w.next || w.entries > int(arrived.Messages)+spare { // #nosec G115 -- a stream has no 2^63 messages
		w.forget()
		arrived.Next = 1
	}
	if w.next = arrived.Next; w.next > 1 {
		w.served = covers
	}
	return nil
}

func (w *waiting) forget() {
	clear(w.at)
	w.next, w.entries = 1, 0
}

// of returns the sequences that may have a request of the key, the latest last.
func (w *waiting) of(key string) []uint64 {
	w.mu.Lock()
	defer w.mu.Unlock()
	return append([]uint64(nil), w.at[maphash.String(w.seed, key)]...)
}

// keyOf is the ledger's key of the request that a message claims to be. The signature is not verified, which takes
// long. "": the message is no client's.
func (s *Server) keyOf(d message.Delivery) string {
	named := s.rules
	named.Signers = nil
	r, invalid := named.Parse(d)
	if invalid != nil || r.Derived {
		return ""
	}
	r.SignedBy = s.rules.Signers.NameOf(d.Header.Get(message.HeaderSigner))
	if r.Owner() == "" {
		return ""
	}
	return ledger.EntryKey(s.rules.Stream, r, d.Published)
}
