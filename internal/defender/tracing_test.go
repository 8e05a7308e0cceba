package defender

import (
	"maps"
	"net"
	"net/http"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
	"go.opentelemetry.io/otel/trace"
)

// recorded makes a client's spans visible.
func recorded(r *tracetest.SpanRecorder) func(*Config) {
	return func(c *Config) { c.TracerProvider = sdktrace.NewTracerProvider(sdktrace.WithSpanProcessor(r)) }
}

// attributes are those of the only span, its server excepted, with its name, kind and status.
func attributes(t *testing.T, r *tracetest.SpanRecorder) map[string]string {
	t.Helper()
	spans := r.Ended()
	if len(spans) != 1 {
		t.Fatalf("%d spans", len(spans))
	}
	s := spans[0]
	all := map[string]string{"name": s.Name(), "kind": s.SpanKind().String(), "status": s.Status().Code.String() + " " + s.Status().Description}
	for _, a := range s.Attributes() {
		if value := a.Value.String(); a.Key != "server.address" && a.Key != "server.port" {
			all[string(a.Key)] = value
		}
	}
	return all
}

// TestSpanOfExchange: the names are OpenTelemetry's, the error a code, and neither the comment nor the token shows.
func TestSpanOfExchange(t *testing.T) {
	const template = "/api/machines/{id}/unrestrictCodeExecution"
	path := strings.Replace(template, "{id}", machine, 1)
	for name, c := range map[string]struct {
		api  http.HandlerFunc
		want map[string]string
	}{
		"accepted": {answer(201, created), map[string]string{"http.response.status_code": "201", "status": "Unset "}},
		"throttled": {
			answer(429, `{"error":{"code":"TooManyRequests","message":"`+secretToken+`"}}`, "Retry-After", "7"),
			map[string]string{"http.response.status_code": "429", "error.type": "429", "status": "Error throttled"},
		},
		"unclear": {answer(503, ``), map[string]string{"http.response.status_code": "503", "error.type": "503", "status": "Error ambiguous"}},
	} {
		t.Run(name, func(t *testing.T) {
			var sent http.Header
			api := func(w http.ResponseWriter, r *http.Request) { sent = r.Header.Clone(); c.api(w, r) }
			spans := tracetest.NewSpanRecorder()
			client, _ := dialTo(t, serve(t, api).URL, recorded(spans))
			_, _ = post(t.Context(), client)
			want := map[string]string{
				"name": "POST " + template, "kind": "client", "http.request.method": "POST", "url.template": template, "url.full": client.base + path,
			}
			maps.Copy(want, c.want)
			got := attributes(t, spans)
			if diff := cmp.Diff(want, got); diff != "" {
				t.Error(diff)
			}
			for key, value := range got {
				if repeats(value, secretToken) != "" {
					t.Errorf("the token shows in %s", key)
				}
			}
			if sent.Get("traceparent") != "" {
				t.Error("the API is told of the trace")
			}
		})
	}
}

// TestSpanOfUnreachable: an API that can't be reached has a span too, though no exchange began.
func TestSpanOfUnreachable(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	_ = l.Close()
	spans := tracetest.NewSpanRecorder()
	client, _ := dialTo(t, "http://"+l.Addr().String(), recorded(spans))
	_, err = post(t.Context(), client)
	expect(t, err, Transient, codeRefused, false)
	if got := attributes(t, spans); got["error.type"] != codeRefused || got["status"] != "Error transient" {
		t.Error(got)
	}
}

// TestSpanOfStale: a call that was not made is no span.
func TestSpanOfStale(t *testing.T) {
	spans := tracetest.NewSpanRecorder()
	client, budget := dialTo(t, serve(t, answer(201, created)).URL, recorded(spans))
	budget.stale = true
	_, err := post(t.Context(), client)
	expect(t, err, Stale, codeStale, false)
	if n := len(spans.Ended()); n != 0 {
		t.Errorf("%d spans", n)
	}
}

// TestSpanHasParent: the exchange is part of what the caller does.
func TestSpanHasParent(t *testing.T) {
	spans := tracetest.NewSpanRecorder()
	client, _ := dialTo(t, serve(t, answer(201, created)).URL, recorded(spans))
	ctx, parent := sdktrace.NewTracerProvider().Tracer("test").Start(t.Context(), "caller", trace.WithNewRoot())
	if _, err := post(ctx, client); err != nil {
		t.Fatal(err)
	}
	if got := spans.Ended()[0].Parent(); got.SpanID() != parent.SpanContext().SpanID() {
		t.Errorf("parent %v", got)
	}
}
