package submit

import (
	"encoding/json"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/nats-io/nkeys"

	"example.com/unrestrict-worker/internal/broker"
	"example.com/unrestrict-worker/internal/message"
	"example.com/unrestrict-worker/internal/rows"
)

// happening is one in the life of a row "a" of machine 1: a result, or that it was published.
type happening struct {
	request, claims string
	machine, run    int
	outcome         string
	final           bool

	stored    uint64
	duplicate bool
}

func result(run int, outcome string) happening {
	return happening{request: "a", machine: 1, run: run, outcome: outcome, final: outcome != message.Submitted}
}

func refused(seq int) happening {
	return happening{request: fmt.Sprintf("REMEDIATION:%d", seq), claims: "a", machine: 1, run: 1, outcome: message.Rejected, final: true}
}

func (e happening) message(seq uint64) broker.Message {
	data, _ := json.Marshal(message.Result{
		RequestID: e.request, ClaimedID: e.claims, MachineID: machineOf(e.machine), Run: e.run, Outcome: e.outcome, Final: e.final,
	})
	return broker.Message{Sequence: seq, Data: data}
}

func TestCollector(t *testing.T) {
	const (
		succeeded, submitted, rejected, dryRun = message.Succeeded, message.Submitted, message.Rejected, message.DryRun
		open                                   = "" // not final
	)
	stored, known := happening{stored: 7}, happening{stored: 7, duplicate: true}
	for _, c := range []struct {
		name   string
		events []happening
		want   string // final outcome
		asks   bool   // what the worker makes of the message that went out anew
	}{
		{"nothing yet", []happening{stored}, open, false},
		{"its way", []happening{stored, result(1, submitted), result(1, succeeded)}, succeeded, false},
		{"under way", []happening{stored, result(1, submitted)}, open, false},
		{"submitted comes late", []happening{stored, result(1, succeeded), result(1, submitted)}, succeeded, false},
		{"not followed", []happening{stored, {request: "a", machine: 1, run: 1, outcome: submitted, final: true}}, submitted, false},
		{"of an earlier run of the command", []happening{result(1, succeeded), known}, succeeded, false},
		{"the same, past the broker's memory", []happening{result(1, succeeded), stored}, open, true},
		{"replayed since", []happening{result(1, rejected), result(2, submitted), result(2, succeeded), known}, succeeded, false},
		{"a replay under way", []happening{result(1, rejected), result(2, submitted), known}, open, false},
		{"somebody else's request of the same id", []happening{{request: "a", machine: 2, run: 1, outcome: succeeded, final: true}, stored}, open, false},
		{"refused", []happening{stored, refused(7)}, rejected, false},
		{"refused, and told before it was known to be stored", []happening{refused(7), known}, rejected, false},
		{"another message with the same id was refused", []happening{refused(6), stored, refused(8)}, open, false},
		{"succeeded before, but is refused with another comment", []happening{result(1, succeeded), stored, refused(7)}, rejected, false},
		{"known by its result, while forgeries of its id were refused", []happening{refused(6), result(1, succeeded), known, refused(8)}, succeeded, false},
		{"known by its result and under way, while forgeries of its id were refused", []happening{refused(6), result(1, submitted), known, refused(8)}, open, false},
		{"an earlier dry run", []happening{result(1, dryRun), known}, open, true},
		{"an earlier dry run, now in earnest", []happening{result(1, dryRun), stored, result(2, submitted), result(2, succeeded)}, succeeded, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			h := newCollector("REMEDIATION")
			h.add(Prepared{Line: 2, Message: rows.Message{ID: "a", MachineID: machineOf(1)}})
			f, enough := h.rows[0], false
			for i, e := range c.events {
				if e.stored > 0 {
					h.published(f, broker.Stored{Sequence: e.stored, Duplicate: e.duplicate})
					continue
				}
				err := h.take(e.message(uint64(i + 1)))
				enough = errors.Is(err, broker.StopFollow())
				if again := h.take(e.message(uint64(i + 1))); again != nil && !enough {
					t.Errorf("the same message again: %v", again)
				}
			}
			rows, seqs := h.reopenedRows()
			if asks := len(rows) == 1 && seqs[0] == 7; asks != c.asks || f.Final != (c.want != open) || f.Final && f.Outcome != c.want {
				t.Errorf("final %t, outcome %s, asked %t", f.Final, f.Outcome, len(rows) == 1)
			}
			s := h.Progress()
			if s.Open == 0 != f.Final || f.Final && s.counts[c.want] != 1 || !f.Final && len(s.counts) > 0 {
				t.Errorf("progress %+v", s)
			}
			if h.confirm(rows); f.Final != (c.want != open || c.asks) || h.Progress().Open == 0 != f.Final {
				t.Errorf("confirmed: final %t, %+v", f.Final, h.Progress())
			}
		})
	}
}

func TestCollectorIgnoresWhatIsNoResult(t *testing.T) {
	h := newCollector("REMEDIATION")
	h.add(Prepared{Line: 2, Message: rows.Message{ID: "a", MachineID: machineOf(1)}})
	if err := h.take(broker.Message{Sequence: 9, Data: []byte("hello")}); err != nil || h.last() != 9 {
		t.Errorf("%v, at %d", err, h.last())
	}
}

func TestCollectorKeepsWhatTheReportShows(t *testing.T) {
	h := newCollector("REMEDIATION")
	h.add(Prepared{Line: 12, Message: rows.Message{ID: "a", MachineID: machineOf(1), Ticket: "INC-1", Metadata: json.RawMessage(`{"owner":"ann"}`)}})
	at := time.Date(2026, 11, 24, 18, 0, 0, 0, time.UTC)
	data, _ := json.Marshal(message.Result{
		RequestID: "a", MachineID: machineOf(1), Run: 2, Outcome: message.TimedOut, Final: true, ReceivedAt: at, FinishedAt: at.Add(time.Minute),
		MachineAction: json.RawMessage(`{"id":"action-1"}`), Error: &message.Failure{Code: "trackTimeout", Message: "not, final"},
	})
	_ = h.take(broker.Message{Sequence: 1, Data: data})
	want := []string{"12", "a", machineOf(1), "timedOut", "true", "trackTimeout", "not, final", "action-1", "2", "2026-11-24T18:00:00Z", "2026-11-24T18:01:00Z", "INC-1", `{"owner":"ann"}`}
	if diff := cmp.Diff(want, h.rows[0].record()); diff != "" {
		t.Error(diff)
	}
}

// A result of another's request under the same id is not the row's.
func TestCollectorKnowsWhoseResultItIs(t *testing.T) {
	var keys [2]string
	for i := range keys {
		pair, err := nkeys.CreateUser()
		if err != nil {
			t.Fatal(err)
		}
		keys[i], _ = pair.PublicKey()
	}
	own, other := keys[0], keys[1]
	for _, c := range []struct {
		signer, signedBy, client string
		ours                     bool
	}{
		{ours: true},
		{client: "soar"},
		{signedBy: "ann"},
		{signer: own, ours: true}, // signatures are not asked for
		{signer: own, signedBy: "ann", ours: true},
		{signer: own, signedBy: own, ours: true},
		{signer: own, signedBy: "ann", client: "soar", ours: true},
		{signer: own, client: "soar"},
		{signer: own, signedBy: other},
	} {
		h := collector{signer: c.signer}
		if got := h.ours(message.Result{SignedBy: c.signedBy, Client: c.client}); got != c.ours {
			t.Errorf("%+v: %v", c, got)
		}
	}
}
