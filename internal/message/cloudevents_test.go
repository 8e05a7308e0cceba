package message

import (
	"encoding/base64"
	"encoding/json"
	"strings"
	"testing"

	"github.com/cloudevents/sdk-go/v2/event"
	"github.com/google/go-cmp/cmp"
)

func structured(data string) string {
	return `{"specversion":"1.0","type":"com.contoso.unrestrict","source":"/soar","id":"1",` + data + `}`
}

// binary are the headers of an event in binary mode, and more.
func binary(more ...string) []string {
	return append([]string{"ce-specversion", "1.0", "ce-type", "t", "ce-source", "/soar", "ce-id", "1"}, more...)
}

func TestParseCloudEvents(t *testing.T) {
	data := `"data":` + sampleFields("")
	const ce = "application/cloudevents+json"
	request := func(id string) Request { return Request{ID: id, MachineID: sampleMachine, Comment: "c"} }
	traced := request("/soar#1")
	traced.TraceParent, traced.TraceState = sampleTrace, "v=1"
	other := strings.Replace(sampleTrace, "4bf9", "4bf8", 1)
	for _, c := range []struct {
		what string
		d    Delivery
		want Request
	}{
		{"structured", sampleDelivery(structured(data), "Content-Type", ce), request("/soar#1")},
		{"content type with a parameter", sampleDelivery(structured(data), "content-type", "Application/CloudEvents+JSON; charset=utf-8"), request("/soar#1")},
		{"content type with a broken parameter", sampleDelivery(structured(data), "content-type", ce+"; charset"), request("/soar#1")},
		{"content type without a format", sampleDelivery(structured(data), "Content-Type", "application/cloudevents"), request("/soar#1")},
		{"known by its body", sampleDelivery(structured(data)), request("/soar#1")},
		{"known by its body, as JSON", sampleDelivery(structured(data), "Content-Type", "application/json"), request("/soar#1")},
		{"every attribute", sampleDelivery(structured(data + `,"subject":"x","time":"2026-01-01T00:00:00Z","datacontenttype":"application/json","dataschema":"https://x/y","extension":"e","other":{"a":1}`)), request("/soar#1")},
		{"null attributes", sampleDelivery(structured(data + `,"subject":null,"time":null,"datacontenttype":null,"dataschema":null`)), request("/soar#1")},
		{"own id first", sampleDelivery(structured(`"data":`+sampleFields(`"id":"own"`)), "Nats-Msg-Id", "header"), request("own")},
		{"event before header", sampleDelivery(structured(data), "Nats-Msg-Id", "header"), request("/soar#1")},
		{"field names in any case", sampleDelivery(structured(`"data":{"MACHINEID":"` + sampleMachine + `","Comment":"c"}`)), request("/soar#1")},
		{"base64", sampleDelivery(structured(`"data_base64":"` + base64.StdEncoding.EncodeToString([]byte(sampleFields(""))) + `"`)), request("/soar#1")},
		{"JSON by another name", sampleDelivery(structured(data + `,"datacontenttype":"application/vnd.contoso+json; v=1"`)), request("/soar#1")},
		{"structured, with ce- headers too", sampleDelivery(structured(data), append(binary(), "Content-Type", ce)...), request("/soar#1")},
		{"trace context of the event", sampleDelivery(structured(data + `,"traceparent":"` + sampleTrace + `","tracestate":"v=1"`)), traced},
		{"trace context of the message first", sampleDelivery(structured(data+`,"traceparent":"`+other+`"`), "traceparent", sampleTrace, "tracestate", "v=1"), traced},

		{"binary", sampleDelivery(sampleFields(""), binary()...), request("/soar#1")},
		{"binary, other spelling", sampleDelivery(sampleFields(""), "Ce-Specversion", "1.0", "CE-TYPE", "t", "Ce-Source", "/soar", "cE-iD", "1", "Content-Type", "application/json; charset=utf-8"), request("/soar#1")},
		{"binary, percent-encoded", sampleDelivery(sampleFields(""), "ce-specversion", "1.0", "ce-type", "t", "ce-source", "urn:%C3%BC", "ce-id", "a%20b%2541%"), request("urn:ü#a b%41%")},
		{"binary, all attributes", sampleDelivery(sampleFields(""), binary("ce-time", "2026-01-01T00:00:00.5Z", "ce-subject", "x", "ce-datacontenttype", "text/json", "ce-dataschema", "https://x", "ce-ext", "1")...), request("/soar#1")},
		{"binary, data type before content type", sampleDelivery(sampleFields(""), binary("ce-datacontenttype", "application/json", "Content-Type", "text/plain")...), request("/soar#1")},
		{"binary, own id first", sampleDelivery(sampleFields(`"id":"own"`), binary()...), request("own")},
		{"binary, the same twice", sampleDelivery(sampleFields(""), binary("CE-ID", "1", "ce-id", "1")...), request("/soar#1")},
		{"binary, a body that looks like an event", sampleDelivery(sampleFields(`"specversion":"1.0"`), binary()...), request("/soar#1")},
		{"binary, trace context", sampleDelivery(sampleFields(""), binary("ce-traceparent", sampleTrace, "ce-tracestate", "v=1")...), traced},
		{"an extension alone makes no event", sampleDelivery(sampleFields(""), "ce-extension", "x"), Request{ID: "REMEDIATION:42", Derived: true, MachineID: sampleMachine, Comment: "c"}},
		{"longest name", sampleDelivery(sampleFields(""), "ce-specversion", "1.0", "ce-type", "t", "ce-source", "/s", "ce-id", strings.Repeat("x", 253)), request("/s#" + strings.Repeat("x", 253))},
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

func TestParseCloudEventsRefuses(t *testing.T) {
	data := `"data":` + sampleFields("")
	const ce = "application/cloudevents+json"
	event := func(members string) string { return `{"specversion":"1.0",` + members + `,` + data + `}` }
	for _, c := range []struct {
		payload, want string
		headers       []string
	}{
		{structured(`"data":"x"`), "CloudEvent: data: is not a JSON object", nil},
		{structured(`"data":null`), "CloudEvent: data: is not a JSON object", nil},
		{structured(`"data":[` + sampleFields("") + `]`), "CloudEvent: data: is not a JSON object", nil},
		{structured(`"x":1`), "CloudEvent: data: is missing", nil},
		{structured(data + `,"data_base64":"e30="`), "CloudEvent: data: comes beside data_base64", nil},
		{structured(`"data_base64":"e30"`), "CloudEvent: data: is not valid base64", nil},
		{structured(`"data_base64":7`), "CloudEvent: data: is not valid base64", nil},
		{structured(`"data_base64":"e30="`), "machineId: is required", nil},
		{structured(`"data_base64":"eyJhIjoxLCJhIjoxfQ=="`), `CloudEvent: data: has the key "a" twice`, nil},
		{structured(`"data":{"machineId":"x","comment":"c"}`), "machineId: is not 40", nil},
		{structured(`"data":{"machineId":"x","comment":"c","comment":"d"}`), `payload: has the key "comment" twice`, nil},
		{structured(`"data":{"machineId":"x","comment":"c","Comment":"d"}`), "machineId: is not 40 hexadecimal digits; take the id, not the name, of the device in Defender; comment: is given in two spellings", nil},
		{structured(data + `,"id":"2"`), `payload: has the key "id" twice`, nil},
		{event(`"id":"1","source":"/s"`), "CloudEvent: type: MUST be a non-empty string", nil},
		{event(`"id":"1","type":"t"`), "CloudEvent: source: REQUIRED", nil},
		{event(`"source":"/s","type":"t"`), "CloudEvent: id:", nil},
		{event(`"id":"","source":"/s","type":"t"`), "CloudEvent: id:", nil},
		{event(`"id":7,"source":"/s","type":"t"`), "CloudEvent: id: is a number", nil},
		{event(`"id":"1","source":"/%zz","type":"t"`), "CloudEvent: source:", nil},
		{event(`"id":"1","source":"/s","type":"t","time":"today"`), "CloudEvent: time: is no RFC 3339 time", nil},
		{event(`"id":"1","source":"/s","type":"t","dataschema":"relative"`), "CloudEvent: dataschema:", nil},
		{event(`"id":"1","source":"/s","type":"t","datacontenttype":"text/xml"`), "CloudEvent: datacontenttype: is not JSON", nil},
		{event(`"id":"1","source":"/s","type":"t","datacontenttype":";"`), "CloudEvent: datacontenttype:", nil},
		{event(`"id":"` + strings.Repeat("x", 254) + `","source":"/s","type":"t"`), "CloudEvent: source#id: has more than 256 characters", nil},
		{event(`"id":"a\nb","source":"/s","type":"t"`), "CloudEvent: source#id: has control characters", nil},
		{`{"specversion":"0.3","id":"1","source":"/s","type":"t",` + data + `}`, "CloudEvent: specversion: only 1.0", nil},
		{`{"specversion":null,"id":"1","source":"/s","type":"t",` + data + `}`, "CloudEvent: specversion: only 1.0", nil},
		{sampleFields(""), "CloudEvent: specversion: only 1.0", []string{"Content-Type", ce}},
		{"{", "payload: is no JSON object", []string{"Content-Type", ce}},
		{"[" + structured(data) + "]", "header Content-Type: only application/cloudevents+json", []string{"Content-Type", "application/cloudevents-batch+json"}},
		{"x", "header Content-Type: only application/cloudevents+json", []string{"Content-Type", "application/cloudevents+avro"}},
		{`{"machineId":"x","comment":"c"}`, "machineId: is not 40", binary()},
		{sampleFields(""), "CloudEvent: specversion: only 1.0", []string{"ce-type", "t", "ce-source", "/s", "ce-id", "1"}},
		{sampleFields(""), "CloudEvent: id:", []string{"ce-specversion", "1.0", "ce-type", "t", "ce-source", "/s"}},
		{sampleFields(""), "CloudEvent: header ce-id: comes twice", binary("CE-ID", "2")},
		{sampleFields(""), "CloudEvent: header ce-id: comes twice", binary("ce-id", "2")},
		{sampleFields(""), "CloudEvent: header ce-subject: is not UTF-8", binary("ce-subject", "%FF")},
		{sampleFields(""), "CloudEvent: datacontenttype: is not JSON", binary("ce-datacontenttype", "text/plain")},
		{sampleFields(""), "CloudEvent: datacontenttype: is not JSON", binary("Content-Type", "text/plain")},
		{sampleFields(""), "CloudEvent: source#id: has control characters", []string{"ce-specversion", "1.0", "ce-type", "t", "ce-source", "/s", "ce-id", "a%0Ab"}},
		{structured(data), "machineId: is required", binary()},
	} {
		got, invalid := sampleRules.Parse(sampleDelivery(c.payload, c.headers...))
		if invalid == nil || invalid.Code != CodeMalformed || !strings.HasPrefix(invalid.Message, c.want) {
			t.Errorf("%.120s %v: %+v, %v, want %q", c.payload, c.headers, got, invalid, c.want)
		}
		if invalid != nil && strings.Contains(invalid.Message, "\n") {
			t.Errorf("message of several lines: %q", invalid.Message)
		}
	}
	// SOURCE#ID can't be made to look like a derived id, for # is no digit; a stream may have any name though.
	odd := sampleRules
	odd.Stream = "S#1"
	if _, invalid := odd.Parse(sampleDelivery(sampleFields(""), "ce-specversion", "1.0", "ce-type", "t", "ce-source", "S", "ce-id", "1:7")); invalid == nil {
		t.Error("an event took a derived id")
	}
}

// What a client of the CloudEvents SDK sends is taken.
func TestParseTakesTheSDKsEvents(t *testing.T) {
	e := event.New()
	e.SetID("run 81")
	e.SetSource("https://soar.contoso.com/playbooks/1")
	e.SetType("com.contoso.release")
	e.SetExtension("traceparent", sampleTrace)
	if err := e.SetData(event.ApplicationJSON, json.RawMessage(sampleFields(""))); err != nil {
		t.Fatal(err)
	}
	payload, err := json.Marshal(e)
	if err != nil {
		t.Fatal(err)
	}
	want := Request{ID: "https://soar.contoso.com/playbooks/1#run 81", MachineID: sampleMachine, Comment: "c", TraceParent: sampleTrace}
	got, invalid := sampleRules.Parse(sampleDelivery(string(payload)))
	if d := cmp.Diff(want, got); invalid != nil || d != "" {
		t.Error(invalid, d)
	}
}
