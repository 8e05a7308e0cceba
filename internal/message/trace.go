package message

import (
	"context"
	"strings"

	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/trace"
)

// Trace is a W3C Trace Context as in the headers traceparent and tracestate. The zero Trace is none.
type Trace struct{ Parent, State string }

// traceOf checks a trace context from outside. It drops an invalid one: tracing never decides about a request.
func traceOf(parent, state string) Trace {
	t := Trace{Parent: parent}
	if len(parent) != 55 || !trace.SpanContextFromContext(t.Under(context.Background())).IsValid() {
		return Trace{}
	}
	if len(state) <= 512 && !strings.ContainsFunc(state, func(r rune) bool { return r < ' ' || r > '~' }) {
		t.State = state
	}
	return t
}

// TraceFrom is the trace context of a message: from its headers, or from the CloudEvent if they have none.
func TraceFrom(h Header, c Content) (parent, state string) {
	t := traceOf(h.Get("traceparent"), h.Get("tracestate"))
	if t.Parent == "" {
		t = traceOf(c.trace.Parent, c.trace.State)
	}
	return t.Parent, t.State
}

// TraceID is the trace id in a valid traceparent; "" for "".
func TraceID(parent string) string {
	if parent == "" {
		return ""
	}
	return parent[3:35]
}

// TraceIn is the trace context of ctx; zero if it has none.
func TraceIn(ctx context.Context) Trace {
	c := propagation.MapCarrier{}
	propagation.TraceContext{}.Inject(ctx, c)
	return Trace{Parent: c["traceparent"], State: c["tracestate"]}
}

// Under makes t the parent of the spans that begin in the context.
func (t Trace) Under(ctx context.Context) context.Context {
	return propagation.TraceContext{}.Extract(ctx, propagation.MapCarrier{"traceparent": t.Parent, "tracestate": t.State})
}
