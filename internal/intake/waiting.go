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

// waiting knows where in the request stream a client's request is that no worker has taken yet, whichever intake has put it there.
// It reads each message once, when somebody asks, and keeps digests alone; who is found is read again.
type waiting struct {
	seed  maphash.Seed
	asked atomic.Uint64

	mu      sync.Mutex
	served  uint64 // the last asked that a look covered
	next    uint64 // sequence to read on at
	entries int
	at      map[uint64][]uint64 // sequences by the digest of an entry's key
}

func newWaiting() *waiting {
	return &waiting{seed: maphash.MakeSeed(), next: 1, at: map[uint64][]uint64{}}
}

// spare is how many messages more than the stream has are known of before all is read anew.
const spare = 10_000

// look reads on to the present. One look serves all who had asked when it began.
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
		w.forget() // some may have been read, and are read again
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

// of are the sequences at which a request of the key may be, the latest last.
func (w *waiting) of(key string) []uint64 {
	w.mu.Lock()
	defer w.mu.Unlock()
	return append([]uint64(nil), w.at[maphash.String(w.seed, key)]...)
}

// keyOf is the ledger's key of a message's request as it calls itself: whether it may is not looked at, which takes long. "": it
// is no client's.
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
