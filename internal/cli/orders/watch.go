package orders

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"
	"time"

	"example.com/unrestrict-worker/internal/broker"
	"example.com/unrestrict-worker/internal/ledger"
	"example.com/unrestrict-worker/internal/message"
	"example.com/unrestrict-worker/internal/service"
)

// watch follows requests that were ordered to be cancelled.
type watch struct {
	conn     *broker.Broker
	signedBy string // "": anybody's
	actions  bool

	queued  map[string][]service.Queued // messages that are not acknowledged, by id
	entries map[string][]ledger.Entry   // by id
	clients map[string]map[string]bool  // of each id
}

// begin reads the state before anything is ordered.
func (w *watch) begin(ctx context.Context, ids []string) error {
	w.queued, w.entries, w.clients = map[string][]service.Queued{}, map[string][]ledger.Entry{}, map[string]map[string]bool{}
	name := ""
	if len(ids) == 1 {
		name = ids[0]
	}
	queued, err := service.ReadQueue(ctx, w.conn, name, func(q service.Queued) bool { return slices.Contains(ids, q.Req.ID) })
	if err != nil {
		return err
	}
	note := func(id, client string) {
		if w.clients[id] == nil {
			w.clients[id] = map[string]bool{}
		}
		w.clients[id][client] = true
	}
	for _, q := range queued {
		w.queued[q.Req.ID] = append(w.queued[q.Req.ID], q)
		note(q.Req.ID, q.Header.Get(message.HeaderClient))
	}
	for _, id := range ids {
		if err := w.read(ctx, id); err != nil {
			return err
		}
		for _, e := range w.entries[id] {
			if e.SignedBy == "" {
				note(id, e.Client)
			}
		}
	}
	return nil
}

// isClient reports whether the name is that of a client with a request of this id.
func (w *watch) isClient(id, name string) bool { return name != "" && w.clients[id][name] }

// read reads the entries of an id, of every owner unless signedBy names one.
func (w *watch) read(ctx context.Context, id string) error {
	r, published := message.Request{ID: id}, time.Time{}
	if q := w.queued[id]; len(q) > 0 && q[0].Req.Derived {
		r.Derived, published = true, q[0].Time
	}
	key := ledger.IDKey(w.conn.Names().Stream, r, published)
	records, err := ledger.LoadOwners(ctx, w.conn.NewLedger(), key)
	if broker.IsMissing(err) {
		return nil
	}
	if err != nil {
		return err
	}
	w.entries[id] = nil
	for _, key := range slices.Sorted(maps.Keys(records)) {
		e, err := ledger.DecodeEntry(records[key])
		if err != nil {
			return err
		}
		if e.State != "" && (w.signedBy == "" || cmp.Or(e.SignedBy, e.Client) == w.signedBy) {
			w.entries[id] = append(w.entries[id], e)
		}
	}
	return nil
}

// outcomes returns what has become of an id by now, one for each owner.
func (w *watch) outcomes(id string) (all []outcome) {
	for _, e := range w.entries[id] {
		f := w.outcomeOf(&e)
		if w.isReplayed(&e) {
			f.Result, f.Why = ordered, "a replay of it waits in its stream"
		}
		all = append(all, f)
	}
	switch {
	case len(all) > 0:
	case len(w.queued[id]) > 0:
		all = append(all, outcome{ID: id, Result: ordered, Why: "it waits in its stream"})
	default:
		all = append(all, outcome{ID: id, Result: unknown, Why: "no request of this id is known; the order counts for one that comes within 7 days"})
	}
	return all
}

// isReplayed reports whether a replay of a run that has ended waits in the stream.
func (w *watch) isReplayed(e *ledger.Entry) bool {
	return e.State == ledger.StateFinal && slices.ContainsFunc(w.queued[e.ID], func(q service.Queued) bool {
		mine := q.Header.Get(message.HeaderSigner) == e.Signer
		if e.SignedBy == "" {
			mine = q.Header.Get(message.HeaderClient) == e.Client
		}
		return q.Replay > 0 && q.Replay != e.ReplayOf && mine
	})
}

func (w *watch) outcomeOf(e *ledger.Entry) outcome {
	f := outcome{ID: e.ID, Whose: cmp.Or(e.SignedBy, e.Client), Result: ordered}
	switch e.State {
	case ledger.StateFinal:
		f.Result, f.Why = tooLate, "it has ended, "+e.Outcome
		if e.Outcome == message.Cancelled && e.ActionID == "" {
			f.Result, f.Why = cancelled, ""
		}
	case ledger.StateSubmitted:
		switch {
		case !w.actions:
			f.Result, f.Why = tooLate, "its call was accepted; --actions asks the API to cancel the action"
		case e.Adopted:
			f.Result, f.Why = refused, "its action was under way before the request: it belongs to somebody else, and is never cancelled"
		case e.Cancel != nil && e.Cancel.Asked > 0:
			f.Result, f.Why = asked, "the API was asked to cancel action "+e.ActionID+"; how that ends its result says"
		default:
			f.Why = "its action is to be cancelled as soon as a call is free"
		}
	case ledger.StateCalled, ledger.StateUnknown:
		f.Why = "its call may be under way: it is found out first"
	default:
		f.Why = "it is not called yet"
	}
	return f
}

// await polls until every order has a result, or Within has passed.
func (w *watch) await(ctx context.Context, issuer *Issuer, orders map[string]string) ([]outcome, error) {
	names := map[string]bool{}
	for _, ref := range orders {
		names[ref] = true
	}
	var recorded map[string]ledger.AuditRecord
	for deadline := time.Now().Add(Within(len(orders))); ; {
		var all []outcome
		open := 0
		for _, id := range slices.Sorted(maps.Keys(orders)) {
			if err := w.read(ctx, id); err != nil {
				return nil, err
			}
			record, isRecorded := recorded[orders[id]]
			for _, f := range w.outcomes(id) {
				switch {
				case f.Result == ordered && isRecorded && record.Error != nil:
					f.Result, f.Why = refused, record.Error.Message
				case f.Result == ordered:
					open++
				}
				all = append(all, f)
			}
		}
		if open == 0 || time.Now().After(deadline) {
			return w.undecided(all, orders, recorded), nil
		}
		if !service.Pause(ctx, 500*time.Millisecond) {
			return nil, context.Cause(ctx)
		}
		recorded = issuer.Recorded(ctx, names)
	}
}

// undecided explains why an order has no result yet. If a worker has recorded it, and the request is somebody else's, the order
// will never end that request.
func (w *watch) undecided(all []outcome, orders map[string]string, recorded map[string]ledger.AuditRecord) []outcome {
	for i, f := range all {
		if f.Result != ordered {
			continue
		}
		record, is := recorded[orders[f.ID]]
		signer := record.SignedBy
		switch e := w.entries[f.ID]; {
		case is && signer != "" && f.Whose != "" && f.Whose != signer:
			all[i].Result, all[i].Why = refused, fmt.Sprintf("it is %s's, and the policy does not let %s order about others' requests; it needs operate: true", f.Whose, signer)
		case !is && len(e) == 0:
			all[i].Why += "; no worker has read the order yet; it takes effect as soon as one runs"
		}
	}
	return all
}
