package remediation_test

import (
	"encoding/json"
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/nats-io/nats.go/jetstream"

	"example.com/unrestrict-worker/internal/broker"
	"example.com/unrestrict-worker/internal/broker/trail"
	"example.com/unrestrict-worker/internal/defender/defendersim"
	"example.com/unrestrict-worker/internal/health"
	"example.com/unrestrict-worker/internal/ledger"
	"example.com/unrestrict-worker/internal/message"
	"example.com/unrestrict-worker/internal/remediation"
)

// auditTrail is the audit trail as far as it was read.
type auditTrail struct {
	stream  jetstream.Stream
	last    uint64
	chain   *trail.Chain
	broken  error
	records []ledger.AuditRecord // without those that only open a chain

	decisions     map[decision]bool // recorded
	refused       map[string]int    // unverified messages, by code
	told, letters int               // how many of those that were told have been compared
}

type decision struct {
	id      string
	run     int
	outcome string // "": any
	final   bool
}

func (w *world) openTrail() {
	var err error
	w.trail.stream, err = w.broker.JS().Stream(w.ctx, broker.AuditStream)
	w.must(err)
	w.trail.decisions, w.trail.refused = map[decision]bool{}, map[string]int{}
	w.trail.chain = trail.NewChain(1, trail.Kept{}, func(seq uint64) ([]byte, error) {
		m, err := w.trail.stream.GetMsg(w.ctx, seq)
		if err != nil {
			return nil, err
		}
		return m.Data, nil
	})
}

// readTrail reads what was recorded since.
func (w *world) readTrail() {
	w.t.Helper()
	w.trail.last = w.read(w.trail.stream, w.trail.last, func(m *jetstream.RawStreamMsg) {
		if err := w.trail.chain.Add(trail.Message{Sequence: m.Sequence, Time: m.Time, Data: m.Data}); err != nil && w.trail.broken == nil {
			w.trail.broken = err
		}
		var r ledger.AuditRecord
		w.must(json.Unmarshal(m.Data, &r))
		if r.Kind != "opened" {
			w.trail.records = append(w.trail.records, r)
			if r.Kind == ledger.AuditRefused || r.Kind == ledger.AuditCounted {
				w.trail.refused[r.Error.Code] += max(r.Count, 1)
			}
			final := r.Kind == ledger.AuditDecided || r.Kind == ledger.AuditRefused
			w.trail.decisions[decision{r.RequestID, r.Run, r.Outcome, final}] = true
			w.trail.decisions[decision{r.RequestID, r.Run, "", final}] = true
		}
	})
	if err := w.trail.chain.End(w.trail.last); err != nil && w.trail.broken == nil {
		w.trail.broken = err
	}
}

// recorded are the records of a kind of one request.
func (w *world) recorded(id, kind string) (all []ledger.AuditRecord) {
	w.t.Helper()
	w.readTrail()
	for _, r := range w.trail.records {
		if r.RequestID == id && r.Kind == kind {
			all = append(all, r)
		}
	}
	return all
}

// auditAgrees: the chains are whole, and whatever was told was recorded.
func (w *world) auditAgrees() error {
	w.t.Helper()
	w.readTrail()
	if w.trail.broken != nil {
		return fmt.Errorf("the audit trail is broken: %w", w.trail.broken)
	}
	for _, r := range w.told[w.trail.told:] {
		// Of messages that nobody vouches for only the first in a minute has a record of its own.
		if r.Error != nil && r.Error.Code != message.CodeIDConflict && w.trail.refused[r.Error.Code] > 0 {
			continue
		}
		if !w.trail.decisions[decision{r.RequestID, r.Run, r.Outcome, r.Final}] {
			return fmt.Errorf("%s was told as %s and is not in the audit trail", r.MessageID(), r.Outcome)
		}
	}
	for _, l := range w.letters[w.trail.letters:] {
		d := message.ReadDeadLetter(l.header, l.payload)
		if d.Unverified && w.trail.refused[d.Code] > 0 {
			continue
		}
		if !w.trail.decisions[decision{d.RequestID, d.Run, "", true}] {
			return fmt.Errorf("the dead letter of %s (run %d) is there and its decision is not in the audit trail", d.RequestID, d.Run)
		}
	}
	w.trail.told, w.trail.letters = len(w.told), len(w.letters)
	return nil
}

// TestAuditRecords: what the trail says of each way to end.
func TestAuditRecords(t *testing.T) {
	inWorld(t, setup{}, func(w *world) {
		w.ask("good", 1, field{"requestedBy", `"ann"`}, field{"ticket", `"T-1"`}, field{"batch", `"b"`})
		w.api.Inject(defendersim.Fault{Op: "unrestrict", Machine: machine(2), Status: 400, Code: "InvalidInput", Message: "no", Times: 1})
		w.ask("bad", 2)
		w.api.Inject(defendersim.Fault{Op: "unrestrict", Machine: machine(3), Status: 429, RetryAfter: time.Second, Times: 1})
		w.ask("slow", 3)
		w.api.Inject(defendersim.Fault{Op: "unrestrict", Machine: machine(4), Cut: "before", CarriedOut: true, Times: 1})
		w.ask("lost", 4)
		seq := w.publish("", nil, []byte("{"))
		w.settled(time.Hour)

		accepted, decided := w.recorded("good", ledger.AuditAccepted), w.recorded("good", ledger.AuditDecided)
		if len(accepted) != 1 || len(decided) != 1 {
			t.Fatalf("accepted %+v, decided %+v", accepted, decided)
		}
		want := ledger.AuditRecord{
			Kind: ledger.AuditDecided, RequestID: "good", Run: 1, Message: w.ref(1), MachineID: machine(1), Comment: commentOf("good"),
			RequestedBy: "ann", Ticket: "T-1", Batch: "b", Lane: message.LaneNormal, Outcome: message.Succeeded, Attempts: 1,
		}
		got := decided[0]
		if got.ActionID == "" || got.ActionID != accepted[0].ActionID || got.ReceivedAt.IsZero() || got.PublishedAt.IsZero() || !got.DecidedAt.After(got.ReceivedAt) {
			t.Errorf("%+v", got)
		}
		want.ActionID, want.Calls, want.PublishedAt, want.ReceivedAt, want.DecidedAt = got.ActionID, got.Calls, got.PublishedAt, got.ReceivedAt, got.DecidedAt
		if diff := cmp.Diff(want, got); diff != "" {
			t.Error(diff)
		}
		w.wantCalls("good", "unrestrict answered 201 id", "list answered 200 id")
		w.wantCalls("bad", "unrestrict rejected 400 InvalidInput id")
		w.wantCalls("slow", "unrestrict throttled 429 429 id", "unrestrict answered 201 id", "list answered 200 id")
		w.wantCalls("lost", "unrestrict ambiguous 0 connectionCut", "list answered 200 id", "list answered 200 id")

		refused := w.recorded(w.ref(seq), ledger.AuditRefused)
		if len(refused) != 1 || refused[0].Error == nil || refused[0].Error.Code != message.CodeMalformed || refused[0].Message != w.ref(seq) || refused[0].Outcome != message.Rejected {
			t.Errorf("refused: %+v", refused)
		}
	})
}

// TestRefusalsAreCounted: of messages that nobody vouches for the first of each signer, code and minute is in the audit
// trail, and the number of the others, once the minute is over or the process ends. What signers have sent has a record for
// each message.
func TestRefusalsAreCounted(t *testing.T) {
	ann, eve := newSigner(t), newSigner(t)
	rules := func(r *remediation.Submitter) {
		var err error
		if r.Rules.Signers, err = message.ParseSigners("ann=" + ann.public); err != nil {
			t.Error(err)
		}
	}
	inWorld(t, setup{rules: rules}, func(w *world) {
		send := func(by signer, signed, sent []byte) {
			h := message.Header{}
			if by.seed != "" {
				key, signature, err := message.Sign([]byte(by.seed), w.broker.Names().Subject, signed)
				w.must(err)
				h[message.HeaderSigner], h[message.HeaderSignature] = []string{key}, []string{signature}
			}
			w.publish("", h, sent)
		}
		for n := range 20 {
			data := payload(fmt.Sprint("r", n), 1, expiresIn(30*24*time.Hour))
			send(signer{}, nil, data)
			send(eve, data, data)
			send(ann, data, append(data, ' '))
			send(ann, data, data) // ann vouches for it
		}
		w.settled(time.Minute)
		w.passes(2 * time.Minute)
		w.readTrail()
		type line struct{ kind, code, claimed string }
		got := map[line]int{}
		for _, r := range w.trail.records {
			got[line{r.Kind, r.Error.Code, r.ClaimedSigner}] += max(r.Count, 1)
			if r.Kind == ledger.AuditCounted && (r.Minute.IsZero() || !r.Minute.Equal(r.Minute.Truncate(time.Minute))) {
				t.Errorf("%+v", r)
			}
		}
		want := map[line]int{
			{"refused", "unsigned", ""}: 1, {"counted", "unsigned", ""}: 19, {"refused", "unknownSigner", ""}: 1, {"counted", "unknownSigner", ""}: 19,
			{"refused", "badSignature", "ann"}: 1, {"counted", "badSignature", "ann"}: 19, {"refused", "expiresTooLate", ""}: 20,
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Error(diff)
		}
		w.publish("", nil, []byte("{"))
		w.publish("", nil, []byte("["))
		w.settled(time.Minute)
		w.replicas[0].stop()
		if n := len(w.recordedOf(ledger.AuditCounted, "unsigned")); n != 2 {
			t.Errorf("%d counts of unsigned messages after the end of the process", n)
		}
	})
}

// TestRefusedIsToldOnce: whatever fails on the way, or dies, a refused message has one result and one dead letter, though it
// is taken again later.
func TestRefusedIsToldOnce(t *testing.T) {
	for _, at := range []point{atAudit, atLetter, atFinal, atAck} {
		for _, f := range []fault{{at: at}, {at: at, done: true}, {at: at, dies: true}, {at: at, done: true, dies: true}} {
			f.times = 1
			t.Run(f.String(), func(t *testing.T) {
				inWorld(t, setup{replicas: 2}, func(w *world) {
					w.faults.inject(f)
					seq := w.publish("", nil, []byte("{"))
					w.settled(10 * time.Minute)
					w.passes(time.Minute)
					w.wantFinal(w.ref(seq), "rejected malformed")
					if w.faults.armed() > 0 || len(w.told) != 1 || len(w.letters) != 1 {
						t.Errorf("%d results, %d dead letters", len(w.told), len(w.letters))
					}
				})
			})
		}
	}
}

// recordedOf are the records of a kind with a code.
func (w *world) recordedOf(kind, code string) (all []ledger.AuditRecord) {
	w.t.Helper()
	w.readTrail()
	for _, r := range w.trail.records {
		if r.Kind == kind && r.Error.Code == code {
			all = append(all, r)
		}
	}
	return all
}

// TestRefusedIsReceivedWhenItIsTaken: not when it was published.
func TestRefusedIsReceivedWhenItIsTaken(t *testing.T) {
	inWorld(t, setup{untended: true}, func(w *world) {
		w.must(w.replicas[0].shared.Pause(w.ctx, broker.Pause{Reason: "later"}))
		w.passes(10 * time.Second)
		published := time.Now()
		seq := w.publish("", nil, []byte("{"))
		w.passes(time.Minute)
		w.must(w.replicas[0].shared.Resume(w.ctx))
		w.settled(time.Minute)
		for _, r := range w.told {
			if taken := r.ReceivedAt.Sub(published); r.RequestID == w.ref(seq) && (taken < time.Minute || r.ReceivedAt.After(r.FinishedAt)) {
				t.Errorf("received %v after it was published, finished %v", taken, r.FinishedAt)
			}
		}
		if r := w.recorded(w.ref(seq), ledger.AuditRefused); len(r) != 1 || r[0].ReceivedAt.Sub(published) < time.Minute || r[0].PublishedAt.Sub(published) > time.Second {
			t.Errorf("%+v", r)
		}
	})
}

// wantCalls compares the calls in the record of a request's end: operation, class, status, code, and "id" where the
// service gave one.
func (w *world) wantCalls(id string, want ...string) {
	w.t.Helper()
	var got []string
	for _, r := range w.recorded(id, ledger.AuditDecided) {
		for _, c := range r.Calls {
			text := fmt.Sprintf("%s %s %d", c.Operation, c.Class, c.HTTPStatus)
			if c.Code != "" {
				text += " " + c.Code
			}
			if c.CorrelationID != "" {
				text += " id"
			}
			got = append(got, text)
		}
	}
	if diff := cmp.Diff(want, got); diff != "" {
		w.t.Errorf("%s: %s", id, diff)
	}
}

// TestNothingIsToldBeforeItIsRecorded: while the audit trail can't be written, nobody hears of anything and nothing gets
// lost; consumption pauses, and goes on by itself.
func TestNothingIsToldBeforeItIsRecorded(t *testing.T) {
	inWorld(t, setup{}, func(w *world) {
		w.faults.inject(fault{at: atAudit})
		w.ask("good", 1)
		w.api.Inject(defendersim.Fault{Op: "unrestrict", Machine: machine(2), Status: 400, Code: "InvalidInput", Message: "no"})
		w.ask("bad", 2)
		w.publish("", nil, []byte("{"))
		w.passes(10 * time.Minute)
		if w.refresh(); len(w.told) > 0 || len(w.letters) > 0 {
			t.Errorf("told %v, dead letters %v", w.told, w.letters)
		}
		if f, on := w.replicas[0].breaker.Current(); !on || f.Code != health.NotPublished {
			t.Errorf("fault %+v", f)
		}
		w.faults.clear()
		w.settled(time.Hour)
		w.wantFinal("good", "succeeded")
		w.wantFinal("bad", "rejected InvalidInput")
		w.wantPosts(1, 1)
		if _, on := w.replicas[0].breaker.Current(); on {
			t.Error("the fault is still on")
		}
	})
}

// TestDeathAtTheAuditRecord: a replica dies before or after the record of each kind. Each run has its record, and at most
// one more for the death between.
func TestDeathAtTheAuditRecord(t *testing.T) {
	for _, f := range []fault{{at: atAudit, dies: true, times: 1}, {at: atAudit, dies: true, done: true, times: 1}} {
		for name, ask := range map[string]func(w *world){
			"accepted": func(w *world) { w.ask("r", 1) },
			"rejected": func(w *world) {
				w.api.Inject(defendersim.Fault{Op: "unrestrict", Status: 400, Code: "InvalidInput", Message: "no"})
				w.ask("r", 1)
			},
			"refused": func(w *world) { w.publish("", nil, []byte("{")) },
		} {
			t.Run(f.String()+" "+name, func(t *testing.T) {
				inWorld(t, setup{}, func(w *world) {
					w.faults.inject(f)
					ask(w)
					w.passes(time.Minute)
					if w.faults.armed() > 0 {
						t.Fatal("no replica came there")
					}
					w.start()
					w.settled(time.Hour)
					most := 1
					if f.done {
						most = 2
					}
					for _, kind := range []string{ledger.AuditAccepted, ledger.AuditDecided, ledger.AuditRefused} {
						n := 0
						for _, r := range w.trail.records {
							if r.Kind == kind {
								n++
							}
						}
						if n > most {
							t.Errorf("%d records %s", n, kind)
						}
					}
				})
			})
		}
	}
}

// TestAuditOfAReplay: the dead letter is in the trail before it is dropped, and again after a death between.
func TestAuditOfAReplay(t *testing.T) {
	for _, f := range []*fault{nil, {at: atDrop, dies: true, times: 1}, {at: atAudit, dies: true, times: 1}} {
		inWorld(t, setup{}, func(w *world) {
			w.api.Inject(defendersim.Fault{Op: "unrestrict", Status: 400, Code: "InvalidInput", Message: "no", Times: 1})
			w.ask("r", 1)
			w.settled(time.Hour)
			if f != nil {
				w.faults.inject(*f)
			}
			l := w.dead("r")[0]
			w.publish("r", message.ReplayHeader(l.seq, l.header), l.payload)
			if f != nil {
				w.passes(time.Minute)
				w.start()
			}
			w.settled(time.Hour)
			w.wantFinal("r", "succeeded")
			replayed := w.recorded("r", ledger.AuditReplayed)
			want := 1
			if f != nil && f.at == atDrop {
				want = 2
			}
			if len(replayed) != want || replayed[0].ReplayOf != l.seq || replayed[0].Run != 2 || replayed[0].Outcome != "" {
				t.Errorf("%v: %+v", f, replayed)
			}
			if d := w.recorded("r", ledger.AuditDecided); len(d) != 2 || d[1].Run != 2 || d[1].ReplayOf != l.seq {
				t.Errorf("%v: %+v", f, d)
			}
		})
	}
}

// TestAuditOfADeadCaller: of a call whose answer died with its caller the trail has at least the call.
func TestAuditOfADeadCaller(t *testing.T) {
	inWorld(t, setup{}, func(w *world) {
		w.faults.inject(fault{at: atRecord, dies: true, times: 1})
		w.ask("r", 1)
		w.passes(time.Minute)
		w.start()
		w.settled(time.Hour)
		w.wantCalls("r", "unrestrict  0", "list answered 200 id", "list answered 200 id")
	})
	inWorld(t, setup{}, func(w *world) { // dead before the call: there was none
		w.faults.inject(fault{at: atMachine, dies: true, times: 1})
		w.ask("r", 1)
		w.passes(time.Minute)
		w.start()
		w.settled(time.Hour)
		w.wantCalls("r", "unrestrict answered 201 id", "list answered 200 id")
	})
}
