package message

import (
	"encoding/json"
	"errors"
	"flag"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/cloudevents/sdk-go/v2/event"
	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

var update = flag.Bool("update", false, "write the golden files anew")

// golden compares got with testdata/NAME.
func golden(t *testing.T, name string, got []byte) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(path, got, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(string(want), string(got)); d != "" {
		t.Errorf("%s (-update writes it anew):\n%s", path, d)
	}
}

// text is a message as the broker stores it, headers in order.
func messageText(h Header, body []byte) []byte {
	var lines []string
	for name, values := range h {
		for _, v := range values {
			lines = append(lines, name+": "+v)
		}
	}
	slices.Sort(lines)
	return []byte(strings.Join(lines, "\n") + "\n\n" + string(body) + "\n")
}

const sampleAction = "{ \"@odata.context\" : \"https://api.security.microsoft.com/api/$metadata#MachineActions/$entity\",\n  \"id\":\"44cffc15-0e3d-4cbf-96aa-bf76f9b27f5e\",\"type\":\"UnrestrictCodeExecution\",\"n\":12345678901234567890,\"f\":1.50,\"text\":\"<b>&\u2028\\u00fc\\/\",\"status\":\"Succeeded\",\"x-new\":{\"a\":null} }"

func sampleResults() map[string]Result {
	received := time.Date(2026, 11, 23, 20, 0, 0, 0, time.FixedZone("", 2*3600))
	finished := received.Add(130*time.Second + 250*time.Millisecond)
	return map[string]Result{
		"succeeded": {
			RequestID: "INC 4711/ü%41", Run: 2, MachineID: sampleMachine, RequestedBy: "ann@contoso.com", Ticket: "INC-4711", Batch: "b1",
			Metadata: json.RawMessage(`{"n": 12345678901234567890, "text":"<b>"}`), Outcome: Succeeded, Final: true,
			MachineAction: json.RawMessage(sampleAction), Attempts: 3, Adopted: true, SignedBy: "Ann Example", ReceivedAt: received, FinishedAt: finished,
		},
		"submitted": {
			RequestID: "INC-4711-1", Run: 1, MachineID: sampleMachine, Outcome: Submitted, MachineAction: json.RawMessage(`{"id":"44cffc15","status":"Pending"}`),
			Attempts: 1, ReceivedAt: received, FinishedAt: finished,
		},
		"malformed": {
			RequestID: "REMEDIATION:42", Run: 1, ClaimedID: "mine", Outcome: Rejected, Final: true, ReceivedAt: received, FinishedAt: finished,
			Error: &Failure{Code: CodeMalformed, Message: "machineId: is not 40 <hexadecimal> digits", Origin: "request"},
		},
		"abandoned": {
			RequestID: "INC-4711-1", Run: 1, MachineID: sampleMachine, Outcome: Abandoned, Final: true, Attempts: 7, ReceivedAt: received, FinishedAt: finished,
			Error: &Failure{Code: "gaveUp", Message: "not carried out in time", HTTPStatus: 503, Origin: "worker"},
		},
		"truncated": {
			RequestID: "INC-4711-1", Run: 1, MachineID: sampleMachine, Metadata: json.RawMessage(`{"kept":true}`), Outcome: Failed, Final: true,
			MachineAction: json.RawMessage(`{"x":"` + strings.Repeat("x", 4<<10) + `"}`), Attempts: 1, ReceivedAt: received, FinishedAt: finished,
		},
	}
}

func TestResultGolden(t *testing.T) {
	for name, r := range sampleResults() {
		trace := Trace{}
		if name == "succeeded" {
			trace = Trace{Parent: sampleTrace, State: "v=1"}
		}
		h, body, err := r.Render("urn:unrestrict-worker:REMEDIATION", trace, 4<<10)
		if err != nil {
			t.Fatal(err)
		}
		golden(t, "result-"+name+".txt", messageText(h, body))
	}
}

func TestResultBody(t *testing.T) {
	for name, r := range sampleResults() {
		h, body, err := r.Render("/s", Trace{}, 0)
		if err != nil {
			t.Fatal(err)
		}
		for _, raw := range []json.RawMessage{r.MachineAction, r.Metadata} {
			if !strings.Contains(string(body), string(raw)) {
				t.Errorf("%s: %s does not hold %s as it is", name, body, raw)
			}
		}
		var got Result
		if err := json.Unmarshal(body, &got); err != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff(r, got); d != "" { // times compare as instants
			t.Errorf("%s: %s", name, d)
		}
		if name == "malformed" && (h.Get("ce-subject") != "" || strings.Contains(string(body), "machineId\"")) {
			t.Errorf("a machine in %v %s", h, body)
		}
	}
	if got := sampleResults()["submitted"]; got.MessageID() != "INC-4711-1:submitted:1" {
		t.Errorf("MessageID %q", got.MessageID())
	}
}

func TestResultLimit(t *testing.T) {
	r := sampleResults()["succeeded"]
	h, body, err := r.Render("/s", Trace{Parent: sampleTrace}, 0)
	if err != nil {
		t.Fatal(err)
	}
	exact := len("NATS/1.0\r\n\r\n") + len(body)
	for name, values := range h {
		exact += len(name) + len(": \r\n") + len(values[0])
	}
	if _, again, err := r.Render("/s", Trace{Parent: sampleTrace}, exact); err != nil || string(again) != string(body) {
		t.Errorf("at exactly its size: %v, %s", err, again)
	}
	h, body, err = r.Render("/s", Trace{Parent: sampleTrace}, exact-1)
	if err != nil {
		t.Fatal(err)
	}
	var got Result
	if err := json.Unmarshal(body, &got); err != nil {
		t.Fatal(err)
	}
	if !got.MachineActionTruncated || got.MachineAction != nil || string(got.Metadata) != string(r.Metadata) || h.size()+len(body) >= exact {
		t.Errorf("a byte too large: %s", body)
	}
	h, body, err = r.Render("/s", Trace{Parent: sampleTrace}, h.size()+len(body)-1)
	if err != nil {
		t.Fatal(err)
	}
	if got = (Result{}); json.Unmarshal(body, &got) != nil || !got.MachineActionTruncated || !got.MetadataTruncated || got.Metadata != nil || got.Ticket != r.Ticket {
		t.Errorf("too large without its action: %s", body)
	}
	if _, _, err := r.Render("/s", Trace{}, 300); !errors.Is(err, ErrTooLarge) || !strings.Contains(err.Error(), "300") {
		t.Errorf("nothing fits into 300 bytes: %v", err)
	}
	r.MachineAction = nil // of none nothing is left out
	if _, body, err = r.Render("/s", Trace{Parent: sampleTrace}, h.size()+len(body)); err != nil || strings.Contains(string(body), "machineActionTruncated") {
		t.Errorf("without an action: %s, %v", body, err)
	}
	r = sampleResults()["succeeded"]

	r.Error = &Failure{Code: "x", Message: strings.Repeat("語", 5000), Origin: "defender"}
	_, body, err = r.Render("/s", Trace{}, 0)
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(body, &got); err != nil {
		t.Fatal(err)
	}
	if want := strings.Repeat("語", 3999) + "…"; got.Error.Message != want || len(r.Error.Message) != 15000 {
		t.Errorf("message of %d bytes", len(got.Error.Message))
	}
}

func TestResultBroken(t *testing.T) {
	for _, r := range []Result{{RequestID: "x", MachineAction: json.RawMessage("{")}, {RequestID: "x", Metadata: json.RawMessage("")}} {
		if _, body, err := r.Render("/s", Trace{}, 0); err == nil {
			t.Errorf("rendered %s", body)
		}
	}
	_, body, err := Result{RequestID: "x", MachineAction: json.RawMessage("null"), Metadata: json.RawMessage("null")}.Render("/s", Trace{}, 0)
	if err != nil || strings.Contains(string(body), "null") {
		t.Errorf("null: %s, %v", body, err)
	}
}

// A result is what its reader makes of it, and its headers are an event that the SDK takes.
func TestResultRoundTrip(t *testing.T) {
	ids := map[string]Result{}
	rapid.Check(t, func(t *rapid.T) {
		r := Result{
			RequestID: rapid.StringN(1, 256, -1).Draw(t, "id"), Run: rapid.IntRange(1, 1000).Draw(t, "run"),
			MachineID: rapid.StringMatching(`([0-9a-f]{40})?`).Draw(t, "machine"), Ticket: anyText().Draw(t, "ticket"),
			Outcome: rapid.SampledFrom([]string{Submitted, Succeeded, Failed, TimedOut, Cancelled, Rejected, Abandoned, DryRun}).Draw(t, "outcome"),
			Final:   rapid.Bool().Draw(t, "final"), Attempts: rapid.IntRange(0, 99).Draw(t, "attempts"),
			ReceivedAt: time.Unix(rapid.Int64Range(0, 4e9).Draw(t, "received"), 0).UTC(),
			FinishedAt: time.Unix(rapid.Int64Range(1, 4e9).Draw(t, "finished"), 1).UTC(),
		}
		source := rapid.StringMatching(`/[a-zü %"]*`).Draw(t, "source")
		h, body, err := r.Render(source, Trace{Parent: sampleTrace}, 0)
		if err != nil {
			t.Fatal(err)
		}
		var got Result
		if err := json.Unmarshal(body, &got); err != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff(r, got); d != "" {
			t.Fatal(d)
		}
		for name, values := range h {
			if len(values) != 1 || strings.ContainsFunc(values[0], func(r rune) bool { return r < ' ' || r > '~' }) || strings.Trim(values[0], " ") != values[0] {
				t.Fatalf("header %s: %q", name, values)
			}
		}
		phase := map[bool]string{true: "final", false: "submitted"}[r.Final]
		plain := strings.TrimSuffix(percentDecode(h.Get("ce-id")), ":"+phase+":"+strconv.Itoa(r.Run))
		if plain != r.RequestID || h.Get("Nats-Msg-Id") != h.Get("ce-id") || percentDecode(h.Get("ce-source")) != source {
			t.Fatalf("ce-id %q, ce-source %q of %q, %q", h.Get("ce-id"), h.Get("ce-source"), r.RequestID, source)
		}
		if other, ok := ids[h.Get("Nats-Msg-Id")]; ok && (other.RequestID != r.RequestID || other.Run != r.Run || other.Final != r.Final) {
			t.Fatalf("%+v and %+v have the message id %q", other, r, h.Get("Nats-Msg-Id"))
		}
		ids[h.Get("Nats-Msg-Id")] = r
		e := event.New(h.Get("ce-specversion"))
		e.SetID(h.Get("ce-id"))
		e.SetSource(h.Get("ce-source"))
		e.SetType(h.Get("ce-type"))
		e.SetSubject(h.Get("ce-subject"))
		e.SetDataContentType(h.Get("ce-datacontenttype"))
		at, err := time.Parse(time.RFC3339, h.Get("ce-time"))
		if err != nil || !at.Equal(r.FinishedAt) {
			t.Fatalf("ce-time %q: %v", h.Get("ce-time"), err)
		}
		if err := e.Validate(); err != nil {
			t.Fatal(err)
		}
	})
}

// Message ids tell all results apart, whatever ids and names look like: both may have the other's form.
func TestResultMessageIDsDiffer(t *testing.T) {
	seen := map[string]Result{}
	for _, id := range []string{"X", "X:final:1", "X:final:1:ann", "X:final", "X:submitted:2", "a b", "a%20b", "1"} {
		for _, owner := range []string{"", "ann", "1", "final", "final.1", "submitted"} {
			for run := range 3 {
				for _, final := range []bool{true, false} {
					r := Result{RequestID: id, Owner: owner, Run: run + 1, Final: final}
					if other, twice := seen[r.MessageID()]; twice {
						t.Errorf("%s is of %+v and %+v", r.MessageID(), r, other)
					}
					seen[r.MessageID()] = r
				}
			}
		}
	}
	if got := (Result{RequestID: "a b", Run: 2, Final: true, Owner: "ann"}).MessageID(); got != "a%20b:final:2:ann" {
		t.Error(got)
	}
}
