package message

import (
	"go.uber.org/zap"
)

// About are the fields of a line about a message of which no more is known: its name, its trace, and the line's own.
func (d Delivery) About(own ...zap.Field) []zap.Field {
	fields := []zap.Field{zap.String("message", d.Ref())}
	if parent, _ := TraceFrom(d.Header, Content{}); parent != "" {
		fields = append(fields, zap.String("trace_id", TraceID(parent)))
	}
	return append(fields, own...)
}

// TraceID is the trace id in a traceparent that is valid (validTraceParent) or "".
func TraceID(parent string) string {
	if parent == "" {
		return ""
	}
	return parent[3:35]
}
