package message

import (
	"context"

	"go.opentelemetry.io/otel/propagation"
)

// TraceIn is the trace context that ctx has; zero if none.
func TraceIn(ctx context.Context) Trace {
	c := propagation.MapCarrier{}
	propagation.TraceContext{}.Inject(ctx, c)
	return Trace{Parent: c["traceparent"], State: c["tracestate"]}
}

// Under makes t the parent of the spans that begin in the context.
func (t Trace) Under(ctx context.Context) context.Context {
	return propagation.TraceContext{}.Extract(ctx, propagation.MapCarrier{"traceparent": t.Parent, "tracestate": t.State})
}
