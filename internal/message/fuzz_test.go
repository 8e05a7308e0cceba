package message

import (
	"encoding/json"
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"
)

// FuzzParse: whatever comes in, in whichever mode, Parse says the same twice; what it takes keeps the rules, what it
// refuses has no claim on an id; and either way the answer can be published.
func FuzzParse(f *testing.F) {
	good := sampleFields(`"id":"x","metadata":{"a":[1,null]},"expiresAt":"2099-01-01T00:00:00Z","replyTo":"a.b"`)
	f.Add([]byte(good), byte(0), "Nats-Msg-Id", "y")
	f.Add([]byte(structured(`"data":`+sampleFields(""))), byte(1), "traceparent", sampleTrace)
	f.Add([]byte(structured(`"data_base64":"e30="`)), byte(0), "", "")
	f.Add([]byte(`{"specversion":}`), byte(0), "", "")
	f.Add([]byte(`{"specversion":"1.0","data_base64":,"id":}`), byte(1), "", "")
	f.Add([]byte(sampleFields("")), byte(2), "ce-id", "a%20b%0A")
	f.Add([]byte(sampleFields("")), byte(0), HeaderReplay, "7")
	f.Add([]byte(`{"id":"mine","id":"`), byte(0), "Deadletter-Reason", "forged")
	f.Fuzz(func(t *testing.T, payload []byte, mode byte, name, value string) {
		d := sampleDelivery(string(payload))
		switch mode % 3 {
		case 1:
			d.Header["Content-Type"] = []string{"application/cloudevents+json"}
		case 2:
			d = sampleDelivery(string(payload), binary()...)
		}
		d.Header[name] = append(d.Header[name], value)
		req, invalid := sampleRules.Parse(d)
		again, invalidAgain := sampleRules.Parse(d)
		if diff := cmp.Diff(req, again) + cmp.Diff(invalid, invalidAgain); diff != "" {
			t.Fatal(diff)
		}
		if invalid != nil {
			checkRefused(t, d, req, invalid)
			return
		}
		checkTaken(t, d, req)
		r := Result{RequestID: req.ID, Run: 1, MachineID: req.MachineID, Ticket: req.Ticket, Metadata: req.Metadata, Outcome: Succeeded, Final: true}
		_, body, err := r.Render("/s", Trace{req.TraceParent, req.TraceState}, 1<<20)
		if err != nil {
			t.Fatal(err)
		}
		var got Result
		if err := json.Unmarshal(body, &got); err != nil || got.RequestID != req.ID || got.Ticket != req.Ticket || string(got.Metadata) != string(req.Metadata) {
			t.Fatalf("%v: %s", err, body)
		}
	})
}

func checkTaken(t *testing.T, d Delivery, req Request) {
	t.Helper()
	if checkID(req.ID) != nil || req.Derived != (req.ID == d.Ref()) || strings.HasPrefix(req.ID, "REMEDIATION:") && !req.Derived && isDigits(req.ID[12:]) {
		t.Fatalf("id %q, derived %v", req.ID, req.Derived)
	}
	if len(req.MachineID) != 40 || strings.Trim(req.MachineID, "0123456789abcdef") != "" {
		t.Fatalf("machine %q", req.MachineID)
	}
	if strings.TrimSpace(req.Comment) == "" || utf8.RuneCountInString(req.Comment) > 4000 || !utf8.ValidString(req.Comment) {
		t.Fatalf("comment %q", req.Comment)
	}
	if len(req.Metadata) > 8<<10 || req.Metadata != nil && (req.Metadata[0] != '{' || !json.Valid(req.Metadata)) {
		t.Fatalf("metadata %q", req.Metadata)
	}
	if req.ReplyTo != "" && (CheckSubject(req.ReplyTo) != nil || strings.HasPrefix(req.ReplyTo, "$")) {
		t.Fatalf("replyTo %q", req.ReplyTo)
	}
	if !json.Valid(d.Data) || len(d.Data) > MaxPayload {
		t.Fatalf("took %q", d.Data)
	}
}

func checkRefused(t *testing.T, d Delivery, req Request, invalid *Invalid) {
	t.Helper()
	if invalid.Code == "" || invalid.Message == "" || strings.ContainsFunc(invalid.Message, unicode.IsControl) || !utf8.ValidString(invalid.Message) {
		t.Fatalf("%q", invalid)
	}
	if req.ID != d.Ref() || !req.Derived || invalid.ClaimedID != "" && checkID(invalid.ClaimedID) != nil {
		t.Fatalf("refused as %q, claiming %q", req.ID, invalid.ClaimedID)
	}
	h, body := DeadLetter{Delivery: d, Code: invalid.Code, Message: invalid.Message, RequestID: req.ID, Run: 1}.Render(0)
	got, _, id, err := OriginalDelivery(h, body)
	if err != nil || id != req.ID || got.Ref() != d.Ref() || string(got.Data) != string(d.Data) {
		t.Fatalf("%v: %q %+v from %v", err, id, got, h)
	}
}
