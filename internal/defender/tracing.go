package defender

import (
	"context"
	"net/url"
	"strconv"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	semconv "go.opentelemetry.io/otel/semconv/v1.43.0"
	"go.opentelemetry.io/otel/trace"
)

// exchange is send within a client span, by OpenTelemetry's conventions for HTTP. No attribute holds the token or the
// comment. The trace context is not sent to the API: who may know it is not ours to decide.
func (c *Client) exchange(ctx context.Context, p Permit, what call) (Exchange, error) {
	var span trace.Span
	if c.tracer != nil {
		ctx, span = c.span(ctx, what.op, time.Now())
	}
	x, e := c.send(ctx, p, what)
	if span != nil && (e == nil || e.Sent || e.Class != Stale && e.Code != codeCancelled) { // else no exchange; a span that never ends is not exported
		defer span.End()
		span.SetAttributes(semconv.URLFull(c.base + what.path))
		if e != nil {
			e.mark(span)
		} else {
			span.SetAttributes(semconv.HTTPResponseStatusCode(x.StatusCode))
		}
	}
	if e != nil {
		return x, e
	}
	return x, nil
}

// unsent makes the span of an exchange that never began because the API could not be reached.
func (c *Client) unsent(ctx context.Context, op string, e *Error, began time.Time) {
	if c.tracer == nil {
		return
	}
	_, span := c.span(ctx, op, began)
	defer span.End()
	if span.IsRecording() {
		e.mark(span)
	}
}

func (c *Client) span(ctx context.Context, op string, began time.Time) (context.Context, trace.Span) {
	method, template := semconv.HTTPRequestMethodGet, "/api/machineactions"
	switch op {
	case opUnrestrict:
		method, template = semconv.HTTPRequestMethodPost, "/api/machines/{id}/unrestrictCodeExecution"
	case opCancel:
		method, template = semconv.HTTPRequestMethodPost, "/api/machineactions/{id}/cancel"
	case opGet:
		template = "/api/machineactions/{id}"
	}
	ctx, span := c.tracer.Start(ctx, method.Value.AsString()+" "+template, trace.WithSpanKind(trace.SpanKindClient), trace.WithTimestamp(began))
	if span.IsRecording() {
		span.SetAttributes(method, semconv.URLTemplate(template))
		span.SetAttributes(serverOf(c.base)...)
	}
	return ctx, span
}

// serverOf is the server of a base URL, as attributes.
func serverOf(base string) []attribute.KeyValue {
	u, err := url.Parse(base)
	if err != nil {
		return nil
	}
	port := 443
	if u.Scheme == "http" {
		port = 80
	}
	if n, err := strconv.Atoi(u.Port()); err == nil {
		port = n
	}
	return []attribute.KeyValue{semconv.ServerAddress(u.Hostname()), semconv.ServerPort(port)}
}

// mark records e on a span, by codes alone.
func (e *Error) mark(span trace.Span) {
	code := e.Code
	if e.StatusCode != 0 {
		span.SetAttributes(semconv.HTTPResponseStatusCode(e.StatusCode))
	}
	if e.StatusCode >= 400 {
		code = strconv.Itoa(e.StatusCode)
	}
	span.SetAttributes(semconv.ErrorTypeKey.String(code))
	span.SetStatus(codes.Error, e.Class.String())
}
