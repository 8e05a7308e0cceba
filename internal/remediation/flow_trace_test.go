package remediation_test

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/nats-io/nats.go/jetstream"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"

	"example.com/unrestrict-worker/internal/defender/defendersim"
	"example.com/unrestrict-worker/internal/message"
)

const (
	traceID     = "4bf92f3577b34da6a3ce929d0e0e4736"
	publisherID = "00f067aa0ba902b7"
	traceparent = "00-" + traceID + "-" + publisherID + "-01"
)

// ofTrace are the spans of one trace, in the order of their ends.
func (w *world) ofTrace(id string) (spans []sdktrace.ReadOnlySpan) {
	for _, s := range w.spans.Ended() {
		if s.SpanContext().TraceID().String() == id {
			spans = append(spans, s)
		}
	}
	return spans
}

// family writes each span as "name (kind) < parent's name", the publisher's being "publisher".
func family(spans []sdktrace.ReadOnlySpan) (all []string) {
	names := map[string]string{publisherID: "publisher", "0000000000000000": "nobody"}
	for _, s := range spans {
		names[s.SpanContext().SpanID().String()] = s.Name()
	}
	for _, s := range spans {
		parent, known := names[s.Parent().SpanID().String()]
		if !known {
			parent = "a stranger"
		}
		all = append(all, fmt.Sprintf("%s (%s) < %s", s.Name(), s.SpanKind(), parent))
	}
	return all
}

// said are a span's attributes and status.
func said(s sdktrace.ReadOnlySpan) map[string]string {
	all := map[string]string{"status": s.Status().Code.String() + s.Status().Description}
	for _, a := range s.Attributes() {
		all[string(a.Key)] = a.Value.String()
	}
	return all
}

// carried are the traceparents of the results, in order.
func (w *world) carried() (parents []string) {
	w.t.Helper()
	w.read(w.results, 0, func(m *jetstream.RawStreamMsg) {
		parents = append(parents, message.Header(m.Header).Get("traceparent"))
	})
	return parents
}

func contextOf(s sdktrace.ReadOnlySpan) string {
	return "00-" + s.SpanContext().TraceID().String() + "-" + s.SpanContext().SpanID().String() + "-01"
}

// A request with a traceparent, spelled as the publisher likes, ends as one trace.
func TestRequestIsOneTrace(t *testing.T) {
	inWorld(t, setup{traced: true}, func(w *world) {
		w.publish("r1", message.Header{"TraceParent": {traceparent}, "Nats-Msg-Id": {"m1"}}, payload("r1", 1))
		w.settled(10 * time.Minute)
		spans := w.ofTrace(traceID)
		want := []string{
			"POST /api/machines/{id}/unrestrictCodeExecution (client) < process remediation.unrestrict",
			"publish remediation.results (producer) < process remediation.unrestrict",
			"process remediation.unrestrict (consumer) < publisher",
			"follow machine action (internal) < publisher",
			"publish remediation.results (producer) < follow machine action",
		}
		if diff := cmp.Diff(want, family(spans)); diff != "" {
			t.Fatal(diff)
		}
		if diff := cmp.Diff([]string{contextOf(spans[1]), contextOf(spans[4])}, w.carried()); diff != "" {
			t.Errorf("the results' traceparents: %s", diff)
		}
		if links := spans[2].Links(); len(links) != 1 || links[0].SpanContext.SpanID().String() != publisherID {
			t.Errorf("links %v", links)
		}
		e := w.entry("r1")
		if got := spans[3]; !got.StartTime().Equal(e.AcceptedAt) || !got.EndTime().Equal(e.DecidedAt) {
			t.Errorf("the device's span is from %v to %v, the entry says %v to %v", got.StartTime(), got.EndTime(), e.AcceptedAt, e.DecidedAt)
		}
		wantAttributes(t, spans, e.ActionID)
	})
}

// wantAttributes holds the attributes against OpenTelemetry's names, as they stand in its pages.
func wantAttributes(t *testing.T, spans []sdktrace.ReadOnlySpan, action string) {
	t.Helper()
	request := map[string]string{"messaging.message.conversation_id": "r1", "unrestrict.run": "1", "unrestrict.attempts": "1", "unrestrict.lane": "normal", "unrestrict.machine.id": machine(1), "unrestrict.action.id": action, "status": "Unset"}
	with := func(base map[string]string, more ...string) map[string]string {
		all := maps.Clone(base)
		for i := 0; i < len(more); i += 2 {
			all[more[i]] = more[i+1]
		}
		return all
	}
	send := map[string]string{
		"messaging.system": "nats", "messaging.operation.name": "publish", "messaging.operation.type": "send",
		"messaging.destination.name": "remediation.results", "messaging.message.conversation_id": "r1", "status": "Unset",
	}
	for i, want := range []map[string]string{
		{
			"http.request.method": "POST", "http.response.status_code": "201", "url.template": "/api/machines/{id}/unrestrictCodeExecution",
			"url.full":       "http://127.0.0.1/api/machines/" + machine(1) + "/unrestrictCodeExecution",
			"server.address": "127.0.0.1", "server.port": "80", "status": "Unset",
		},
		with(send, "messaging.message.id", "r1:submitted:1"),
		with(request, "messaging.system", "nats", "messaging.operation.name", "process", "messaging.operation.type", "process",
			"messaging.destination.name", "remediation.unrestrict", "messaging.consumer.group.name", "unrestrict-worker",
			"messaging.message.id", "m1", "unrestrict.message", "REMEDIATION:1", "unrestrict.outcome", "submitted"),
		with(request, "unrestrict.outcome", "succeeded"),
		with(send, "messaging.message.id", "r1:final:1"),
	} {
		if diff := cmp.Diff(want, said(spans[i])); diff != "" {
			t.Errorf("%s: %s", spans[i].Name(), diff)
		}
	}
}

// A request that brings no traceparent is one trace of its own, whichever replica dies over it and when.
func TestTraceSurvivesDeath(t *testing.T) {
	for _, at := range []point{atIntent, atMachine, atPost, atRecord, atSubmitted, atAck, atDecision, atFinal, atMark} {
		for _, done := range []bool{false, true} {
			f := fault{at: at, done: done, dies: true, times: 1}
			t.Run(f.String(), func(t *testing.T) {
				inWorld(t, setup{traced: true, replicas: 2}, func(w *world) {
					w.faults.inject(f)
					w.ask("r1", 1)
					w.settled(10 * time.Minute)
					w.wantFinal("r1", "succeeded")
					id := strings.Split(w.entry("r1").TraceParent, "-")[1]
					var strangers []string
					for _, s := range w.spans.Ended() {
						// A round of the tracker is about all requests, and belongs to none.
						followed := s.Name() == "GET /api/machineactions" && !s.Parent().IsValid()
						if !followed && s.SpanContext().TraceID().String() != id {
							strangers = append(strangers, s.Name())
						}
					}
					// What a process has not made durable before it dies, the id of a trace among it, is not known after it.
					if at == atIntent && !done {
						strangers = nil
					}
					if strangers != nil {
						t.Errorf("in other traces: %q", strangers)
					}
					family := family(w.ofTrace(id))
					roots := slices.DeleteFunc(slices.Clone(family), func(s string) bool { return !strings.HasSuffix(s, "< nobody") })
					if len(roots) != 1 || !slices.Contains(family, "publish remediation.results (producer) < follow machine action") && at != atDecision && at != atFinal && at != atMark {
						t.Errorf("%q", family)
					}
					for _, parent := range w.carried() {
						if !strings.HasPrefix(parent, "00-"+id) {
							t.Errorf("a result goes on with %s", parent)
						}
					}
				})
			})
		}
	}
}

// The extension of a structured CloudEvent counts like the header.
func TestTraceOfStructuredEvent(t *testing.T) {
	inWorld(t, setup{traced: true}, func(w *world) {
		event := fmt.Sprintf(`{"specversion":"1.0","type":"t","source":"s","id":"1","traceparent":%q,"data":%s}`, traceparent, payload("r1", 1))
		w.publish("r1", message.Header{"Content-Type": {"application/cloudevents+json"}}, []byte(event))
		w.settled(10 * time.Minute)
		if got := family(w.ofTrace(traceID)); len(got) != 5 {
			t.Errorf("%q", got)
		}
	})
}

// Each way a request can go shows on its spans, and nothing that anybody has written does.
func TestSpansTellFailures(t *testing.T) {
	const comment = "words that are nobody's business"
	inWorld(t, setup{traced: true}, func(w *world) {
		w.api.Inject(defendersim.Fault{Op: "unrestrict", Machine: machine(1), Status: 400, Code: "ClientVersionNotSupported", Message: comment})
		w.api.Inject(defendersim.Fault{Op: "unrestrict", Machine: machine(2), Status: 429, RetryAfter: 10 * time.Second, Times: 1})
		w.api.AddMachine(machine(3), defendersim.Machine{Outcome: "Failed"})
		h := message.Header{"traceparent": {traceparent}}
		for _, n := range []int{1, 3, 2} {
			w.passes(time.Second) // each by itself: the 429 would keep others from their calls
			w.publish(fmt.Sprint("r", n), h, payload(fmt.Sprint("r", n), n, field{"comment", fmt.Sprintf(`"%s %d"`, comment, n)}))
		}
		w.publish("", h, []byte(`{"machineId":"none","comment":"`+comment+`"}`))
		w.settled(20 * time.Minute)
		var told []string
		for _, s := range w.ofTrace(traceID) {
			a := said(s)
			if a["unrestrict.put_off"] == "quota" { // what the 429 sent back may answer a pull that was under way, once
				continue
			}
			if a["status"] != "Unset" || a["unrestrict.put_off"] != "" {
				told = append(told, fmt.Sprintf("%s: %s %s%s %s %s", a["messaging.message.conversation_id"], s.Name(), a["http.response.status_code"], a["unrestrict.outcome"], a["error.type"]+a["unrestrict.put_off"], a["status"]))
			}
		}
		slices.Sort(told)
		want := []string{
			": POST /api/machines/{id}/unrestrictCodeExecution 400 400 Errorrejected",
			": POST /api/machines/{id}/unrestrictCodeExecution 429 429 Errorthrottled",
			"REMEDIATION:4: process remediation.unrestrict rejected malformed Errormalformed",
			"r1: process remediation.unrestrict rejected ClientVersionNotSupported ErrorClientVersionNotSupported",
			"r2: process remediation.unrestrict  throttled Unset",
			"r3: follow machine action failed  Errorfailed",
		}
		if diff := cmp.Diff(want, told); diff != "" {
			t.Error(diff)
		}
		token := w.api.IssueToken(time.Hour)
		for _, s := range w.spans.Ended() {
			for key, value := range said(s) {
				if strings.Contains(value, comment) || strings.Contains(value, "Bearer") || strings.Contains(value, token[:16]) {
					t.Errorf("%s: %s is %q", s.Name(), key, value)
				}
			}
			if len(s.Events()) > 0 {
				t.Errorf("%s has events %v", s.Name(), s.Events())
			}
		}
	})
}

// Another message with the same id has a trace of its own, and the results stay in the first one's.
func TestSecondMessageKeepsTheTraces(t *testing.T) {
	const other = "00-aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa-bbbbbbbbbbbbbbbb-01"
	inWorld(t, setup{traced: true, replicas: 2}, func(w *world) {
		w.faults.inject(fault{at: atSubmitted, times: 1, dies: true})
		w.publish("r1", message.Header{"traceparent": {traceparent}}, payload("r1", 1))
		w.passes(time.Second)
		w.publish("r1", message.Header{"traceparent": {other}}, payload("r1", 1)) // this one tells
		w.settled(10 * time.Minute)
		if len(w.carried()) != 2 {
			t.Errorf("results with %q", w.carried())
		}
		for _, parent := range w.carried() {
			if !strings.HasPrefix(parent, "00-"+traceID) {
				t.Errorf("a result goes on with %s", parent)
			}
		}
		if got := family(w.ofTrace(strings.Repeat("a", 32))); !slices.Equal(got, []string{"process remediation.unrestrict (consumer) < a stranger"}) {
			t.Errorf("the second message's trace has %q", got)
		}
	})
}

// A publisher that doesn't sample is followed in that; without tracing the results bear what the request did.
func TestUnsampledAndUntraced(t *testing.T) {
	const unsampled, state = "00-" + traceID + "-" + publisherID + "-00", "vendor=x"
	for _, traced := range []bool{true, false} {
		inWorld(t, setup{traced: traced}, func(w *world) {
			w.publish("r1", message.Header{"traceparent": {unsampled}, "tracestate": {state}}, payload("r1", 1))
			w.settled(10 * time.Minute)
			for _, parent := range w.carried() {
				if traced && (len(w.ofTrace(traceID)) > 0 || !strings.HasPrefix(parent, "00-"+traceID) || !strings.HasSuffix(parent, "-00")) {
					t.Errorf("traced: %s, %q", parent, family(w.ofTrace(traceID)))
				}
				if !traced && parent != unsampled {
					t.Errorf("not traced: %s", parent)
				}
			}
			if len(w.carried()) != 2 || w.entry("r1").TraceState != state {
				t.Errorf("results %q, state %q", w.carried(), w.entry("r1").TraceState)
			}
		})
	}
}
