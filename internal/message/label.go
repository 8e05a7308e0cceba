package message

import (
	"example.com/unrestrict-worker/internal/defender"
)

// Label is the code as a metric has it: what others choose must not become time series without end.
func (f *Failure) Label() string {
	if f.Origin == OriginDefender {
		return defender.CodeLabel(f.Code)
	}
	return f.Code
}
