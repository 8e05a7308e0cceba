package remediation

import (
	"go.uber.org/zap"
)

// about is attempt.about for whoever has no message in hand.
func (e *Entry) about(own ...zap.Field) []zap.Field { return about(e.ID, traceID(e.TraceParent), own) }

func about(id, traceID string, own []zap.Field) []zap.Field {
	fields := append(make([]zap.Field, 0, len(own)+2), zap.String("request_id", id))
	if traceID != "" {
		fields = append(fields, zap.String("trace_id", traceID))
	}
	return append(fields, own...)
}

func (e *Entry) trace() Trace { return Trace{Parent: e.TraceParent, State: e.TraceState} }

// decision are the fields of the line "request decided".
func decision(e *Entry) []zap.Field {
	fields := []zap.Field{
		zap.Int("run", e.Run), zap.String("machine_id", e.MachineID),
		zap.String("outcome", e.Outcome), zap.Int("attempts", e.Attempts),
	}
	if e.ActionID != "" {
		fields = append(fields, zap.String("action_id", e.ActionID))
	}
	if e.SignedBy != "" {
		fields = append(fields, zap.String("signed_by", e.SignedBy))
	}
	if id := e.correlationID(); id != "" {
		fields = append(fields, zap.String("correlation_id", id))
	}
	if e.Error != nil {
		fields = append(fields, zap.String("code", e.Error.Code), zap.String("why", e.Error.Message))
	}
	return fields
}
