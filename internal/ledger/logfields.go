package ledger

import (
	"go.uber.org/zap"

	"example.com/unrestrict-worker/internal/message"
)

// About returns the log fields of a line about the request, for code that handles no delivery.
func (e *Entry) About(own ...zap.Field) []zap.Field {
	return About(e.ID, message.TraceID(e.TraceParent), own)
}

// About returns the fields that every log line about a request has, followed by the line's own.
func About(id, traceID string, own []zap.Field) []zap.Field {
	fields := append(make([]zap.Field, 0, len(own)+2), zap.String("request_id", id))
	if traceID != "" {
		fields = append(fields, zap.String("trace_id", traceID))
	}
	return append(fields, own...)
}

// Trace is the request's trace context.
func (e *Entry) Trace() message.Trace {
	return message.Trace{Parent: e.TraceParent, State: e.TraceState}
}

// Decision are the fields of the line "request decided".
func Decision(e *Entry) []zap.Field {
	fields := []zap.Field{
		zap.Int("run", e.Run), zap.String("machine_id", e.MachineID),
		zap.String("outcome", e.Outcome), zap.Int("attempts", e.Attempts),
	}
	if e.Lane != "" {
		fields = append(fields, zap.String("lane", string(e.Lane)))
	}
	if e.ActionID != "" {
		fields = append(fields, zap.String("action_id", e.ActionID))
	}
	if e.SignedBy != "" {
		fields = append(fields, zap.String("signed_by", e.SignedBy))
	}
	if id := e.CorrelationID(); id != "" {
		fields = append(fields, zap.String("correlation_id", id))
	}
	if e.Error != nil {
		fields = append(fields, zap.String("code", e.Error.Code), zap.String("why", e.Error.Message))
	}
	return fields
}
