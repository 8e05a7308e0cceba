package broker

import (
	"context"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	semconv "go.opentelemetry.io/otel/semconv/v1.43.0"
	"go.opentelemetry.io/otel/trace"
)

// messagingSystem is "nats". OpenTelemetry's conventions have no value for NATS; its own .NET client uses the same one.
func messagingSystem() attribute.KeyValue { return semconv.MessagingSystemKey.String("nats") }

// SpanAttributes are the broker's attributes for the span of a message from the request stream.
func (b *Broker) SpanAttributes() []attribute.KeyValue {
	return []attribute.KeyValue{messagingSystem(), semconv.MessagingConsumerGroupName(b.cfg.Names.Consumer)}
}

// startSpan starts the producer span of a message for a request.
func (p *Publisher) startSpan(ctx context.Context, subject, id, request string) (context.Context, trace.Span) {
	ctx, span := p.tracer.Start(ctx, "publish "+subject, trace.WithSpanKind(trace.SpanKindProducer))
	if span.IsRecording() {
		span.SetAttributes(messagingSystem(), semconv.MessagingOperationName("publish"), semconv.MessagingOperationTypeSend,
			semconv.MessagingDestinationName(subject), semconv.MessagingMessageID(id), semconv.MessagingMessageConversationID(request))
	}
	return ctx, span
}

// published ends a producer span. It records only the type of an error, because the text may quote the message.
func published(span trace.Span, err error) {
	if err != nil && span.IsRecording() {
		span.SetAttributes(semconv.ErrorType(err))
		span.SetStatus(codes.Error, "not published")
	}
	span.End()
}
