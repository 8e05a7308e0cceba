package remediation_test

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing/synctest"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"example.com/unrestrict-worker/internal/ledger"
	"example.com/unrestrict-worker/internal/message"
)

// refresh reads what was published since.
func (w *world) refresh() {
	w.t.Helper()
	w.nextTold = w.read(w.results, w.nextTold, func(m *jetstream.RawStreamMsg) {
		var r message.Result
		w.must(json.Unmarshal(m.Data, &r))
		id := m.Header.Get("Nats-Msg-Id")
		if r.Owner = cmp.Or(r.SignedBy, r.Client); id != r.MessageID() {
			r.Owner = ""
		}
		if !strings.HasPrefix(id, r.MessageID()) {
			w.t.Errorf("the result %s has the message id %s", r.MessageID(), id)
		}
		w.told = append(w.told, r)
	})
	w.nextDead = w.read(w.letterbox, w.nextDead, func(m *jetstream.RawStreamMsg) {
		w.letters = append(w.letters, letter{m.Sequence, message.Header(m.Header), m.Data})
	})
}

func (w *world) read(s jetstream.Stream, from uint64, fn func(*jetstream.RawStreamMsg)) (last uint64) {
	w.t.Helper()
	info, err := s.Info(w.ctx)
	w.must(err)
	for seq := from + 1; seq <= info.State.LastSeq; seq++ {
		m, err := s.GetMsg(w.ctx, seq)
		if errors.Is(err, jetstream.ErrMsgNotFound) {
			continue
		}
		w.must(err)
		fn(m)
	}
	return info.State.LastSeq
}

// resultsOf are those of a request so far, in order.
func (w *world) resultsOf(id string) (all []message.Result) {
	w.t.Helper()
	w.refresh()
	for _, r := range w.told {
		if r.RequestID == id {
			all = append(all, r)
		}
	}
	return all
}

// final is the last final result of a request; ok is false if there is none.
func (w *world) final(id string) (r message.Result, ok bool) {
	w.t.Helper()
	all := w.resultsOf(id)
	for _, a := range slices.Backward(all) {
		if a.Final {
			return a, true
		}
	}
	return r, false
}

// ends waits for the final result of a request.
func (w *world) ends(id string) {
	w.t.Helper()
	w.until("the end of "+id, time.Minute, func() bool { _, ok := w.final(id); return ok })
}

// wantFinal compares the final result's outcome, and its error code where there is one: "rejected expired".
func (w *world) wantFinal(id, want string) message.Result {
	w.t.Helper()
	r, ok := w.final(id)
	got := r.Outcome
	if r.Error != nil {
		got += " " + r.Error.Code
	}
	if !ok || got != want {
		w.t.Errorf("request %s ended %q (%v), want %q\n%s", id, got, r.Error, want, w.dump())
	}
	return r
}

// dead are the dead letters of a request so far, those replayed included.
func (w *world) dead(id string) (all []letter) {
	w.t.Helper()
	w.refresh()
	for _, l := range w.letters {
		if l.header.Get(message.HeaderDeadRequestID) == id {
			all = append(all, l)
		}
	}
	return all
}

// whose is the name of a request here: ids belong to signers and clients.
func whose(id, signedBy, client string) string {
	if owner := cmp.Or(signedBy, client); owner != "" {
		return id + " of " + owner
	}
	return id
}

// watch keeps w.ledger as the ledger is, by request.
func (w *world) watch() {
	watch, err := w.ledgerBucket().Watch(w.ctx, ledger.EntryKeys(w.broker.Names().Stream), jetstream.IgnoreDeletes())
	w.must(err)
	w.watched.Go(func() {
		for kv := range watch.Updates() {
			if kv == nil || string(kv.Value()) == garbled {
				continue
			}
			e, err := ledger.DecodeEntry(ledger.Record{Value: w.set.newer.read(kv.Value()), Revision: kv.Revision(), Written: kv.Created()})
			if err != nil {
				w.t.Error(err)
			}
			w.mu.Lock()
			if e.State != "" {
				w.ledger[whose(e.ID, e.SignedBy, e.Client)] = e
			}
			w.mu.Unlock()
		}
	})
}

// ledgerBucket is the ledger, as the nats command has it.
func (w *world) ledgerBucket() jetstream.KeyValue {
	w.t.Helper()
	kv, err := w.broker.JS().KeyValue(w.ctx, "UNRESTRICT_LEDGER")
	w.must(err)
	return kv
}

// forget removes the ledger's keys that begin so, as if they had expired.
func (w *world) forget(prefix string) {
	w.t.Helper()
	keys, err := w.ledgerBucket().Keys(w.ctx)
	w.must(err)
	for _, key := range keys {
		if strings.HasPrefix(key, prefix) {
			w.must(w.ledgerBucket().Delete(w.ctx, key))
		}
	}
}

// entries is the ledger, by request.
func (w *world) entries() map[string]ledger.Entry {
	synctest.Wait() // what was written has been seen
	w.mu.Lock()
	defer w.mu.Unlock()
	return maps.Clone(w.ledger)
}

// entry is one of the requests with that id.
func (w *world) entry(id string) ledger.Entry {
	w.t.Helper()
	return entryOf(w.entries(), id)
}

func entryOf(entries map[string]ledger.Entry, id string) ledger.Entry {
	for _, e := range entries {
		if e.ID == id {
			return e
		}
	}
	return ledger.Entry{}
}

// pending are the sequences of the messages that nobody has acknowledged.
func (w *world) pending() (seqs []uint64) {
	w.t.Helper()
	info, err := w.requests.Info(w.ctx)
	w.must(err)
	for _, p := range w.published {
		if len(seqs) == int(info.State.Msgs) {
			break
		}
		_, err := w.requests.GetMsg(w.ctx, p.seq)
		if errors.Is(err, jetstream.ErrMsgNotFound) {
			continue
		}
		w.must(err)
		seqs = append(seqs, p.seq)
	}
	return seqs
}

// check is the oracle: what must hold of the whole state at any time.
func (w *world) check() {
	w.t.Helper()
	synctest.Wait() // nobody is in the middle of anything: what is read below is one state
	pending := w.pending()
	entries := w.entries()
	w.refresh()
	for _, err := range []error{w.onceEach(), w.finalOnce(), w.ledgerAgrees(entries), w.nothingLost(pending, entries), w.withinLimits(), w.auditAgrees()} {
		if err != nil {
			w.t.Fatalf("%v\n%s", err, w.dump())
		}
	}
}

// onceEach: of each request there is at most one action.
func (w *world) onceEach() error {
	seen := map[string][]string{}
	for _, a := range w.api.Actions() {
		if a.Requestor == analyst || a.Type != "UnrestrictCodeExecution" {
			continue
		}
		seen[a.Comment] = append(seen[a.Comment], a.ID)
		if len(seen[a.Comment]) > max(w.sharing[a.Comment], 1) {
			return fmt.Errorf("several actions for %q: %v", a.Comment, seen[a.Comment])
		}
	}
	return nil
}

const analyst = "analyst@contoso.com" // whose actions no request made

// finalOnce: no run has two final results or two submitted ones.
func (w *world) finalOnce() error {
	seen := map[string]bool{}
	for _, r := range w.told {
		if id := r.MessageID(); seen[id] {
			return fmt.Errorf("the result %s was told twice", id)
		} else {
			seen[id] = true
		}
	}
	return nil
}

// ledgerAgrees: what the ledger says was told, was told so, and nothing else.
func (w *world) ledgerAgrees(entries map[string]ledger.Entry) error {
	for _, e := range entries {
		if e.State == ledger.StateFinal && e.Published {
			i := slices.IndexFunc(w.told, func(r message.Result) bool {
				return whose(r.RequestID, r.SignedBy, r.Client) == whose(e.ID, e.SignedBy, e.Client) && r.Run == e.Run && r.Final
			})
			if i < 0 || w.told[i].Outcome != e.Outcome {
				return fmt.Errorf("the ledger says that %s (run %d) ended %s and that this was told; it was not", e.ID, e.Run, e.Outcome)
			}
			if bad := e.Outcome == message.Rejected || e.Outcome == message.Abandoned; bad && !slices.ContainsFunc(w.letters, func(l letter) bool {
				return l.header.Get(message.HeaderDeadRequestID) == e.ID && l.header.Get(message.HeaderDeadRun) == fmt.Sprint(e.Run)
			}) {
				return fmt.Errorf("%s (run %d) ended %s without a dead letter", e.ID, e.Run, e.Outcome)
			}
		}
	}
	for _, r := range w.told {
		e, known := entries[whose(r.RequestID, r.SignedBy, r.Client)]
		if !known || e.Run != r.Run { // refused without a claim, forgotten, or run again
			continue
		}
		if r.Final && (e.State != ledger.StateFinal || e.Outcome != r.Outcome) {
			return fmt.Errorf("%s was told %s, and the ledger says %s %s", r.MessageID(), r.Outcome, e.State, e.Outcome)
		}
	}
	return nil
}

// nothingLost: each message is pending, or the ledger took it over, or it was answered.
func (w *world) nothingLost(pending []uint64, entries map[string]ledger.Entry) error {
	ended := map[string]bool{}
	for _, r := range w.told {
		ended[r.RequestID] = ended[r.RequestID] || r.Final
	}
	for _, p := range w.published {
		if slices.Contains(pending, p.seq) {
			continue
		}
		// A followed action's end is told by whoever follows, without the message.
		over := false
		for _, e := range entries {
			over = over || e.ID == p.id && (e.State == ledger.StateSubmitted || e.State == ledger.StateFinal && (e.Published || e.Follow) || e.Run > 1)
		}
		if !over && !ended[p.id] && !ended[w.ref(p.seq)] {
			return fmt.Errorf("message %d (%s) was acknowledged and is lost: the ledger says %q", p.seq, p.id, entryOf(entries, p.id).State)
		}
	}
	return nil
}

// withinLimits: the API has seen no window exceeded.
func (w *world) withinLimits() error {
	for _, l := range w.set.limits {
		if n := w.api.MaxInWindow(l.Per); l.Limit > 0 && n > l.Limit {
			return fmt.Errorf("%d calls in a window of %v, of which %d are allowed", n, l.Per, l.Limit)
		}
	}
	return nil
}

// dump is the state for a test that fails.
func (w *world) dump() string {
	var b strings.Builder
	fmt.Fprintf(&b, "at %s\npending: %v\n", time.Now().UTC().Format(time.RFC3339), w.pending())
	for id, e := range w.entries() {
		fmt.Fprintf(&b, "ledger: %s run %d %s %s attempts %d looks %d published %v\n", id, e.Run, e.State, e.Outcome, e.Attempts, e.Looks, e.Published)
	}
	for _, r := range w.told {
		fmt.Fprintf(&b, "result: %s %s %+v\n", r.MessageID(), r.Outcome, r.Error)
	}
	for _, a := range w.api.Actions() {
		fmt.Fprintf(&b, "action: %s %s %q %s %s\n", a.ID, a.Status, a.Comment, a.Requestor, a.Created.Format(time.RFC3339))
	}
	for i, c := range w.api.Calls() {
		if i < 60 {
			fmt.Fprintf(&b, "call: %s %s %s %d\n", c.At.UTC().Format("15:04:05.000"), c.Op, c.Machine, c.Status)
		}
	}
	return b.String()
}
