package remediation

import (
	"cmp"
	"context"
	"crypto/sha256"
	"fmt"
	"maps"
	"sync"
	"time"

	"example.com/unrestrict-worker/internal/message"
	"example.com/unrestrict-worker/internal/policy"
)

// Orders is what people have ordered about requests, as far as this process has read the control stream. Whoever reads that
// calls Hear for each message in order, and ReadTo when a look has come to its end. It decides nothing about a run: it gives
// facts (ordered). Whether a signer may order something is judged whenever an order is looked at, so that one who is trusted
// no more orders nothing from then on. A nil *Orders: nobody orders anything. It is safe for concurrent use.
type Orders struct {
	Rules  message.Rules  // whose signatures count
	Policy *policy.Policy // who may order about others' requests; nil: nobody who signs
	// Read reads the stream to its end now, and so calls Hear and ReadTo; nil: somebody else does.
	Read func(context.Context) error

	mu      sync.Mutex
	lost    string                                 // why orders are missing that are in force; "": none are known to be
	read    time.Time                              // when the last look that came to the stream's end began; zero: none has
	pruned  time.Time                              // when ids was pruned
	ids     map[string]map[statement]message.Order // of the last 7 days, by id
	batches map[string]map[statement]message.Order // whatever is in force, by batch
	seen    map[[sha256.Size / 2]byte]spot         // signed bytes, and where they came first
	news    chan struct{}                          // closed at the next order that is kept
}

// statement is what of an order makes it another one: of those that are the same in it one is kept.
type statement struct {
	verb, key, via, signer, client, digest string
	run                                    int
	actions                                bool
	expires                                int64 // of approve and deny
}

// spot is one message of the control stream, and none of a stream that was made anew.
type spot struct {
	sequence uint64
	stored   int64
}

func storedAt(d message.Delivery) spot { return spot{d.Sequence, d.Published.UnixNano()} }

// OrdersFor is how long an order about an id is in force: as long as an id is remembered.
const OrdersFor = message.MaxSignFor

// orderFresh is how long ago a look at the stream may have begun for calls to be made: an order counts from 5 s after it was
// stored (contract §9), and a call leaves some time after it was last asked whether it may.
const orderFresh = 5 * time.Second

// CodeRepeated is of an order whose signed bytes came before.
const CodeRepeated = "repeated"

// Judge says what an order is and why it changes nothing; nil: it may, as far as it goes by itself.
func (o *Orders) Judge(d message.Delivery) (message.Order, *message.Invalid) {
	order, invalid := o.Rules.ParseOrder(d)
	if invalid != nil {
		return order, invalid
	}
	o.mu.Lock()
	first, is := o.seen[signedDigest(&order, d)]
	o.mu.Unlock()
	switch _, may := o.means(&order); {
	case is && first != storedAt(d) && order.Key != "":
		return order, &message.Invalid{Code: CodeRepeated, Message: "the same signed bytes came before, and count once; give the order anew, with another issuedAt", ClaimedID: order.ID}
	case !may && order.Via != "" && order.Client != "" && order.Client != order.Via:
		return order, &message.Invalid{Code: message.CodePolicy, Message: "client: an order through the intake is about its own client's requests alone", ClaimedID: order.ID}
	case !may && isVerdict(&order):
		return order, &message.Invalid{Code: message.CodePolicy, Message: fmt.Sprintf("signedBy: the policy names %s in nobody's approvals; have the name added to by", cmp.Or(order.By, "nobody who signs")), ClaimedID: order.ID}
	case !may:
		return order, &message.Invalid{Code: message.CodePolicy, Message: fmt.Sprintf("signedBy: the policy does not let %s order about others' requests; it needs operate: true", order.By), ClaimedID: order.ID}
	}
	return order, nil
}

func signedDigest(o *message.Order, d message.Delivery) (digest [sha256.Size / 2]byte) {
	sum := sha256.Sum256(append([]byte(o.Key+"\n"), d.Data...))
	copy(digest[:], sum[:])
	return digest
}

// Hear takes over the stream's next message. What nobody vouches for leaves nothing.
func (o *Orders) Hear(d message.Delivery) {
	order, invalid := o.Judge(d)
	if invalid != nil && (invalid.Code != message.CodePolicy || order.Key == "") {
		return
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	if order.Key != "" {
		if o.seen == nil {
			o.seen = map[[sha256.Size / 2]byte]spot{}
		}
		o.seen[signedDigest(&order, d)] = storedAt(d)
	}
	kept, name := &o.batches, order.Batch
	if order.ID != "" {
		if kept, name = &o.ids, order.ID; time.Since(order.Stored) > OrdersFor {
			return
		}
	}
	if *kept == nil {
		*kept = map[string]map[statement]message.Order{}
	}
	of := (*kept)[name]
	if of == nil {
		of = map[statement]message.Order{}
		(*kept)[name] = of
	}
	s := statement{order.Verb, order.Key, order.Via, order.Signer, order.Client, order.Digest, order.Run, order.Actions, 0}
	switch order.Verb {
	case message.VerbCancel: // of a batch the first counts; of an id the last, which may mean a later run
		if _, is := of[s]; is && order.Batch != "" {
			return
		}
	case message.VerbApprove, message.VerbDeny: // the first counts, of those that expire at the same time
		if s.expires = order.ExpiresAt.UnixNano(); of[s].Ref != "" {
			return
		}
	case message.VerbPause, message.VerbResume: // the last of either counts
		s.verb = message.VerbPause
	}
	of[s] = order
	if o.news != nil {
		close(o.news)
		o.news = nil
	}
}

// ReadTo records that everything is heard that was stored before began.
func (o *Orders) ReadTo(began time.Time) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.read = began
	if began.Sub(o.pruned) < time.Hour {
		return
	}
	o.pruned = began
	for id, of := range o.ids {
		maps.DeleteFunc(of, func(_ statement, order message.Order) bool { return time.Since(order.Stored) > OrdersFor })
		if len(of) == 0 {
			delete(o.ids, id)
		}
	}
}

// Lose records why orders are missing that are in force; "": none are. Meanwhile it is not known what was ordered.
func (o *Orders) Lose(why string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.lost = why
}

// Lost is why orders are missing that are in force; "": none are known to be.
func (o *Orders) Lost() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.lost
}

// Current reports whether everything is known that was stored until 5 s before some time that is soon from now.
func (o *Orders) Current(soon time.Duration) bool {
	if o == nil {
		return true
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.lost == "" && !o.read.IsZero() && time.Since(o.read) <= orderFresh-soon
}

// Await blocks while it is not known what was ordered.
func (o *Orders) Await(ctx context.Context) error {
	for !o.Current(0) {
		if err := sleep(ctx, 200*time.Millisecond); err != nil {
			return err
		}
	}
	return nil
}

// refresh reads the stream unless that was done a moment ago. What fails Current tells.
func (o *Orders) refresh(ctx context.Context) {
	if o != nil && o.Read != nil && !o.Current(orderFresh-time.Second/4) {
		_ = o.Read(ctx)
	}
}

// changed is closed at the next order that is kept.
func (o *Orders) changed() <-chan struct{} {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.news == nil {
		o.news = make(chan struct{})
	}
	return o.news
}

// exist reports whether anybody has ordered anything.
func (o *Orders) exist() bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	return len(o.ids)+len(o.batches) > 0
}

// mentions reports whether there is any order about an id or a batch.
func (o *Orders) mentions(id, batch string) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	return len(o.ids[id]) > 0 || batch != "" && len(o.batches[batch]) > 0
}
