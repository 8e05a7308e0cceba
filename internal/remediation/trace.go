package remediation

import (
	"cmp"
	"context"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	semconv "go.opentelemetry.io/otel/semconv/v1.43.0"
	"go.opentelemetry.io/otel/trace"
	"go.uber.org/zap"

	"example.com/unrestrict-worker/internal/ledger"
	"example.com/unrestrict-worker/internal/message"
)

// Attributes of spans that OpenTelemetry has no name for (docs/observability.md).
const (
	attrMachine = attribute.Key("unrestrict.machine.id")
	attrAction  = attribute.Key("unrestrict.action.id")
	attrOutcome = attribute.Key("unrestrict.outcome")
	attrRun     = attribute.Key("unrestrict.run")
	attrAttempt = attribute.Key("unrestrict.attempts")
	attrMessage = attribute.Key("unrestrict.message")
	attrPutOff  = attribute.Key("unrestrict.put_off")
	attrLane    = attribute.Key("unrestrict.lane")
)

// Tracing makes the spans of requests. The zero value makes none, and costs nothing.
type Tracing struct {
	tracer  trace.Tracer         // nil: no spans
	message []attribute.KeyValue // attributes of each message span, from the broker's side
}

// NewTracing makes spans with p; nil: none.
func NewTracing(p trace.TracerProvider, message ...attribute.KeyValue) Tracing {
	if p == nil {
		return Tracing{}
	}
	return Tracing{p.Tracer("example.com/unrestrict-worker/internal/remediation"), message}
}

// startSpan starts the span of a delivery, once its request is known. Its parent is the publisher's span. If the request has
// no trace context, this span becomes the parent of later ones: the entry stores it, so that they are in one trace even if
// the next delivery goes to another process.
func (p *attempt) startSpan() {
	if p.Tracing.tracer == nil || p.span != nil {
		return
	}
	t := message.Trace{Parent: p.req.TraceParent, State: p.req.TraceState}
	if t.Parent == "" {
		t = p.e.Trace()
	}
	ctx, opts := p.work, []trace.SpanStartOption{trace.WithSpanKind(trace.SpanKindConsumer), trace.WithTimestamp(p.began)}
	if t.Parent != "" {
		ctx = t.Under(ctx)
		opts = append(opts, trace.WithLinks(trace.LinkFromContext(ctx)))
	}
	ctx, p.span = p.Tracing.tracer.Start(ctx, "process "+p.d.Subject, opts...)
	p.wait, p.work = trace.ContextWithSpan(p.wait, p.span), trace.ContextWithSpan(p.work, p.span)
	if t.Parent == "" {
		t = message.TraceIn(ctx)
	}
	p.req.TraceParent, p.req.TraceState = t.Parent, t.State
}

// endSpan ends the span with the outcome of the delivery. It shows only an error's code, because messages may quote what
// others sent.
func (p *attempt) endSpan(out message.Outcome) {
	if p.span == nil {
		return
	}
	defer p.span.End()
	if !p.span.IsRecording() {
		return
	}
	p.span.SetAttributes(p.Tracing.message...)
	p.span.SetAttributes(
		semconv.MessagingOperationName("process"), semconv.MessagingOperationTypeProcess, semconv.MessagingDestinationName(p.d.Subject),
		attrMessage.String(p.d.Ref()),
	)
	if id := p.d.Header.Get("Nats-Msg-Id"); id != "" {
		p.span.SetAttributes(semconv.MessagingMessageID(id))
	}
	p.span.SetAttributes(attributes(&p.e, cmp.Or(p.e.ID, p.req.ID))...)
	switch {
	case !out.Done:
		p.span.SetAttributes(attrPutOff.String(cmp.Or(out.Cause, "panic")))
	case p.e.Error != nil:
		p.span.SetAttributes(semconv.ErrorTypeKey.String(p.e.Error.Code))
		p.span.SetStatus(codes.Error, p.e.Error.Code)
	}
}

// publishing is the context for publishing e's results: they belong to e's trace, even if this message is another one with
// the same id and a trace of its own.
func (p *attempt) publishing(e *ledger.Entry) context.Context {
	if p.span == nil || e.TraceParent == "" || message.TraceID(e.TraceParent) == p.span.SpanContext().TraceID().String() {
		return p.work
	}
	return e.Trace().Under(p.work)
}

// resume returns ctx in the trace of a request, for code that handles no message of it.
func (t Tracing) resume(ctx context.Context, e *ledger.Entry) context.Context {
	if t.tracer == nil {
		return ctx
	}
	return e.Trace().Under(ctx)
}

// device makes the span of the time on the machine, from accepted to final, now that both are known. If the process dies
// between the decision and here, the span is lost, but never the result.
func (t Tracing) device(ctx context.Context, e *ledger.Entry) context.Context {
	if t.tracer == nil {
		return ctx
	}
	ctx, span := t.tracer.Start(e.Trace().Under(ctx), "follow machine action", trace.WithTimestamp(e.AcceptedAt))
	if span.IsRecording() {
		span.SetAttributes(attributes(e, e.ID)...)
		if e.Error != nil {
			span.SetAttributes(semconv.ErrorTypeKey.String(e.Error.Code))
		}
		if e.Outcome != message.Succeeded {
			span.SetStatus(codes.Error, e.Outcome)
		}
	}
	span.End(trace.WithTimestamp(e.DecidedAt))
	return ctx
}

// attributes are the span attributes of a run.
func attributes(e *ledger.Entry, id string) []attribute.KeyValue {
	a := []attribute.KeyValue{semconv.MessagingMessageConversationID(id), attrRun.Int(e.Run), attrAttempt.Int(e.Attempts)}
	if e.MachineID != "" {
		a = append(a, attrMachine.String(e.MachineID))
	}
	if e.Lane != "" {
		a = append(a, attrLane.String(string(e.Lane)))
	}
	if e.ActionID != "" {
		a = append(a, attrAction.String(e.ActionID))
	}
	switch e.State {
	case ledger.StateFinal:
		a = append(a, attrOutcome.String(e.Outcome))
	case ledger.StateSubmitted:
		a = append(a, attrOutcome.String(message.Submitted))
	}
	return a
}

// about returns the fields of a log line about this request: its id, its trace and span, and the line's own.
func (p *attempt) about(id string, own ...zap.Field) []zap.Field {
	if p.span != nil {
		sc := p.span.SpanContext()
		return ledger.About(id, sc.TraceID().String(), append(own, zap.Stringer("span_id", sc.SpanID())))
	}
	return ledger.About(id, message.TraceID(cmp.Or(p.e.TraceParent, p.req.TraceParent)), own)
}
