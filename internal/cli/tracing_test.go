package cli

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	collector "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	common "go.opentelemetry.io/proto/otlp/common/v1"
	spans "go.opentelemetry.io/proto/otlp/trace/v1"
	"go.uber.org/zap"
	"google.golang.org/protobuf/proto"

	"example.com/unrestrict-worker/internal/config"
	"example.com/unrestrict-worker/internal/message"
	"example.com/unrestrict-worker/internal/service"
)

// receiver is an OTLP collector.
type receiver struct {
	mu       sync.Mutex
	resource map[string]string
	spans    []*spans.Span
	headers  http.Header
	failed   error
}

func (r *receiver) ServeHTTP(w http.ResponseWriter, q *http.Request) {
	r.mu.Lock()
	defer r.mu.Unlock()
	body, err := io.ReadAll(q.Body)
	var export collector.ExportTraceServiceRequest
	err = errors.Join(err, proto.Unmarshal(body, &export))
	if q.URL.Path != "/v1/traces" {
		err = errors.Join(err, errors.New("asked for "+q.URL.Path))
	}
	r.failed, r.headers = errors.Join(r.failed, err), q.Header
	for _, rs := range export.GetResourceSpans() {
		r.resource = valuesOf(rs.GetResource().GetAttributes())
		for _, ss := range rs.GetScopeSpans() {
			r.spans = append(r.spans, ss.GetSpans()...)
		}
	}
	w.Header().Set("Content-Type", "application/x-protobuf")
}

func valuesOf(attributes []*common.KeyValue) map[string]string {
	all := map[string]string{}
	for _, a := range attributes {
		all[a.GetKey()] = a.GetValue().GetStringValue()
	}
	return all
}

// lines writes each span of a trace as "name < parent's name".
func (r *receiver) lines(trace string) (all []string) {
	names := map[string]string{"\x00\xf0\x67\xaa\x0b\xa9\x02\xb7": "publisher"}
	for _, s := range r.spans {
		names[string(s.GetSpanId())] = s.GetName()
	}
	for _, s := range r.spans {
		if string(s.GetTraceId()) == trace {
			all = append(all, s.GetName()+" < "+names[string(s.GetParentSpanId())])
		}
	}
	slices.Sort(all)
	return all
}

// tracedSystem is a system that exports to url, and its log.
func tracedSystem(t *testing.T, url string, more map[string]string) (*system, *bytes.Buffer) {
	t.Helper()
	t.Setenv("OTEL_EXPORTER_OTLP_ENDPOINT", url)
	for name, value := range more {
		t.Setenv(name, value)
	}
	s, err := newSystem(t.TempDir())
	t.Cleanup(s.close)
	out := &bytes.Buffer{}
	s.log = out
	if err = errors.Join(err, s.start(context.WithoutCancel(t.Context()), nil)); err != nil {
		t.Fatal(err)
	}
	return s, out
}

// carriesOut sees a request through to its two results.
func (s *system) carriesOut(t *testing.T, h message.Header) {
	t.Helper()
	b := s.work.Broker
	if _, err := b.Publish(t.Context(), message.LaneNormal, h, []byte(`{"id":"r1","machineId":"`+MachineOf(1)+`","comment":"not for traces"}`)); err != nil {
		t.Fatal(err)
	}
	for lastSequence(t, b, b.Names().ResultsStream) < 2 && service.Pause(t.Context(), 10*time.Millisecond) {
	}
}

// printed is what the SDK prints past the log meanwhile.
func printed(t *testing.T) *bytes.Buffer {
	t.Helper()
	out := &bytes.Buffer{}
	log.SetOutput(out)
	t.Cleanup(func() { log.SetOutput(os.Stderr) })
	return out
}

// TestTraceReachesTheCollector is one request from a publisher with a traceparent, over the real exporter.
func TestTraceReachesTheCollector(t *testing.T) {
	to := &receiver{}
	srv := httptest.NewServer(to)
	defer srv.Close()
	s, out := tracedSystem(t, srv.URL, map[string]string{
		"OTEL_SERVICE_NAME": "containment", "OTEL_RESOURCE_ATTRIBUTES": "deployment.environment.name=test", "OTEL_EXPORTER_OTLP_HEADERS": "x-key=s3cret",
	})
	s.carriesOut(t, message.Header{"traceparent": {traceparentOf(1)}})
	s.stop()
	to.mu.Lock()
	defer to.mu.Unlock()
	if to.failed != nil || to.headers.Get("X-Key") != "s3cret" {
		t.Errorf("%v, %v", to.failed, to.headers)
	}
	want := []string{
		"POST /api/machines/{id}/unrestrictCodeExecution < process remediation.unrestrict",
		"follow machine action < publisher",
		"process remediation.unrestrict < publisher",
		"publish remediation.results < follow machine action",
		"publish remediation.results < process remediation.unrestrict",
	}
	if diff := cmp.Diff(want, to.lines(strings.Repeat("\x00", 15)+"\x01")); diff != "" {
		t.Error(diff)
	}
	r := to.resource
	if r["service.name"] != "containment" || r["deployment.environment.name"] != "test" || r["service.instance.id"] != s.work.Owner || r["service.version"] == "" || r["telemetry.sdk.name"] != "opentelemetry" {
		t.Errorf("the resource is %v", r)
	}
	for _, span := range to.spans {
		if strings.Contains(span.String(), "not for traces") {
			t.Errorf("the comment is in %s", span.GetName())
		}
	}
	ids := map[any]bool{}
	for _, line := range logged(t, out.String()) {
		if line["msg"] == "call accepted" || line["msg"] == "request decided" {
			if line["trace_id"] != traceparentOf(1)[3:35] || line["request_id"] != "r1" {
				t.Errorf("%v", line)
			}
			ids[line["span_id"]] = true
		}
	}
	if len(ids) != 2 { // one of the passage, and none of the tracker
		t.Errorf("span ids %v", slices.Collect(maps.Keys(ids)))
	}
}

// TestCollectorAway: nobody waits for a collector that isn't there, and the log says so once.
func TestCollectorAway(t *testing.T) {
	srv := httptest.NewServer(nil)
	srv.Close()
	past := printed(t)
	s, out := tracedSystem(t, srv.URL, map[string]string{"OTEL_BSP_SCHEDULE_DELAY": "1", "OTEL_BSP_MAX_EXPORT_BATCH_SIZE": "1"})
	s.carriesOut(t, nil)
	s.stop()
	lost := 0
	for _, line := range logged(t, out.String()) {
		if strings.HasPrefix(line["msg"].(string), "spans are lost") {
			lost++
		}
	}
	if lost != 1 || past.Len() > 0 {
		t.Errorf("%d lines of lost spans; past the log: %s", lost, past)
	}
}

// TestCollectorHangs: a collector that never answers is cut off when the worker ends.
func TestCollectorHangs(t *testing.T) {
	const never = "86400000"
	cut := make(chan struct{})
	srv := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		_, _ = io.ReadAll(r.Body) // the server sees a connection's end only after the body's
		<-r.Context().Done()
		select {
		case <-cut:
		default:
			close(cut)
		}
	}))
	defer srv.Close()
	past := printed(t)
	s, _ := tracedSystem(t, srv.URL, map[string]string{"OTEL_EXPORTER_OTLP_TIMEOUT": never, "OTEL_BSP_EXPORT_TIMEOUT": never})
	s.carriesOut(t, nil)
	s.stop()
	<-cut
	if past.Len() > 0 {
		t.Errorf("past the log: %s", past)
	}
}

// TestTracesAreOff unless a collector is named, and where it is said so; what can't be done is an error that names its
// variable and none of its value.
func TestTracesAreOff(t *testing.T) {
	const general, traces = "OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"
	for name, c := range map[string]struct {
		variables map[string]string
		on        bool
		mistake   string
	}{
		"nothing":          {},
		"empty":            {variables: map[string]string{general: ""}},
		"name alone":       {variables: map[string]string{"OTEL_SERVICE_NAME": "x"}},
		"collector":        {variables: map[string]string{general: "http://localhost:4318"}, on: true},
		"for traces":       {variables: map[string]string{traces: "https://c:4318/v1/traces", "OTEL_TRACES_EXPORTER": "otlp"}, on: true},
		"http/json":        {variables: map[string]string{general: "http://c:4318", "OTEL_EXPORTER_OTLP_PROTOCOL": "http/json"}, on: true},
		"headers":          {variables: map[string]string{general: "http://c:4318", "OTEL_EXPORTER_OTLP_HEADERS": "Authorization=Basic%20c2VjcmV0, x-scope=1"}, on: true},
		"disabled":         {variables: map[string]string{general: "http://c:4318", "OTEL_SDK_DISABLED": "True"}},
		"none":             {variables: map[string]string{general: "http://c:4318", "OTEL_TRACES_EXPORTER": "none"}},
		"other exporter":   {variables: map[string]string{general: "http://c:4318", "OTEL_TRACES_EXPORTER": "s3cret"}, mistake: "OTEL_TRACES_EXPORTER"},
		"grpc":             {variables: map[string]string{general: "http://c:4317", "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"}, mistake: "OTEL_EXPORTER_OTLP_PROTOCOL"},
		"no scheme":        {variables: map[string]string{general: "s3cret:4318"}, mistake: general},
		"second no scheme": {variables: map[string]string{traces: "http://c:4318", general: "s3cret"}, mistake: general},
		"no header":        {variables: map[string]string{general: "http://c:4318", "OTEL_EXPORTER_OTLP_HEADERS": "s3cret"}, mistake: "OTEL_EXPORTER_OTLP_HEADERS"},
		"bad header":       {variables: map[string]string{general: "http://c:4318", "OTEL_EXPORTER_OTLP_TRACES_HEADERS": "a b=s3cret"}, mistake: "OTEL_EXPORTER_OTLP_TRACES_HEADERS"},
		"bad value":        {variables: map[string]string{general: "http://c:4318", "OTEL_EXPORTER_OTLP_HEADERS": "a=s3cret%zz"}, mistake: "OTEL_EXPORTER_OTLP_HEADERS"},
	} {
		t.Run(name, func(t *testing.T) {
			for _, other := range os.Environ() {
				if variable, _, _ := strings.Cut(other, "="); strings.HasPrefix(variable, "OTEL_") {
					t.Setenv(variable, "")
				}
			}
			for variable, value := range c.variables {
				t.Setenv(variable, value)
			}
			past, out := printed(t), &bytes.Buffer{}
			logger, _ := service.NewLogger(config.Log{Level: "info", Format: "json"}, out)
			tracing := service.NewTracing(os.LookupEnv, "me", logger)
			defer tracing.Close(t.Context())
			if on := tracing.Spans() != nil; on != c.on {
				t.Errorf("on is %t", on)
			}
			if said := out.String(); (c.mistake == "") != (said == "") || !strings.Contains(said, c.mistake) || strings.Contains(said, "s3cret") {
				t.Errorf("it says %q", said)
			}
			if past.Len() > 0 {
				t.Errorf("past the log: %s", past)
			}
		})
	}
}

// TestSamplerIsOpenTelemetrys: the variable of the SDK decides what is recorded of requests that come without a trace.
func TestSamplerIsOpenTelemetrys(t *testing.T) {
	srv := httptest.NewServer(&receiver{})
	defer srv.Close()
	t.Setenv("OTEL_EXPORTER_OTLP_ENDPOINT", srv.URL)
	for sampler, want := range map[string]bool{"always_off": false, "parentbased_always_on": true} {
		t.Setenv("OTEL_TRACES_SAMPLER", sampler)
		tracing := service.NewTracing(os.LookupEnv, "me", zap.NewNop())
		_, span := tracing.Spans().Tracer("test").Start(t.Context(), "root")
		if got := span.IsRecording(); got != want {
			t.Errorf("%s: recording is %t", sampler, got)
		}
		span.End()
		tracing.Close(t.Context())
	}
}
