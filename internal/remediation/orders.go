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

// Orders holds the orders about requests, as far as this process has read the control stream. The reader of the stream calls
// Apply for each message in order, and ReadTo when a read has reached the end. Orders decides nothing about a run: it gives
// facts (ordered). Whether a signer may give an order is judged each time the order is looked up, so that the orders of a
// signer who is no longer trusted lose their effect. A nil *Orders has no orders. It is safe for concurrent use.
type Orders struct {
	Rules  message.Rules  // the trusted signers
	Policy *policy.Policy // which signers may give orders about others' requests; nil: none
	// Read reads the stream to its end now, calling Apply and ReadTo; nil: it can't be read on demand.
	Read func(context.Context) error

	mu      sync.Mutex
	lost    string                             // why orders in force are missing; "": none are known to be
	read    time.Time                          // when the last read that reached the stream's end began; zero: never
	pruned  time.Time                          // when ids was last pruned
	ids     map[string][]message.Order         // orders of the last 7 days, by id
	batches map[string][]message.Order         // orders in force, by batch
	seen    map[[sha256.Size / 2]byte]position // by digest of the signed bytes: the message that had them first
	counts  map[string][]time.Time             // by key of a signer who may not operate: when his orders of the last 7 days were stored
	news    chan struct{}                      // closed when the next order is kept
}

// orderIdentity is what distinguishes orders: of those about one id or batch with the same identity, only one is kept.
type orderIdentity struct {
	verb, key, via, signer, client, digest string
	run                                    int
	actions                                bool
	expires                                int64 // for approve and deny
}

func identityOf(o *message.Order) orderIdentity {
	s := orderIdentity{verb: o.Verb, key: o.Key, via: o.Via, signer: o.Signer, client: o.Client, digest: o.Digest, run: o.Run, actions: o.Actions}
	switch o.Verb {
	case message.VerbApprove, message.VerbDeny:
		s.expires = o.ExpiresAt.UnixNano()
	case message.VerbResume: // the last of pause and resume counts
		s.verb = message.VerbPause
	}
	return s
}

// position identifies one message of the control stream, even if the stream is recreated and its sequences begin again.
type position struct {
	sequence uint64
	stored   int64
}

func positionOf(d message.Delivery) position { return position{d.Sequence, d.Published.UnixNano()} }

// OrderLifetime is how long an order about an id is in force: as long as an id is remembered.
const OrderLifetime = message.MaxSignFor

// orderFresh is how long ago the last read of the stream may have begun for a call to be made. An order takes effect 5 s
// after it was stored (docs/messages.md, orders), and a call leaves some time after its last check.
const orderFresh = 5 * time.Second

// maxOrders is how many orders of a signer who may not operate count in any 7 days: a signer who may only ask for releases
// of his own must not be able to fill every replica's memory.
const maxOrders = 50_000

// Codes of an order that changes nothing.
const (
	CodeRepeated = "repeated" // the same signed bytes were stored before
	CodeTooOften = "tooOften" // its signer has given too many orders
)

// Judge parses an order that was applied, and returns why it changes nothing; nil: nothing in the order itself prevents it.
func (o *Orders) Judge(d message.Delivery) (message.Order, *message.Invalid) {
	order, invalid := o.judge(d)
	if order.Key == "" || invalid != nil && invalid.Code != message.CodePolicy {
		return order, invalid
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	if _, is := o.seen[signedDigest(&order, d)]; !is {
		return order, &message.Invalid{Code: CodeTooOften, Message: fmt.Sprintf("signedBy: more than %d orders of %s within 7 days; have it given by one who may operate, or about a batch", maxOrders, order.By), ClaimedID: order.ID}
	}
	return order, invalid
}

// judge is Judge for an order that was not applied yet.
func (o *Orders) judge(d message.Delivery) (message.Order, *message.Invalid) {
	order, invalid := o.Rules.ParseOrder(d)
	if invalid != nil {
		return order, invalid
	}
	o.mu.Lock()
	first, is := o.seen[signedDigest(&order, d)]
	o.mu.Unlock()
	switch _, may := o.means(&order); {
	case is && first != positionOf(d) && order.Key != "":
		return order, &message.Invalid{Code: CodeRepeated, Message: "the same signed bytes came before, and count once; give the order again, with another issuedAt", ClaimedID: order.ID}
	case !may && order.Via != "" && order.Client != "" && order.Client != order.Via:
		return order, &message.Invalid{Code: message.CodePolicy, Message: "client: an order through the intake is about its own client's requests alone", ClaimedID: order.ID}
	case !may && isVerdict(&order):
		return order, &message.Invalid{Code: message.CodePolicy, Message: fmt.Sprintf("signedBy: %s is no approver in the policy; one of the approvers that it names must sign", cmp.Or(order.By, "the sender")), ClaimedID: order.ID}
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

// Apply adds the stream's next message. An invalid order leaves no trace, unless it is signed and only the policy refuses
// it, because the policy may change.
func (o *Orders) Apply(d message.Delivery) {
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
			o.seen = map[[sha256.Size / 2]byte]position{}
		}
		o.seen[signedDigest(&order, d)] = positionOf(d)
	}
	kept, name := &o.batches, order.Batch
	if order.ID != "" {
		if kept, name = &o.ids, order.ID; time.Since(order.Stored) > OrderLifetime {
			return
		}
	}
	if *kept == nil {
		*kept = map[string][]message.Order{}
	}
	s := identityOf(&order)
	switch i := slices.IndexFunc((*kept)[name], func(k message.Order) bool { return identityOf(&k) == s }); {
	case i < 0:
		(*kept)[name] = append((*kept)[name], order)
	case isVerdict(&order), order.Verb == message.VerbCancel && order.Batch != "":
		return // the first counts; but the last cancel of an id does, because it may mean a later run
	default:
		(*kept)[name][i] = order
	}
	if o.news != nil {
		close(o.news)
		o.news = nil
	}
}

// tooMany counts an order of a signer who may not operate, and reports whether it exceeds the limit. It uses the broker's
// times, so that all replicas come to the same result.
func (o *Orders) tooMany(order *message.Order) bool {
	if o.counts == nil {
		o.counts = map[string][]time.Time{}
	}
	times := o.counts[order.Key]
	for len(times) > 0 && order.Stored.Sub(times[0]) > OrderLifetime {
		times = times[1:]
	}
	if len(times) < maxOrders {
		o.counts[order.Key] = append(times, order.Stored)
		return false
	}
	o.counts[order.Key] = times
	return true
}

// ReadTo records that every order stored before began was applied.
func (o *Orders) ReadTo(began time.Time) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.read = began
	if began.Sub(o.pruned) < time.Hour {
		return
	}
	o.pruned = began
	for id, of := range o.ids {
		of = slices.DeleteFunc(of, func(order message.Order) bool { return time.Since(order.Stored) > OrderLifetime })
		if o.ids[id] = of; len(of) == 0 {
			delete(o.ids, id)
		}
	}
}

// SetLost records why orders in force are missing; "": none are. While any are, the orders are out of sync.
func (o *Orders) SetLost(why string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.lost = why
}

// Lost is why orders in force are missing; "": none are known to be.
func (o *Orders) Lost() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.lost
}

// Current reports whether the orders will be in sync until soon from now: every order is applied that was stored more than
// orderFresh before then.
func (o *Orders) Current(soon time.Duration) bool {
	if o == nil {
		return true
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.lost == "" && !o.read.IsZero() && time.Since(o.read) <= orderFresh-soon
}

// Await blocks while the orders are out of sync.
func (o *Orders) Await(ctx context.Context) error {
	for !o.Current(0) {
		if err := sleep(ctx, 200*time.Millisecond); err != nil {
			return err
		}
	}
	return nil
}

// refresh reads the stream, unless that was done a moment ago. If it fails, Current becomes false.
func (o *Orders) refresh(ctx context.Context) {
	if o != nil && o.Read != nil && !o.Current(orderFresh-time.Second/4) {
		_ = o.Read(ctx)
	}
}

// changed returns a channel that is closed when the next order is kept.
func (o *Orders) changed() <-chan struct{} {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.news == nil {
		o.news = make(chan struct{})
	}
	return o.news
}

// exist reports whether there are any orders.
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
