package message

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/goccy/go-yaml"
	"github.com/google/go-cmp/cmp"
	"github.com/santhosh-tekuri/jsonschema/v6"
)

func readDoc(t *testing.T, name string) []byte {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("..", "..", "docs", name))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func compileSchema(t *testing.T, schema any) *jsonschema.Schema {
	t.Helper()
	c := jsonschema.NewCompiler()
	c.DefaultDraft(jsonschema.Draft2020)
	c.AssertFormat()
	if err := c.AddResource("mem:///schema.json", schema); err != nil {
		t.Fatal(err)
	}
	s, err := c.Compile("mem:///schema.json")
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func readSchema(t *testing.T, name string) *jsonschema.Schema {
	t.Helper()
	return compileSchema(t, readJSON(t, readDoc(t, "schemas/"+name+".json")))
}

func readJSON(t *testing.T, text []byte) any {
	t.Helper()
	v, err := jsonschema.UnmarshalJSON(bytes.NewReader(text))
	if err != nil {
		t.Fatalf("%v: %s", err, text)
	}
	return v
}

// What the schema takes the worker takes, and the other way round where a schema can tell.
func TestRequestSchema(t *testing.T) {
	schema := readSchema(t, "request")
	event := func(members string) string {
		return `{"specversion":"1.0","id":"1","source":"/s","type":"t",` + members + `}`
	}
	for payload, good := range map[string]bool{
		sampleFields(""): true,
		strings.Replace(sampleFields(`"id":"x","requestedBy":"r","ticket":"t","batch":"b","metadata":{"a":[1,null]},"expiresAt":"2099-01-01T00:00:00Z","replyTo":"a.b","unknown":1`), sampleMachine, strings.ToUpper(sampleMachine), 1): true,
		sampleFields(`"id":null,"requestedBy":null,"ticket":null,"batch":null,"metadata":null,"expiresAt":null,"replyTo":null`):                                                                                                         true,
		sampleFields(`"id":"` + strings.Repeat("語", 256) + `"`): true,
		sampleFields(`"replyTo":"_INBOX.a*b.x"`):                true,
		event(`"data":` + sampleFields(`"id":"x"`)):             true,
		event(`"data_base64":"eyJtYWNoaW5lSWQiOiIxZTViYzlkN2U0MTNkZGQ3OTAyYzI5MzJlNDE4NzAyYjg0ZDBjYzA3IiwiY29tbWVudCI6ImMifQ=="`):                           true,
		event(`"data":` + sampleFields("") + `,"datacontenttype":"application/json; charset=utf-8","time":"2026-01-01T00:00:00Z","subject":null,"ext":"e"`): true,

		`{}`: false, `[]`: false, `null`: false, `"x"`: false,
		`{"comment":"c"}`:                                                                     false,
		`{"machineId":"` + sampleMachine + `"}`:                                               false,
		`{"machineId":null,"comment":"c"}`:                                                    false,
		`{"machineId":"` + sampleMachine + `","comment":null}`:                                false,
		`{"machineId":"` + sampleMachine[1:] + `","comment":"c"}`:                             false,
		`{"machineId":"` + sampleMachine + `0","comment":"c"}`:                                false,
		`{"machineId":"` + sampleMachine + `","comment":""}`:                                  false,
		`{"machineId":"` + sampleMachine + `","comment":" \t\n"}`:                             false,
		`{"machineId":"` + sampleMachine + `","comment":"` + strings.Repeat("日", 4001) + `"}`: false,
		sampleFields(`"id":""`):                                                               false,
		sampleFields(`"id":7`):                                                                false,
		sampleFields(`"id":"a\nb"`):                                                           false,
		sampleFields(`"id":"a\u0085b"`):                                                       false,
		sampleFields(`"id":"` + strings.Repeat("語", 257) + `"`):                               false,
		sampleFields(`"ticket":{}`):                                                           false,
		sampleFields(`"metadata":[]`):                                                         false,
		sampleFields(`"expiresAt":"tomorrow"`):                                                false,
		sampleFields(`"replyTo":""`):                                                          false,
		sampleFields(`"replyTo":"a.*"`):                                                       false,
		sampleFields(`"replyTo":">"`):                                                         false,
		sampleFields(`"replyTo":"a..b"`):                                                      false,
		sampleFields(`"replyTo":"a b"`):                                                       false,
		sampleFields(`"replyTo":"$SYS.x"`):                                                    false,
		sampleFields(`"replyTo":"_R_.x"`):                                                     false,
		event(`"x":1`):                                                                        false,
		event(`"data":"x"`):                                                                   false,
		event(`"data":{"comment":"c"}`):                                                       false,
		event(`"data":` + sampleFields("") + `,"data_base64":"e30="`):                         false,
		event(`"data":` + sampleFields("") + `,"datacontenttype":"text/xml"`):                 false,
		`{"specversion":"0.3","id":"1","source":"/s","type":"t","data":` + sampleFields("") + `}`: false,
		`{"specversion":"1.0","id":"1","source":"/s","data":` + sampleFields("") + `}`:            false,
		`{"specversion":"1.0","id":"","source":"/s","type":"t","data":` + sampleFields("") + `}`:  false,
	} {
		if err := schema.Validate(readJSON(t, []byte(payload))); (err == nil) != good {
			t.Errorf("schema, %.200s: %v", payload, err)
		}
		if _, invalid := sampleRules.Parse(sampleDelivery(payload)); (invalid == nil) != good {
			t.Errorf("Parse, %.200s: %v", payload, invalid)
		}
	}
}

// The event's data is described as the plain request is.
func TestRequestSchemaShapes(t *testing.T) {
	var doc struct {
		Then struct {
			Properties struct {
				Data struct{ Required, Properties any }
			}
		}
		Else struct{ Required, Properties any }
	}
	if err := json.Unmarshal(readDoc(t, "schemas/request.json"), &doc); err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(doc.Else, doc.Then.Properties.Data); d != "" {
		t.Error(d)
	}
	described, _ := doc.Else.Properties.(map[string]any)
	for _, name := range fieldNames {
		if described[name] == nil {
			t.Errorf("no %s in the schema", name)
		}
	}
	if len(described) != len(fieldNames) {
		t.Errorf("%d fields in the schema, %d in the code", len(described), len(fieldNames))
	}
}

func TestResultSchema(t *testing.T) {
	schema := readSchema(t, "result")
	for name, r := range sampleResults() {
		for _, limit := range []int{0, 1 << 10} {
			_, body, err := r.Render("/s", Trace{}, limit)
			if err != nil {
				t.Fatal(err)
			}
			if err := schema.Validate(readJSON(t, body)); err != nil {
				t.Errorf("%s: %v", name, err)
			}
		}
	}
	_, good, err := sampleResults()["succeeded"].Render("/s", Trace{}, 0)
	if err != nil {
		t.Fatal(err)
	}
	for _, change := range []struct {
		name  string
		value any // nil: taken out
	}{
		{"requestId", nil},
		{"run", nil},
		{"outcome", nil},
		{"final", nil},
		{"attempts", nil},
		{"receivedAt", nil},
		{"finishedAt", nil},
		{"run", 0},
		{"outcome", "maybe"},
		{"final", false},
		{"machineId", "x"},
		{"claimedId", "x"},
		{"attempts", -1},
		{"adopted", false},
		{"receivedAt", "now"},
		{"machineAction", "x"},
		{"machineActionTruncated", true},
		{"metadataTruncated", true},
		{"outcome", "rejected"},
		{"metadata", 1},
		{"error", map[string]any{"code": "x", "message": "y"}},
		{"error", map[string]any{"code": "x", "message": "y", "origin": "nobody"}},
	} {
		var m map[string]any
		if err := json.Unmarshal(good, &m); err != nil {
			t.Fatal(err)
		}
		if m[change.name] = change.value; change.value == nil {
			delete(m, change.name)
		}
		text, _ := json.Marshal(m)
		if schema.Validate(readJSON(t, text)) == nil {
			t.Errorf("the schema takes a result with %s %v", change.name, change.value)
		}
	}
}

// TestAsyncAPI: the document is well-formed, its references lead somewhere, and its payloads are the schema files.
func TestAsyncAPI(t *testing.T) {
	text, err := yaml.YAMLToJSON(readDoc(t, "asyncapi.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	doc, _ := readJSON(t, text).(map[string]any)
	at := func(path string) any {
		var v any = doc
		for part := range strings.SplitSeq(path, "/") {
			m, _ := v.(map[string]any)
			v = m[part]
		}
		return v
	}
	if at("asyncapi") != "3.0.0" {
		t.Errorf("asyncapi: %v", at("asyncapi"))
	}
	for channel, address := range map[string]string{"unrestrict": "remediation.unrestrict", "results": "remediation.results", "deadletter": "remediation.deadletter", "control": "remediation.control"} {
		if at("channels/"+channel+"/address") != address {
			t.Errorf("channel %s: %v", channel, at("channels/"+channel))
		}
	}
	for _, ref := range regexp.MustCompile(`"\$ref":"([^"]*)"`).FindAllStringSubmatch(string(text), -1) {
		if path, ok := strings.CutPrefix(ref[1], "#/"); !ok || at(path) == nil {
			t.Errorf("$ref %s leads nowhere", ref[1])
		}
	}
	for name, file := range map[string]string{"request": "request", "result": "result", "order": "control"} {
		want := readJSON(t, readDoc(t, "schemas/"+file+".json"))
		if d := cmp.Diff(want, at("components/messages/"+name+"/payload/schema")); d != "" {
			t.Errorf("the payload of %s is not schemas/%s.json: %s", name, file, d)
		}
		schema := readSchema(t, file)
		examples, _ := at("components/messages/" + name + "/examples").([]any)
		if len(examples) == 0 {
			t.Errorf("no example of %s", name)
		}
		for _, e := range examples {
			m, _ := e.(map[string]any)
			if err := schema.Validate(m["payload"]); err != nil {
				t.Errorf("example %v of %s: %v", m["name"], name, err)
			}
		}
	}
	checkHeaders(t, compileSchema(t, at("components/messages/result/headers")), func() []Header {
		var list []Header
		for _, r := range sampleResults() {
			h, _, err := r.Render("/s", Trace{Parent: sampleTrace}, 0)
			if err != nil {
				t.Fatal(err)
			}
			list = append(list, h)
		}
		return list
	}()...)
	h, _ := sampleDead(sampleDelivery("x", "Nats-Msg-Id", "y")).Render(0)
	cut, _ := sampleDead(sampleDelivery(strings.Repeat("x", 9999))).Render(2000)
	checkHeaders(t, compileSchema(t, at("components/messages/deadLetter/headers")), h, cut)
}

// checkHeaders holds headers against a schema, which must also name each of them.
func checkHeaders(t *testing.T, schema *jsonschema.Schema, headers ...Header) {
	t.Helper()
	for _, h := range headers {
		flat := map[string]any{}
		for name, values := range h {
			flat[name] = values[0]
			if schema.Properties[name] == nil {
				t.Errorf("the header %s is not described", name)
			}
		}
		if err := schema.Validate(flat); err != nil {
			t.Errorf("%v: %v", h, err)
		}
	}
}

// TestMessagesPage: the examples on the page for people are what they are said to be.
func TestMessagesPage(t *testing.T) {
	page := string(readDoc(t, "messages.md"))
	count := map[string]int{}
	for _, block := range regexp.MustCompile("(?s)```json ([a-z]*)\n(.*?)```").FindAllStringSubmatch(page, -1) {
		kind, text := block[1], block[2]
		count[kind]++
		if err := readSchema(t, kind).Validate(readJSON(t, []byte(text))); err != nil {
			t.Errorf("%v in %s", err, text)
		}
		if _, invalid := sampleRules.Parse(sampleDelivery(text)); kind == "request" && invalid != nil {
			t.Errorf("%v in %s", invalid, text)
		}
		if _, invalid := (Rules{}).ParseOrder(orderDelivery(text, nil)); kind == "control" && invalid != nil {
			t.Errorf("%v in %s", invalid, text)
		}
	}
	if count["request"] < 3 || count["result"] < 4 || count["audit"] < 2 || count["control"] < 2 || len(count) != 4 {
		t.Errorf("examples: %v", count)
	}
	for _, name := range []string{HeaderDeadReason, HeaderDeadMessage, HeaderDeadRequestID, HeaderDeadRun, HeaderDeadAttempts, HeaderDeadTime, HeaderDeadSubject, HeaderDeadStream, HeaderDeadSequence, HeaderDeadPublished, HeaderDeadTruncated, HeaderReplay, HeaderSigner, HeaderSignature} {
		if !strings.Contains(page, name) {
			t.Errorf("%s is not explained", name)
		}
	}
}
