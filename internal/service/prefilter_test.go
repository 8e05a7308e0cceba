package service

import (
	"testing"

	"example.com/unrestrict-worker/internal/broker"
	"example.com/unrestrict-worker/internal/message"
)

// A prefilter rules a message out only if that can't have the name.
func TestGlance(t *testing.T) {
	for name, c := range map[string]struct {
		look, payload string
		header        message.Header
		inPayload     bool // it is not ruled out by its payload alone
		in            bool
	}{
		"its id":                         {"INC-1", `{"id":"INC-1"}`, nil, true, true},
		"another id":                     {"INC-1", `{"id":"INC-2"}`, nil, false, false},
		"its machine in another case":    {"00AA", `{"id":"x","machineId":"00aa"}`, nil, true, true},
		"an id in a header":              {"INC-1", `{"machineId":"00aa"}`, message.Header{"Nats-Msg-Id": {"INC-1"}}, true, true},
		"another id in a header":         {"INC-1", `{"machineId":"00aa"}`, message.Header{"Nats-Msg-Id": {"INC-2"}}, true, false},
		"an id of something in it":       {"INC-1", `{"metadata":{"id":"x"}}`, message.Header{"Nats-Msg-Id": {"INC-1"}}, true, true},
		"a text that is called id":       {"INC-1", `{"comment":"id"}`, message.Header{"Nats-Msg-Id": {"INC-1"}}, true, true},
		"an id with another name's case": {"INC-1", `{"ID" : "INC-2"}`, nil, false, false},
		"escaped":                        {"INC-1", `{"id":"\u0049NC-1"}`, nil, true, true},
		"encoded":                        {"INC-1", `{"specversion":"1.0","id":"x","data_base64":"eyJpZCI6IklOQy0xIn0="}`, nil, true, true},
		"encoded in a header":            {"INC 1", `{"machineId":"00aa"}`, message.Header{"Ce-Id": {"INC%201"}}, true, true},
		"a CloudEvent":                   {"https://soc#7", `{"specversion":"1.0","source":"https://soc","id":"7"}`, nil, true, true},
		"by its place":                   {"REMEDIATION:42", `{"id":"x"}`, nil, false, true},
		"a replay":                       {"INC-1", `{"machineId":"00aa"}`, message.Header{message.HeaderReplay: {"3"}}, true, true},
		"cut":                            {"INC-1", `{"id`, nil, true, false},
		"anything":                       {"", `{"id":"x"}`, nil, true, true},
	} {
		filter := newPrefilter(c.look)
		m := broker.Message{Sequence: 42, Header: c.header, Data: []byte(c.payload)}
		if in, inPayload := filter.mayMatch(m), filter.mayMatchPayload(m.Data); in != c.in || inPayload != c.inPayload {
			t.Errorf("%s: %t, by its payload %t", name, in, inPayload)
		}
	}
}
