package remediation

import (
	"cmp"
	"context"
	"crypto/sha256"
	"fmt"
	"slices"
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
	lost    string                         // why orders are missing that are in force; "": none are known to be
	read    time.Time                      // when the last look that came to the stream's end began; zero: none has
	pruned  time.Time                      // when ids was pruned
	ids     map[string][]message.Order     // of the last 7 days, by id
	batches map[string][]message.Order     // whatever is in force, by batch
	seen    map[[sha256.Size / 2]byte]spot // signed bytes, and where they came first
	counts  map[string][]time.Time         // when the orders of the last 7 days were stored, by the key of who may not operate
	news    chan struct{}                  // closed at the next order that is kept
}

// statement is what of an order makes it another one: of those about one id or batch that are the same in it one is kept.
type statement struct {
	verb, key, via, signer, client, digest string
	run                                    int
	actions                                bool
	expires                                int64 // of approve and deny
}

func statementOf(o *message.Order) statement {
	s := statement{verb: o.Verb, key: o.Key, via: o.Via, signer: o.Signer, client: o.Client, digest: o.Digest, run: o.Run, actions: o.Actions}
	switch o.Verb {
	case message.VerbApprove, message.VerbDeny:
		s.expires = o.ExpiresAt.UnixNano()
	case message.VerbResume: // the last of either counts
		s.verb = message.VerbPause
	}
	return s
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
// stored (docs/messages.md, orders), and a call leaves some time after it was last asked whether it may.
const orderFresh = 5 * time.Second

// ordersMost is how many orders of a signer who may not operate count in any 7 days: what is trusted with requests of its own
// must not fill every replica's memory.
const ordersMost = 50_000

// Codes of an order that changes nothing.
const (
	CodeRepeated = "repeated" // its signed bytes came before
	CodeTooOften = "tooOften" // its signer has given too many
)

// Judge says what an order is that was heard, and why it changes nothing; nil: it may, as far as it goes by itself.
func (o *Orders) Judge(d message.Delivery) (message.Order, *message.Invalid) {
	order, invalid := o.judge(d)
	if order.Key == "" || invalid != nil && invalid.Code != message.CodePolicy {
		return order, invalid
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	if _, is := o.seen[signedDigest(&order, d)]; !is {
		return order, &message.Invalid{Code: CodeTooOften, Message: fmt.Sprintf("signedBy: more than %d orders of %s within 7 days; have it given by one who may operate, or about a batch", ordersMost, order.By), ClaimedID: order.ID}
	}
	return order, invalid
}

// judge is Judge of an order that is not heard yet.
func (o *Orders) judge(d message.Delivery) (message.Order, *message.Invalid) {
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
		return order, &message.Invalid{Code: message.CodePolicy, Message: fmt.Sprintf("signedBy: %s is no approver in the policy; somebody whom it names must sign", cmp.Or(order.By, "whoever sent it")), ClaimedID: order.ID}
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
	order, invalid := o.judge(d)
	if invalid != nil && (invalid.Code != message.CodePolicy || order.Key == "") {
		return
	}
	operates := o.operates(order.Key)
	o.mu.Lock()
	defer o.mu.Unlock()
	if order.Key != "" {
		if !operates && o.tooMany(&order) {
			return
		}
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
		*kept = map[string][]message.Order{}
	}
	s := statementOf(&order)
	switch i := slices.IndexFunc((*kept)[name], func(k message.Order) bool { return statementOf(&k) == s }); {
	case i < 0:
		(*kept)[name] = append((*kept)[name], order)
	case isVerdict(&order), order.Verb == message.VerbCancel && order.Batch != "":
		return // the first counts; of a cancel of an id the last, which may mean a later run
	default:
		(*kept)[name][i] = order
	}
	if o.news != nil {
		close(o.news)
		o.news = nil
	}
}

// tooMany counts an order of a signer who may not operate, unless that is one too many. The times are the broker's, so that all
// replicas come to the same.
func (o *Orders) tooMany(order *message.Order) bool {
	if o.counts == nil {
		o.counts = map[string][]time.Time{}
	}
	times := o.counts[order.Key]
	for len(times) > 0 && order.Stored.Sub(times[0]) > OrdersFor {
		times = times[1:]
	}
	if len(times) < ordersMost {
		o.counts[order.Key] = append(times, order.Stored)
		return false
	}
	o.counts[order.Key] = times
	return true
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
		of = slices.DeleteFunc(of, func(order message.Order) bool { return time.Since(order.Stored) > OrdersFor })
		if o.ids[id] = of; len(of) == 0 {
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
