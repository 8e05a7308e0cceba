package remediation

import (
	"cmp"

	"go.uber.org/zap"

	"example.com/unrestrict-worker/internal/ledger"
	"example.com/unrestrict-worker/internal/message"
)

// about are the fields of a line about this request: its id, where it is in its trace, and the line's own.
func (p *attempt) about(id string, own ...zap.Field) []zap.Field {
	if p.span != nil {
		sc := p.span.SpanContext()
		return ledger.About(id, sc.TraceID().String(), append(own, zap.Stringer("span_id", sc.SpanID())))
	}
	return ledger.About(id, message.TraceID(cmp.Or(p.e.TraceParent, p.req.TraceParent)), own)
}
