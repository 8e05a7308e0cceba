package crash_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"example.com/unrestrict-worker/internal/broker"
	"example.com/unrestrict-worker/internal/broker/trail"
	"example.com/unrestrict-worker/internal/defender/defendersim"
	"example.com/unrestrict-worker/internal/ledger"
	"example.com/unrestrict-worker/internal/message"
)

// oracle checks the whole state.
type oracle struct {
	world   *world
	asked   map[string]*request
	results map[string][]message.Result // by request id
	read    uint64                      // last sequence of the results that was read
}

// finish waits until everything asked for has ended, as long as there is progress, and then checks the state.
func (o *oracle) finish() {
	t := o.world.t
	t.Helper()
	const stuck = 3 * time.Minute
	for fewest, read, since := math.MaxInt, uint64(0), time.Now(); ; time.Sleep(50 * time.Millisecond) {
		missing, err := o.missing()
		if err == nil && len(missing) == 0 {
			break
		}
		if err != nil {
			missing = []string{err.Error()}
		} else if len(missing) < fewest {
			fewest, since = len(missing), time.Now()
		}
		if o.read > read {
			read, since = o.read, time.Now()
		}
		if time.Since(since) > stuck {
			id, _, _ := strings.Cut(missing[0], " ")
			t.Fatalf("for %v %d are missing: %s\n%s", stuck, len(missing), strings.Join(missing[:min(len(missing), 20)], "; "), o.world.logs(id, 60))
		}
	}
	for _, err := range []error{o.actionsOnce(), o.resultsOnce(), o.deadLettersAgree(), o.ledgerAgrees(), o.auditAgrees()} {
		if err != nil {
			t.Errorf("%v", err)
		}
	}
}

// missing is what must still happen.
func (o *oracle) missing() (what []string, err error) {
	ctx, cancel := context.WithTimeout(o.world.t.Context(), time.Minute)
	defer cancel()
	if err := o.readResults(ctx); err != nil {
		return nil, err
	}
	for id := range o.asked {
		if _, ok := o.final(id); !ok {
			what = append(what, id+" has no final result")
		}
	}
	if len(what) > 0 {
		slices.Sort(what)
		return what, nil
	}
	entries, err := o.entries(ctx)
	if err != nil {
		return nil, err
	}
	for _, e := range entries {
		if e.State != ledger.StateFinal || !e.Published {
			what = append(what, fmt.Sprintf("%s is %s in the ledger (published: %v)", e.ID, e.State, e.Published))
		}
	}
	s, err := o.world.own.JS().Stream(ctx, o.world.own.Names().Stream)
	if err != nil {
		return nil, err
	}
	if n := s.CachedInfo().State.Msgs; n > 0 {
		what = append(what, fmt.Sprintf("(queue) has %d unacknowledged requests", n))
	}
	return what, nil
}

func (o *oracle) readResults(ctx context.Context) error {
	return o.messages(ctx, o.world.own.Names().ResultsStream, &o.read, func(m *jetstream.RawStreamMsg) error {
		var r message.Result
		if err := json.Unmarshal(m.Data, &r); err != nil {
			return err
		}
		if o.results == nil {
			o.results = map[string][]message.Result{}
		}
		o.results[r.RequestID] = append(o.results[r.RequestID], r)
		return nil
	})
}

// messages reads on in a stream.
func (o *oracle) messages(ctx context.Context, stream string, last *uint64, fn func(*jetstream.RawStreamMsg) error) error {
	s, err := o.world.own.JS().Stream(ctx, stream)
	if err != nil {
		return err
	}
	for end := s.CachedInfo().State.LastSeq; *last < end; *last++ {
		m, err := s.GetMsg(ctx, *last+1)
		for errors.Is(err, jetstream.ErrMsgNotFound) {
			// A replica that lags may answer so: only the leader knows whether the message is gone.
			var gone bool
			if gone, err = o.gone(ctx, stream, *last+1); gone || err != nil {
				break
			}
			m, err = s.GetMsg(ctx, *last+1)
		}
		if err != nil {
			return err
		}
		if m == nil {
			continue
		}
		if err := fn(m); err != nil {
			return err
		}
	}
	return nil
}

func (o *oracle) gone(ctx context.Context, stream string, seq uint64) (bool, error) {
	reply, err := o.world.own.Conn().RequestWithContext(ctx, "$JS.API.STREAM.MSG.GET."+stream, fmt.Appendf(nil, `{"seq":%d}`, seq))
	if err != nil {
		return false, err
	}
	return strings.Contains(string(reply.Data), `"err_code":10037`), nil // [nats-server errors.json] no message found
}

func (o *oracle) final(id string) (message.Result, bool) {
	i := slices.IndexFunc(o.results[id], func(r message.Result) bool { return r.Final })
	if i < 0 {
		return message.Result{}, false
	}
	return o.results[id][i], true
}

// actionsOnce: at most one action for each request, and exactly the one that its result shows.
func (o *oracle) actionsOnce() error {
	made := map[string]defendersim.Action{}
	for _, a := range o.world.api.Actions() {
		if other, twice := made[a.Comment]; twice {
			return fmt.Errorf("two actions for %q: %s at %s and %s at %s\n%s", a.Comment, other.ID, other.Created, a.ID, a.Created,
				o.world.logs(strings.TrimPrefix(a.Comment, "crash "), 80))
		}
		made[a.Comment] = a
	}
	for id, r := range o.asked {
		f, _ := o.final(id)
		var shown struct{ ID, MachineID, RequestorComment string }
		if f.MachineAction != nil {
			if err := json.Unmarshal(f.MachineAction, &shown); err != nil {
				return err
			}
		}
		own, called := made[r.comment]
		switch {
		case f.Outcome == message.Rejected && r.comment != "" && (called || shown.ID != ""):
			return fmt.Errorf("%s was rejected and has an action\n%s", id, o.world.logs(id, 40))
		case f.Outcome == message.Rejected:
		case shown.MachineID != r.machine:
			return fmt.Errorf("%s is for machine %s and its result shows an action of %s", id, r.machine, shown.MachineID)
		case f.Adopted == called || f.Adopted == (shown.RequestorComment == r.comment):
			return fmt.Errorf("%s: adopted %v, own action %q, shown %q\n%s", id, f.Adopted, own.ID, shown.ID, o.world.logs(id, 40))
		}
	}
	return nil
}

// resultsOnce: one final result, the one expected; at most one before it; and none for what nobody asked.
func (o *oracle) resultsOnce() error {
	for id, all := range o.results {
		r := o.asked[id]
		if r == nil {
			return fmt.Errorf("a result for %s, which nobody asked for: %+v", id, all)
		}
		var final, submitted int
		for _, one := range all {
			if one.Final {
				final++
			} else {
				submitted++
			}
		}
		f, _ := o.final(id)
		followed := f.Outcome != message.Rejected && f.Outcome != message.Submitted
		// A replica that died between the acceptance and its result leaves the rest to the tracker, which publishes only the end.
		lost := followed && submitted == 0 && o.world.deaths.Load() == 0
		if final != 1 || submitted > 1 || !followed && submitted > 0 || lost || f.Outcome != r.want || f.Run != 1 {
			return fmt.Errorf("%s, of which %q is expected, has these results: %v\n%s", id, r.want, outcomes(all), o.world.logs(id, 60))
		}
	}
	return nil
}

func outcomes(all []message.Result) (words []string) {
	for _, r := range all {
		words = append(words, fmt.Sprintf("run %d %s %+v %s", r.Run, r.Outcome, r.Error, r.FinishedAt))
	}
	return words
}

// deadLettersAgree: exactly one for what was rejected, with its bytes.
func (o *oracle) deadLettersAgree() error {
	ctx, cancel := context.WithTimeout(o.world.t.Context(), time.Minute)
	defer cancel()
	seen := map[string]bool{}
	var from uint64
	err := o.messages(ctx, o.world.own.Names().DeadletterStream, &from, func(m *jetstream.RawStreamMsg) error {
		id := m.Header.Get(message.HeaderDeadRequestID)
		r := o.asked[id]
		if r == nil || seen[id] || r.want != message.Rejected || !bytes.Equal(m.Data, r.payload) {
			return fmt.Errorf("dead letter of %q (seen before: %v): %s\n%s", id, seen[id], m.Data, o.world.logs(id, 40))
		}
		seen[id] = true
		return nil
	})
	for id, r := range o.asked {
		if r.want == message.Rejected && !seen[id] {
			err = errors.Join(err, fmt.Errorf("%s was rejected without a dead letter", id))
		}
	}
	return err
}

// ledgerAgrees: the entry of each request agrees with its result.
func (o *oracle) ledgerAgrees() error {
	ctx, cancel := context.WithTimeout(o.world.t.Context(), time.Minute)
	defer cancel()
	entries, err := o.entries(ctx)
	if err != nil {
		return err
	}
	for id, r := range o.asked {
		e, known := entries[id]
		if r.comment == "" { // malformed: it has no claim on anything
			if known {
				return fmt.Errorf("%s is malformed and is in the ledger", id)
			}
			continue
		}
		f, _ := o.final(id)
		if e.Outcome != f.Outcome || e.Attempts != f.Attempts || e.Adopted != f.Adopted {
			return fmt.Errorf("the ledger says of %s: %+v; its result: %+v", id, e, f)
		}
	}
	return nil
}

// auditAgrees: the chains of the audit trail are whole, and each final result is recorded. Of the
// refusals of unverified messages the first of each code and minute has a record, the others are counted (ADR 14).
func (o *oracle) auditAgrees() error {
	ctx, cancel := context.WithTimeout(o.world.t.Context(), 30*time.Second)
	defer cancel()
	stream, err := o.world.own.OpenAuditTrail(ctx)
	if err != nil {
		return err
	}
	chain := trail.NewChain(1, trail.Kept{}, func(seq uint64) ([]byte, error) { return stream.Payload(ctx, seq) })
	recorded, refused := map[string]bool{}, map[string]bool{}
	if err := stream.Each(ctx, time.Time{}, func(m trail.Message) error {
		var r ledger.AuditRecord
		if err := json.Unmarshal(m.Data, &r); err != nil {
			return err
		}
		if r.Kind == ledger.AuditDecided || r.Kind == ledger.AuditRefused {
			recorded[r.RequestID+" "+r.Outcome] = true
		}
		if r.Kind == ledger.AuditRefused {
			refused[r.Error.Code] = true
		}
		return chain.Add(m)
	}); err != nil {
		return fmt.Errorf("the audit trail: %w", err)
	}
	if err := chain.End(stream.Last()); err != nil {
		return fmt.Errorf("the audit trail: %w", err)
	}
	for id := range o.asked {
		f, _ := o.final(id)
		if f.Error != nil && f.Error.Code == message.CodeMalformed && refused[message.CodeMalformed] {
			continue
		}
		if !recorded[f.RequestID+" "+f.Outcome] {
			return fmt.Errorf("%s ended %s, which is not in the audit trail", id, f.Outcome)
		}
	}
	return nil
}

// entries is the ledger by request id.
func (o *oracle) entries(ctx context.Context) (map[string]ledger.Entry, error) {
	kv, err := o.world.own.JS().KeyValue(ctx, broker.LedgerBucket)
	if err != nil {
		return nil, err
	}
	watch, err := kv.Watch(ctx, ledger.EntryKeys(o.world.own.Names().Stream), jetstream.IgnoreDeletes())
	if err != nil {
		return nil, err
	}
	defer func() { _ = watch.Stop() }()
	all := map[string]ledger.Entry{}
	for {
		select {
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		case kv := <-watch.Updates():
			if kv == nil {
				return all, nil
			}
			e, err := ledger.DecodeEntry(ledger.Record{Value: kv.Value(), Revision: kv.Revision(), Written: kv.Created()})
			if err != nil {
				return nil, err
			}
			if e.State != "" { // else it keeps an id from the version before, where a client's request has it
				all[e.ID] = e
			}
		}
	}
}

// logs are what all replicas wrote with a word in it.
func (w *world) logs(word string, most int) string {
	var all []string
	for _, r := range w.replicas {
		all = append(all, r.lines(word, most))
	}
	return strings.Join(all, "\n")
}
