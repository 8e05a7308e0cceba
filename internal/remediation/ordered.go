package remediation

import (
	"cmp"
	"slices"
	"time"

	"example.com/unrestrict-worker/internal/ledger"
	"example.com/unrestrict-worker/internal/message"
)

// target is a run that orders may be about.
type target struct {
	id, batch, signer, client string
	run                       int
	asked                     time.Time // when the run was asked for
}

func targetOf(e *ledger.Entry) target {
	return target{e.ID, e.Batch, e.SignedBy, e.Client, e.Run, e.ReceivedAt.Add(-time.Duration(e.Stages.Queue))}
}

// ordered holds the orders about a run.
type ordered struct {
	cancel *ledger.Cancel // nil: it is not cancelled
	held   *message.Order // the pause of its batch; nil: none is in force
}

// about returns the orders about a run, as of the last read of the stream.
func (o *Orders) about(t target) (all ordered) {
	if o == nil {
		return all
	}
	o.mu.Lock()
	orders := slices.Clone(o.ids[t.id])
	if t.batch != "" {
		orders = append(orders, o.batches[t.batch]...)
	}
	o.mu.Unlock()
	if len(orders) == 0 { // the usual case
		return all
	}
	slices.SortFunc(orders, func(a, b message.Order) int { return cmp.Or(a.Stored.Compare(b.Stored), cmp.Compare(a.Ref, b.Ref)) })
	var pauseOfAll, pauseOfOwner *message.Order
	for i := range orders {
		order := &orders[i]
		whose, may := o.means(order)
		if !may || !whose.has(t) || order.ID != "" && !meansRun(order, t) {
			continue
		}
		switch order.Verb {
		case message.VerbCancel:
			all.cancel = cancelled(all.cancel, order)
		case message.VerbPause:
			if whose == (owner{}) {
				pauseOfAll = order
			} else {
				pauseOfOwner = order
			}
		case message.VerbResume:
			if whose == (owner{}) {
				pauseOfAll = nil
			}
			pauseOfOwner = nil
		}
	}
	all.held = cmp.Or(pauseOfAll, pauseOfOwner)
	return all
}

// BatchOrders holds the orders in force about a batch, of any owner.
type BatchOrders struct{ Cancelled, Paused *message.Order }

// Batch returns the orders in force about a batch.
func (o *Orders) Batch(name string) (b BatchOrders) {
	o.mu.Lock()
	owners := map[owner]bool{{}: true}
	for _, order := range o.batches[name] {
		whose, _ := o.means(&order)
		owners[whose] = true
	}
	o.mu.Unlock()
	for whose := range owners {
		all := o.about(target{batch: name, signer: whose.signer, client: whose.client, run: 1})
		if b.Paused = cmp.Or(b.Paused, all.held); all.cancel != nil {
			b.Cancelled = cmp.Or(b.Cancelled, &message.Order{Verb: message.VerbCancel, Batch: name, By: all.cancel.By, Reason: all.cancel.Reason, Ref: all.cancel.Order, Stored: all.cancel.At})
		}
	}
	return b
}

// cancelled merges one more order into the cancellation of a run: the first order counts.
func cancelled(first *ledger.Cancel, order *message.Order) *ledger.Cancel {
	if first == nil {
		first = &ledger.Cancel{By: cmp.Or(order.By, order.Via), At: order.Stored.UTC(), Reason: order.Reason, Order: order.Ref, Batch: order.Batch}
	}
	first.Actions = first.Actions || order.Actions
	return first
}

// meansRun reports whether an order about an id applies to a run: the run that it names, otherwise the one that was open, or
// the first if there was none yet.
func meansRun(order *message.Order, t target) bool {
	switch {
	case time.Since(order.Stored) > OrderLifetime:
		return false
	case order.Run != 0:
		return order.Run == t.run
	}
	return t.run == 1 || !order.Stored.Before(t.asked)
}

// owner is whose requests an order is about; "" is any.
type owner struct{ signer, client string }

func (w owner) has(t target) bool {
	return (w.signer == "" || w.signer == t.signer) && (w.client == "" || w.client == t.client)
}

// means returns whose requests an order is about; may is false if its sender must not give it.
func (o *Orders) means(order *message.Order) (whose owner, may bool) {
	whose = owner{order.Signer, order.Client}
	if order.Via != "" {
		if whose.client != "" && whose.client != order.Via {
			return whose, false
		}
		whose.client = order.Via
	}
	if o.Rules.Signers == nil { // without signatures an approval counts for nothing
		return whose, !isVerdict(order)
	}
	name := o.Rules.Signers.NameOf(order.Key)
	if name == "" {
		return whose, false
	}
	if isVerdict(order) {
		return whose, o.Policy.Approver(name)
	}
	if o.operates(order.Key) {
		return whose, true
	}
	if whose.signer != "" && whose.signer != name {
		return whose, false
	}
	whose.signer = name
	return whose, true
}

// operates reports whether the policy allows a key's signer to give orders about others' requests.
func (o *Orders) operates(key string) bool {
	name := o.Rules.Signers.NameOf(key)
	if name == "" || o.Policy == nil {
		return false
	}
	_, rule := o.Policy.Rule(name, key)
	return rule != nil && rule.Operate
}
