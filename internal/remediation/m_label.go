package remediation

import (
	"example.com/unrestrict-worker/internal/defender"
)

// label is the code as a metric has it: what others choose must not become time series without end.
func (f *Failure) label() string {
	if f.Origin == OriginDefender {
		return defender.CodeLabel(f.Code)
	}
	return f.Code
}
