package broker

import (
	"context"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	semconv "go.opentelemetry.io/otel/semconv/v1.43.0"
	"go.opentelemetry.io/otel/trace"
)

// messagingSystem is NATS. OpenTelemetry's conventions have no value for it; NATS' own .NET client says the same.
func messagingSystem() attribute.KeyValue { return semconv.MessagingSystemKey.String("nats") }

// SpanAttributes are what the span of a message from the request stream says of the broker.
func (b *Broker) SpanAttributes() []attribute.KeyValue {
	return []attribute.KeyValue{messagingSystem(), semconv.MessagingConsumerGroupName(b.cfg.Names.Consumer)}
}

// startSpan begins the producer span of a message for a request.
func (p *Publisher) startSpan(ctx context.Context, subject, id, request string) (context.Context, trace.Span) {
	ctx, span := p.tracer.Start(ctx, "publish "+subject, trace.WithSpanKind(trace.SpanKindProducer))
	if span.IsRecording() {
		span.SetAttributes(messagingSystem(), semconv.MessagingOperationName("publish"), semconv.MessagingOperationTypeSend,
			semconv.MessagingDestinationName(subject), semconv.MessagingMessageID(id), semconv.MessagingMessageConversationID(request))
	}
	return ctx, span
}

// published ends it. What the error says may quote the message: its type is enough.
func published(span trace.Span, err error) {
	if err != nil && span.IsRecording() {
		span.SetAttributes(semconv.ErrorType(err))
		span.SetStatus(codes.Error, "not published")
	}
	span.End()
}
