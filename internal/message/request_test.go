package message

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

const sampleMachine = "1e5bc9d7e413ddd7902c2932e418702b84d0cc07"

// sampleRules are those of the default configuration.
var sampleRules = Rules{
	Stream:      "REMEDIATION",
	OwnSubjects: []string{"remediation.unrestrict", "remediation.results", "remediation.deadletter", "own.*.x", "all.>"},
}

// sampleDelivery is message 42 with the payload; headers come as name, value, ...
func sampleDelivery(payload string, headers ...string) Delivery {
	h := Header{}
	for i := 0; i < len(headers); i += 2 {
		h[headers[i]] = append(h[headers[i]], headers[i+1])
	}
	return Delivery{
		Stream: "REMEDIATION", Sequence: 42, Subject: "remediation.unrestrict", Header: h, Data: []byte(payload),
		Published: time.Date(2026, 11, 23, 18, 0, 0, 200, time.UTC), Attempt: 1,
	}
}

// fields is a valid request object with more members.
func sampleFields(members string) string {
	if members != "" {
		members = "," + members
	}
	return `{"machineId":"` + sampleMachine + `","comment":"c"` + members + `}`
}

func TestParse(t *testing.T) {
	derived := Request{ID: "REMEDIATION:42", Derived: true, MachineID: sampleMachine, Comment: "c"}
	with := func(change func(*Request)) Request {
		r := derived
		change(&r)
		return r
	}
	named := func(id string) Request { return with(func(r *Request) { r.ID, r.Derived = id, false }) }
	for _, c := range []struct {
		what string
		d    Delivery
		want Request
	}{
		{"the least", sampleDelivery(sampleFields("")), derived},
		{
			"everything", sampleDelivery(`{"machineId":"` + strings.ToUpper(sampleMachine) + `","comment":" ünï \"q\" \n 日本 <b>","id":"i-1","requestedBy":"ann","ticket":"T","batch":"B",` +
				`"metadata": {"n":12345678901234567890, "l":[1.50]} ,"expiresAt":"2099-12-31T23:59:59.999999999+14:00","replyTo":"team.blue","unknown":{"a":1}}`),
			Request{
				ID: "i-1", MachineID: sampleMachine, Comment: " ünï \"q\" \n 日本 <b>", RequestedBy: "ann", Ticket: "T", Batch: "B",
				Metadata: []byte(`{"n":12345678901234567890, "l":[1.50]}`), ReplyTo: "team.blue",
				ExpiresAt: time.Date(2099, 12, 31, 9, 59, 59, 999999999, time.UTC),
			},
		},
		{
			"any case", sampleDelivery(`{"ID":"x","MACHINEID":"` + sampleMachine + `","Comment":"c","RequestedBy":"r","TICKET":"t","bATCH":"b","MetaData":{},"replyto":"a.b"}`),
			Request{ID: "x", MachineID: sampleMachine, Comment: "c", RequestedBy: "r", Ticket: "t", Batch: "b", Metadata: []byte("{}"), ReplyTo: "a.b"},
		},
		{"null is absent", sampleDelivery(sampleFields(`"id":null,"requestedBy":null,"ticket":null,"batch":null,"metadata":null,"expiresAt":null,"replyTo":null`)), derived},
		{"other letters are another field", sampleDelivery(sampleFields(`"tic` + "\u212a" + `et":7,"reque` + "\u017f" + `tedBy":8`)), derived},
		{"unknown fields hold anything", sampleDelivery(sampleFields(`"x":"\u0000","y":1e999,"Z":{"a":{"a":1}},"z":2`)), derived},
		{"empty strings to echo", sampleDelivery(sampleFields(`"ticket":"","batch":""`)), derived},
		{"header names the request", sampleDelivery(sampleFields(""), "Nats-Msg-Id", "by-header"), named("by-header")},
		{"header in another case", sampleDelivery(sampleFields(""), "nats-msg-id", "by-header"), named("by-header")},
		{"payload before header", sampleDelivery(sampleFields(`"id":"own"`), "Nats-Msg-Id", "by-header"), named("own")},
		{"header after null", sampleDelivery(sampleFields(`"id":null`), "Nats-Msg-Id", "by-header"), named("by-header")},
		{"empty header is none", sampleDelivery(sampleFields(""), "Nats-Msg-Id", ""), derived},
		{"id with a colon", sampleDelivery(sampleFields(`"id":"ticket:4711"`)), named("ticket:4711")},
		{"id like another stream's", sampleDelivery(sampleFields(`"id":"REMEDIATION_RESULTS:1"`)), named("REMEDIATION_RESULTS:1")},
		{"id almost kept", sampleDelivery(sampleFields(`"id":"REMEDIATION:42x"`)), named("REMEDIATION:42x")},
		{"id almost kept, no number", sampleDelivery(sampleFields(`"id":"REMEDIATION:"`)), named("REMEDIATION:")},
		{"longest id", sampleDelivery(sampleFields(`"id":"` + strings.Repeat("語", 256) + `"`)), named(strings.Repeat("語", 256))},
		{"odd id", sampleDelivery(sampleFields(`"id":" a%20b\u2028*>$ "`)), named(" a%20b\u2028*>$ ")},
		{"longest comment", sampleDelivery(`{"machineId":"` + sampleMachine + `","comment":"` + strings.Repeat("日", 4000) + `"}`), with(func(r *Request) { r.Comment = strings.Repeat("日", 4000) })},
		{"comment with control characters", sampleDelivery(`{"machineId":"` + sampleMachine + `","comment":"\u0000\t"}`), with(func(r *Request) { r.Comment = "\x00\t" })},
		{"longest metadata", sampleDelivery(sampleFields(`"metadata":{"x":"` + strings.Repeat("m", 8<<10-8) + `"}`)), with(func(r *Request) { r.Metadata = []byte(`{"x":"` + strings.Repeat("m", 8<<10-8) + `"}`) })},
		{"largest payload", sampleDelivery(sampleFields("") + strings.Repeat(" ", 64<<10-len(sampleFields("")))), derived},
		{"time in lower case", sampleDelivery(sampleFields(`"expiresAt":"2099-01-01t00:00:00z"`)), with(func(r *Request) { r.ExpiresAt = time.Date(2099, 1, 1, 0, 0, 0, 0, time.UTC) })},
		{"long expired", sampleDelivery(sampleFields(`"expiresAt":"2001-01-01T00:00:00+02:00"`)), with(func(r *Request) { r.ExpiresAt = time.Date(2000, 12, 31, 22, 0, 0, 0, time.UTC) })},
		{"the first instant is no missing one", sampleDelivery(sampleFields(`"expiresAt":"0001-01-01T00:00:00Z"`)), with(func(r *Request) { r.ExpiresAt = time.Time{}.Add(1) })},
		{"reply to an inbox", sampleDelivery(sampleFields(`"replyTo":"_INBOX.a.b"`)), with(func(r *Request) { r.ReplyTo = "_INBOX.a.b" })},
		{"reply near own subjects", sampleDelivery(sampleFields(`"replyTo":"remediation.results.mine"`)), with(func(r *Request) { r.ReplyTo = "remediation.results.mine" })},
		{"trace context", sampleDelivery(sampleFields(""), "Traceparent", sampleTrace, "TRACESTATE", "v=1"), with(func(r *Request) { r.TraceParent, r.TraceState = sampleTrace, "v=1" })},
		{"broken trace context", sampleDelivery(sampleFields(""), "traceparent", "x\ny"), derived},
		{"signature nobody asks for", sampleDelivery(sampleFields(""), HeaderSigner, "x", HeaderSignature, "y"), derived},
		{"content type of plain text", sampleDelivery(sampleFields(""), "Content-Type", "text/plain"), derived},
	} {
		t.Run(c.what, func(t *testing.T) {
			got, invalid := sampleRules.Parse(c.d)
			if invalid != nil {
				t.Fatal(invalid)
			}
			if d := cmp.Diff(c.want, got); d != "" {
				t.Error(d)
			}
		})
	}
}

func TestParseRefuses(t *testing.T) {
	m := `"machineId":"` + sampleMachine + `"`
	for _, c := range []struct {
		payload string
		message string // a part of it, the field first
	}{
		{`{` + m + `,"comment":"c","comment":"d"}`, `payload: has the key "comment" twice`},
		{`{` + m + `,"comment":"c","Comment":"d"}`, "comment: is given in two spellings"},
		{`{` + m + `,"comment":"c","id":null,"ID":"x"}`, "id: is given in two spellings"},
		{`{"comment":"c"}`, "machineId: is required"},
		{`{` + m + `}`, "comment: is required"},
		{`{}`, "machineId: is required; add it; comment: is required; add it"},
		{`{"machineId":null,"comment":null}`, "machineId: is null; give a string; comment: is null"},
		{`{"machineId":1,"comment":true}`, "machineId: is a number; give a string; comment: is a boolean"},
		{`{"machineId":["x"],"comment":{}}`, "machineId: is an array; give a string; comment: is an object"},
		{`{"machineId":"` + sampleMachine[1:] + `","comment":"c"}`, "machineId: is not 40 hexadecimal digits"},
		{`{"machineId":"` + sampleMachine + `0","comment":"c"}`, "machineId: is not 40 hexadecimal digits"},
		{`{"machineId":"g` + sampleMachine[1:] + `","comment":"c"}`, "machineId: is not 40 hexadecimal digits"},
		{`{"machineId":"` + sampleMachine + `\n","comment":"c"}`, "machineId: is not 40 hexadecimal digits"},
		{`{"machineId":"` + sampleMachine[:37] + `１","comment":"c"}`, "machineId: is not 40 hexadecimal digits"},
		{`{` + m + `,"comment":""}`, "comment: is blank"},
		{`{` + m + `,"comment":" \t\u00a0\u2028\u0085"}`, "comment: is blank"},
		{`{` + m + `,"comment":"` + strings.Repeat("日", 4001) + `"}`, "comment: has 4001 characters"},
		{sampleFields(`"id":""`), "id: is empty"},
		{sampleFields(`"id":"` + strings.Repeat("語", 257) + `"`), "id: has more than 256 characters"},
		{sampleFields(`"id":"a\nb"`), "id: has control characters"},
		{sampleFields(`"id":"a\u0085b"`), "id: has control characters"},
		{sampleFields(`"id":"a\u007fb"`), "id: has control characters"},
		{sampleFields(`"id":7`), "id: is a number"},
		{sampleFields(`"id":"REMEDIATION:42"`), "id: REMEDIATION: and a number is kept"},
		{sampleFields(`"id":"REMEDIATION:007"`), "id: REMEDIATION: and a number is kept"},
		{sampleFields(`"requestedBy":1`), "requestedBy: is a number"},
		{sampleFields(`"ticket":[]`), "ticket: is an array"},
		{sampleFields(`"batch":{}`), "batch: is an object"},
		{sampleFields(`"metadata":"x"`), "metadata: is a string; give an object"},
		{sampleFields(`"metadata":[]`), "metadata: is an array; give an object"},
		{sampleFields(`"metadata":{"x":"` + strings.Repeat("m", 8<<10-7) + `"}`), "metadata: has 8193 bytes"},
		{sampleFields(`"metadata":{"a":{"b":1,"b":1}}`), `payload: has the key "b" twice`},
		{sampleFields(`"expiresAt":""`), "expiresAt: is no RFC 3339 time"},
		{sampleFields(`"expiresAt":"2099-01-01"`), "expiresAt: is no RFC 3339 time"},
		{sampleFields(`"expiresAt":"2099-01-01 00:00:00Z"`), "expiresAt: is no RFC 3339 time"},
		{sampleFields(`"expiresAt":"2099-01-01T00:00:00"`), "expiresAt: is no RFC 3339 time"},
		{sampleFields(`"expiresAt":"2099-13-01T00:00:00Z"`), "expiresAt: is no RFC 3339 time"},
		{sampleFields(`"expiresAt":"2099-01-01T0:00:00Z"`), "expiresAt: is no RFC 3339 time"},
		{sampleFields(`"expiresAt":"2099-01-01T00:00:00,5Z"`), "expiresAt: is no RFC 3339 time"},
		{sampleFields(`"expiresAt":4102444800`), "expiresAt: is a number"},
		{sampleFields(`"replyTo":""`), "replyTo: is empty"},
		{sampleFields(`"replyTo":"remediation.results"`), "replyTo: is a subject of the worker itself"},
		{sampleFields(`"replyTo":"own.any.x"`), "replyTo: is a subject of the worker itself"},
		{sampleFields(`"replyTo":"all.a.b"`), "replyTo: is a subject of the worker itself"},
		{sampleFields(`"replyTo":"$JS.API.x"`), "replyTo: begins with $ or _R_"},
		{sampleFields(`"replyTo":"_R_.x"`), "replyTo: begins with $ or _R_"},
		{sampleFields(`"replyTo":"a.*.b"`), "replyTo: has a wildcard"},
		{sampleFields(`"replyTo":"a b"`), "replyTo: has white space"},
		{sampleFields(`"machineid":"x","ticket":1`), "machineId: is given in two spellings; give it once; ticket: is a number"},
		{"", "payload: is no JSON object: unexpected end"},
	} {
		got, invalid := sampleRules.Parse(sampleDelivery(c.payload))
		switch {
		case invalid == nil:
			t.Errorf("%.80s: taken as %+v", c.payload, got)
		case invalid.Code != CodeMalformed || !strings.HasPrefix(invalid.Message, c.message):
			t.Errorf("%.80s: %v, want %q", c.payload, invalid, c.message)
		case got.ID != "REMEDIATION:42" || !got.Derived:
			t.Errorf("%.80s: refused under the id %q", c.payload, got.ID)
		}
	}
}

func TestParseHeaderIDs(t *testing.T) {
	for header, message := range map[string]string{
		"REMEDIATION:7":          "header Nats-Msg-Id: REMEDIATION: and a number is kept",
		strings.Repeat("x", 257): "header Nats-Msg-Id: has more than 256 characters",
		"a\tb":                   "header Nats-Msg-Id: has control characters",
		"\xff":                   "header Nats-Msg-Id: is not UTF-8",
	} {
		if got, invalid := sampleRules.Parse(sampleDelivery(sampleFields(""), "Nats-Msg-Id", header)); invalid == nil || !strings.HasPrefix(invalid.Message, message) {
			t.Errorf("%.20q: %+v, %v, want %q", header, got, invalid, message)
		}
		if _, invalid := sampleRules.Parse(sampleDelivery(sampleFields(`"id":"own"`), "Nats-Msg-Id", header)); invalid != nil {
			t.Errorf("%.20q: refused for a header that names nothing: %v", header, invalid)
		}
	}
}

func TestParseTooLarge(t *testing.T) {
	payload := sampleFields(`"id":"big"`)
	payload += strings.Repeat(" ", MaxPayload+1-len(payload))
	rules := sampleRules
	rules.Signers, _ = signersOf(t, "ann") // size comes before the signature
	got, invalid := rules.Parse(sampleDelivery(payload))
	want := &Invalid{Code: CodeTooLarge, Message: fmt.Sprintf("payload: has %d bytes, more than 65536; leave out what need not be echoed", MaxPayload+1), ClaimedID: "big"}
	if d := cmp.Diff(want, invalid); d != "" {
		t.Error(d)
	}
	if d := cmp.Diff(Request{ID: "REMEDIATION:42", Derived: true}, got); d != "" {
		t.Error(d)
	}
	// Nobody looks through megabytes for a name.
	_, invalid = rules.Parse(sampleDelivery(payload+strings.Repeat(" ", maxRead), "Nats-Msg-Id", "by-header"))
	if invalid == nil || invalid.Code != CodeTooLarge || invalid.ClaimedID != "by-header" {
		t.Errorf("far too large: %+v", invalid)
	}
}

func TestClaimedID(t *testing.T) {
	const event = `{"specversion":"1.0","type":"t","source":"/s","id":"e","data":`
	for _, c := range []struct {
		what, payload, want string
		headers             []string
	}{
		{"field beside", `{"id":"mine","machineId":"desktop-1","comment":"c"}`, "mine", nil},
		{"before the header", `{"id":"mine"}`, "mine", []string{"Nats-Msg-Id", "header"}},
		{"from the header", `{"machineId":"x"}`, "header", []string{"Nats-Msg-Id", "header"}},
		{"null", `{"id":null}`, "header", []string{"Nats-Msg-Id", "header"}},
		{"none", `{"machineId":"x"}`, "", nil},
		{"no JSON", `{`, "header", []string{"Nats-Msg-Id", "header"}},
		{"before the break", `{"id":"mine","machineId":"`, "mine", nil},
		{"behind the break", `{"x":1,"x":2,"id":"mine"}`, "", nil},
		{"kept", `{"id":"REMEDIATION:9"}`, "REMEDIATION:9", nil},
		{"too long", `{"id":"` + strings.Repeat("x", 257) + `"}`, "", []string{"Nats-Msg-Id", "header"}},
		{"control characters", `{"id":"x\r\ny"}`, "", nil},
		{"control characters in the header", `{}`, "", []string{"Nats-Msg-Id", "a\tb"}},
		{"not UTF-8", "{\"id\":\"mine\",\"comment\":\"\xff\"}", "mine", nil},
		{"not UTF-8 itself", "{\"id\":\"mine\xff\"}", "", nil},
		{"half a surrogate itself", `{"id":"mine\ud800"}`, "", nil},
		{"event's data", event + `{"id":"mine"}}`, "mine", nil},
		{"event", event + `{"machineId":"x"}}`, "/s#e", []string{"Nats-Msg-Id", "header"}},
		{"event without data", event + `null}`, "/s#e", nil},
		{"binary event", `{`, "/s#e", []string{"ce-specversion", "1.0", "ce-type", "t", "ce-source", "/s", "ce-id", "e", "Nats-Msg-Id", "header"}},
	} {
		_, invalid := sampleRules.Parse(sampleDelivery(c.payload, c.headers...))
		if invalid == nil || invalid.ClaimedID != c.want {
			t.Errorf("%s: %+v, want the claim %q", c.what, invalid, c.want)
		}
	}
}

// A message that is refused is answered where it asked for it, and with what it said of itself.
func TestParseEchoes(t *testing.T) {
	got, invalid := sampleRules.Parse(sampleDelivery(`{"id":"mine","machineId":"no","comment":"c","ticket":"T","batch":7,"metadata":{"a":1},"replyTo":"team.blue"}`, "traceparent", sampleTrace))
	want := Request{ID: "REMEDIATION:42", Derived: true, Comment: "c", Ticket: "T", Metadata: []byte(`{"a":1}`), ReplyTo: "team.blue", TraceParent: sampleTrace}
	if d := cmp.Diff(want, got); invalid == nil || d != "" {
		t.Error(invalid, d)
	}
	for _, payload := range []string{sampleFields(`"replyTo":"$SYS.x"`), sampleFields(`"replyTo":"team.blue"`) + "x", sampleFields(`"replyTo":"team.blue","a":1,"a":2`)} {
		if got, invalid := sampleRules.Parse(sampleDelivery(payload)); invalid == nil || got.ReplyTo != "" {
			t.Errorf("%s: an answer to %q, %v", payload, got.ReplyTo, invalid)
		}
	}
}

func TestCheckSubject(t *testing.T) {
	for _, good := range []string{"a", "a.b", "remediation.unrestrict", "_INBOX.x", "$JS.API", "a*b", "a.>b", "ä.日", strings.Repeat("x", 1024)} {
		if err := CheckSubject(good); err != nil {
			t.Errorf("%q: %v", good, err)
		}
	}
	for _, bad := range []string{"", ".", "a.", ".a", "a..b", "*", ">", "a.*", "a.>", "*.a", " ", "a b", " a", "a ", "a\tb", "a\r\nPUB x 1", "a\x00b", "a\x7fb", "a\u0085b", "a\u00a0b", "a\xffb", strings.Repeat("x", 1025)} {
		if CheckSubject(bad) == nil {
			t.Errorf("%q is taken", bad)
		}
	}
}

func TestMatches(t *testing.T) {
	for _, c := range []struct {
		pattern, subject string
		want             bool
	}{
		{"a.b", "a.b", true},
		{"a.b", "a.c", false},
		{"a.b", "a", false},
		{"a.b", "a.b.c", false},
		{"a.b", "A.b", false},
		{"a.*", "a.b", true},
		{"a.*", "a", false},
		{"a.*", "a.b.c", false},
		{"*.b", "a.b", true},
		{"a.>", "a.b", true},
		{"a.>", "a.b.c", true},
		{"a.>", "a", false},
		{">", "a", true},
	} {
		if got := matches(c.pattern, c.subject); got != c.want {
			t.Errorf("matches(%q, %q) = %v", c.pattern, c.subject, got)
		}
	}
}

func BenchmarkParse(b *testing.B) {
	soon := time.Now().Add(time.Hour).UTC().Format(time.RFC3339)
	body := sampleFields(`"id":"INC-4711-1","requestedBy":"ann@contoso.com","ticket":"INC-4711","batch":"b1","metadata":{"shift":"night","n":[1,2,3]},"expiresAt":"` + soon + `"`)
	signers, sign := signersOf(b, "ann")
	signed := sampleRules
	signed.Signers = signers
	for _, c := range []struct {
		what  string
		rules Rules
		d     Delivery
	}{
		{"plain", sampleRules, sampleDelivery(body, "Nats-Msg-Id", "x")},
		{"signed", signed, sign(sampleDelivery(body))},
		{"structured", sampleRules, sampleDelivery(`{"specversion":"1.0","type":"t","source":"/soar","id":"1","data":` + body + `}`)},
		{"binary", sampleRules, sampleDelivery(body, "ce-specversion", "1.0", "ce-type", "t", "ce-source", "/soar", "ce-id", "1")},
		{"hostile", sampleRules, sampleDelivery(`{"x":[` + strings.Repeat(`{"a":1},`, 8000) + `{}]}`)},
	} {
		b.Run(c.what, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				c.rules.Parse(c.d)
			}
		})
	}
}
