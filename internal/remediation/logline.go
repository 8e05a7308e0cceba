package remediation

import (
	"cmp"

	"go.uber.org/zap"
)

// About are the fields of a line about a message of which no more is known: its name, its trace, and the line's own.
func (d Delivery) About(own ...zap.Field) []zap.Field {
	fields := []zap.Field{zap.String("message", d.Ref())}
	if parent, _ := traceFrom(d.Header, content{}); parent != "" {
		fields = append(fields, zap.String("trace_id", traceID(parent)))
	}
	return append(fields, own...)
}

// about are the fields of a line about this request: its id, where it is in its trace, and the line's own.
func (p *attempt) about(id string, own ...zap.Field) []zap.Field {
	if p.span != nil {
		sc := p.span.SpanContext()
		return about(id, sc.TraceID().String(), append(own, zap.Stringer("span_id", sc.SpanID())))
	}
	return about(id, traceID(cmp.Or(p.e.TraceParent, p.req.TraceParent)), own)
}

// about is attempt.about for whoever has no message in hand.
func (e *Entry) about(own ...zap.Field) []zap.Field { return about(e.ID, traceID(e.TraceParent), own) }

func about(id, traceID string, own []zap.Field) []zap.Field {
	fields := append(make([]zap.Field, 0, len(own)+2), zap.String("request_id", id))
	if traceID != "" {
		fields = append(fields, zap.String("trace_id", traceID))
	}
	return append(fields, own...)
}

// traceID is the trace id in a traceparent that is valid (validTraceParent) or "".
func traceID(parent string) string {
	if parent == "" {
		return ""
	}
	return parent[3:35]
}
