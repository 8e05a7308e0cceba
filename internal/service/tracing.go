package service

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/url"
	"strings"
	"time"

	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracehttp"
	"go.opentelemetry.io/otel/sdk/resource"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	semconv "go.opentelemetry.io/otel/semconv/v1.43.0"
	"go.opentelemetry.io/otel/trace"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"example.com/unrestrict-worker/internal/broker"
)

// Tracing sends spans to an OTLP collector. The zero value is off: there is no exporter and no goroutine.
//
// OpenTelemetry's SDK reports to one error handler and one logger for the whole program, which print to standard error.
// They are not replaced, because several workers may run in one process. Instead quietExporter keeps repeated failures
// from them, and exportVariables what would print a secret.
type Tracing struct {
	provider *sdktrace.TracerProvider
	exporter sdktrace.SpanExporter
}

// NewTracing turns tracing on if the standard variables name a collector. Those of sampler, batches, limits, resource and
// exporter are read by the SDK itself, from the environment. A mistake in them never stops a worker.
func NewTracing(lookup func(string) (string, bool), owner string, log *zap.Logger) Tracing {
	wanted, err := exportVariables(lookup)
	if err == nil && !wanted {
		return Tracing{}
	}
	var t Tracing
	if err == nil {
		t, err = startTracing(owner, log)
	}
	if err != nil {
		log.Error("traces are off", zap.Error(err))
	}
	return t
}

func startTracing(owner string, log *zap.Logger) (Tracing, error) {
	ctx := context.Background() // nothing below waits for anything
	res, err := resource.New(ctx,
		resource.WithAttributes(semconv.ServiceName("unrestrict-worker"), semconv.ServiceVersion(ThisBuild().Version), semconv.ServiceInstanceID(owner)),
		resource.WithTelemetrySDK(), resource.WithFromEnv())
	if err != nil {
		return Tracing{}, fmt.Errorf("OTEL_RESOURCE_ATTRIBUTES: %w", err)
	}
	exporter, err := otlptracehttp.New(ctx)
	if err != nil {
		return Tracing{}, fmt.Errorf("OTEL_EXPORTER_OTLP_...: %w", err)
	}
	quiet := &quietExporter{exporter, log.WithOptions(zap.WrapCore(func(core zapcore.Core) zapcore.Core {
		return broker.NewSampler(core, time.Minute, 1, 0)
	}))}
	return Tracing{sdktrace.NewTracerProvider(sdktrace.WithBatcher(quiet), sdktrace.WithResource(res)), quiet}, nil
}

// Spans returns the provider for the parts; nil if tracing is off.
func (t Tracing) Spans() trace.TracerProvider {
	if t.provider == nil {
		return nil
	}
	return t.provider
}

// flushIn bounds the sending of the last spans, within CloseIn, so that a collector that does not answer delays no shutdown.
const flushIn = 2 * time.Second

// Close sends what is left, as long as ctx and flushIn allow.
func (t Tracing) Close(ctx context.Context) {
	if t.provider == nil {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, flushIn)
	defer cancel()
	_ = t.provider.Shutdown(ctx)                        // quietExporter reports lost spans
	_ = t.exporter.Shutdown(context.WithoutCancel(ctx)) // cuts off what outlasts ctx; otherwise there is nothing left to do
}

// quietExporter hides failures from the SDK, which would print each of them. It logs that spans are lost, once a minute at most.
type quietExporter struct {
	sdktrace.SpanExporter
	log *zap.Logger
}

// ExportSpans is called by the SDK, one call at a time.
func (q *quietExporter) ExportSpans(ctx context.Context, spans []sdktrace.ReadOnlySpan) error {
	if err := q.SpanExporter.ExportSpans(ctx, spans); err != nil {
		text := []rune(err.Error()) // it may quote a whole answer
		q.log.Warn("spans are lost; check OTEL_EXPORTER_OTLP_ENDPOINT and the collector", zap.String("error", string(text[:min(len(text), 300)])))
	}
	return nil
}

// exportVariables reports whether spans are to be exported. Variables that can't be used are an error here: the exporter
// would print addresses and headers that it can't parse, and these may hold secrets.
func exportVariables(lookup func(string) (string, bool)) (wanted bool, err error) {
	get := func(name string) string { v, _ := lookup(name); return strings.TrimSpace(v) }
	const general, traces = "OTEL_EXPORTER_OTLP_", "OTEL_EXPORTER_OTLP_TRACES_"
	exporter := get("OTEL_TRACES_EXPORTER")
	if get(general+"ENDPOINT")+get(traces+"ENDPOINT") == "" || exporter == "none" || strings.EqualFold(get("OTEL_SDK_DISABLED"), "true") {
		return false, nil
	}
	if exporter != "" && exporter != "otlp" {
		return false, errors.New("OTEL_TRACES_EXPORTER: only otlp and none are known")
	}
	for _, prefix := range []string{general, traces} {
		if v := get(prefix + "ENDPOINT"); v != "" && !isAddress(v) {
			return false, errors.New(prefix + "ENDPOINT: is no address; write it as http://HOST:4318 or https://HOST:4318")
		}
		if v := get(prefix + "HEADERS"); v != "" && !areHeaders(v) {
			return false, errors.New(prefix + "HEADERS: is not of the form NAME=VALUE,NAME=VALUE with percent-encoded values")
		}
	}
	if protocol := cmp.Or(get(traces+"PROTOCOL"), get(general+"PROTOCOL"), "http/protobuf"); !strings.HasPrefix(protocol, "http/") {
		return false, errors.New(general + "PROTOCOL: only http/protobuf and http/json are spoken; collectors take them at port 4318")
	}
	return true, nil
}

func isAddress(s string) bool {
	u, err := url.Parse(s)
	return err == nil && u.Host != "" && (u.Scheme == "http" || u.Scheme == "https")
}

func areHeaders(list string) bool {
	const nameChars = "!#$%&'*+-.^_`|~0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
	for header := range strings.SplitSeq(list, ",") {
		name, value, found := strings.Cut(header, "=")
		name = strings.TrimSpace(name)
		if _, err := url.PathUnescape(value); name == "" || strings.Trim(name, nameChars) != "" || !found || err != nil {
			return false
		}
	}
	return true
}
