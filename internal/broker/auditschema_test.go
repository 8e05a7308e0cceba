package broker

import (
	"bytes"
	"encoding/json"
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/santhosh-tekuri/jsonschema/v6"

	"example.com/unrestrict-worker/internal/ledger"
	"example.com/unrestrict-worker/internal/message"
)

// TestAuditSchema: what is written is what docs/schemas/audit.json says, and it names each field.
func TestAuditSchema(t *testing.T) {
	text, err := os.ReadFile(filepath.Join("..", "..", "docs", "schemas", "audit.json"))
	if err != nil {
		t.Fatal(err)
	}
	doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	c := jsonschema.NewCompiler()
	c.DefaultDraft(jsonschema.Draft2020)
	c.AssertFormat()
	if err := c.AddResource("mem:///audit.json", doc); err != nil {
		t.Fatal(err)
	}
	schema, err := c.Compile("mem:///audit.json")
	if err != nil {
		t.Fatal(err)
	}
	validate := func(data []byte) error {
		v, err := jsonschema.UnmarshalJSON(bytes.NewReader(data))
		if err != nil {
			t.Fatal(err)
		}
		return schema.Validate(v)
	}

	w := newAuditWorld(t)
	a := w.auditor("p")
	now := time.Now().UTC()
	verdict := ledger.Verdict{By: "bob", Signer: "U", At: now, Message: "REMEDIATION_CONTROL:1", Reason: "r", Subject: "c", Order: "{}", Signature: "s"}
	whole := ledger.AuditRecord{
		Approval: &ledger.Approval{Required: 1, By: []string{"bob"}, Since: now, ExpiresAt: now, Digest: "sha256:" + strings.Repeat("a", 64), Given: []ledger.Verdict{verdict}, Denied: &verdict},
		Kind:     ledger.AuditRefused, RequestID: "REMEDIATION:1", Run: 1, ClaimedID: "c", Message: "REMEDIATION:1", ReplayOf: 3,
		MachineID: strings.Repeat("a", 40), Comment: "c", RequestedBy: "r", Ticket: "t", Batch: "b", SignedBy: "ann", Signer: "U", Client: "c", Lane: message.LaneUrgent, Policy: "allowed",
		Outcome: message.Rejected, Error: &message.Failure{Code: "c", Message: "m", HTTPStatus: 400, Origin: "defender"},
		ClaimedSigner: "ann", Count: 2, Minute: now, Act: ledger.ActDrop, By: "ann@host", ByClaimed: true, Reason: "r", DeadLetter: 4, Whose: "ann", Actions: true, Order: "{}", Subject: "c", Signature: "s",
		Attempts: 2, Adopted: true, ActionID: "a", CallsOmitted: 1, Shortened: true, PublishedAt: now, ReceivedAt: now, DecidedAt: now,
		Calls: []ledger.Call{{Time: now, Operation: "list", Class: "rejected", HTTPStatus: 400, Code: "c", CorrelationID: "i"}, {Time: now, Operation: "unrestrict"}},
	}
	if v := reflect.ValueOf(whole); slices.ContainsFunc(slices.Collect(maps.Values(fields(v))), reflect.Value.IsZero) {
		t.Fatal("a field is missing in this test")
	}
	for _, r := range []ledger.AuditRecord{
		whole,
		{Kind: ledger.AuditReplayed, RequestID: "r", Run: 2},
		{Kind: ledger.AuditCounted, Error: whole.Error, Count: 2, Minute: now},
		{Kind: ledger.AuditOperated, Act: ledger.ActPause, By: "ann", Reason: "r"},
	} {
		if err := a.Record(t.Context(), r); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.auditor("q").Record(t.Context(), whole); err != nil { // its first has seen something
		t.Fatal(err)
	}
	written := map[string]bool{}
	for _, s := range w.trail() {
		if err := validate(s.Data); err != nil {
			t.Errorf("%v: %s", err, s.Data)
		}
		var names map[string]any
		if err := json.Unmarshal(s.Data, &names); err != nil {
			t.Fatal(err)
		}
		for name := range names {
			written[name] = true
		}
	}
	described := doc.(map[string]any)["properties"].(map[string]any)
	if diff := cmp.Diff(slices.Sorted(maps.Keys(described)), slices.Sorted(maps.Keys(written))); diff != "" {
		t.Error(diff)
	}
	for _, wrong := range []string{
		`{"v":2,"writer":"w","n":1,"time":"2026-01-01T00:00:00Z","kind":"opened","sum":"0000000000000000000000000000000000000000000000000000000000000000"}`,
		`{"v":1,"writer":"w","n":1,"time":"2026-01-01T00:00:00Z","kind":"decided","outcome":"succeeded","decidedAt":"2026-01-01T00:00:00Z","sum":"0000000000000000000000000000000000000000000000000000000000000000"}`,
		`{"v":1,"writer":"w","n":2,"time":"2026-01-01T00:00:00Z","kind":"replayed","requestId":"r","run":2,"sum":"0000000000000000000000000000000000000000000000000000000000000000"}`,
		`{"v":1,"writer":"w","n":1,"time":"2026-01-01T00:00:00Z","kind":"opened"}`,
		`{"v":1,"writer":"w","n":2,"prev":"0000000000000000000000000000000000000000000000000000000000000000","prevSequence":1,"time":"2026-01-01T00:00:00Z","kind":"operated","by":"ann","sum":"0000000000000000000000000000000000000000000000000000000000000000"}`,
		`{"v":1,"writer":"w","n":1,"time":"2026-01-01T00:00:00Z","kind":"opened","seen":{"sequence":1},"sum":"0000000000000000000000000000000000000000000000000000000000000000"}`,
	} {
		if validate([]byte(wrong)) == nil {
			t.Errorf("the schema takes %s", wrong)
		}
	}
}

func fields(v reflect.Value) map[string]reflect.Value {
	all := map[string]reflect.Value{}
	for i := range v.NumField() {
		all[v.Type().Field(i).Name] = v.Field(i)
	}
	return all
}
