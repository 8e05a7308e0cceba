package remediation

import (
	"context"
	"errors"

	"example.com/unrestrict-worker/internal/defender"
)

// Idle is a probe for when there is no message to probe with: a fault that an answer of the API ends must not outlast it
// until the next request, and keep a replica from being ready. That the API can be reached shows in any answer. That its
// answers are clear again is best tried by a call, so it is believed of a look-up only where nobody waits (none). A
// refusal of the call itself can only be tried by a call.
func (s *Submitter) Idle(ctx context.Context, none bool) {
	fault, on := s.Gate.Current()
	if !on || fault.Code != faultUnreachable && (fault.Code != faultAmbiguous || !none) {
		return
	}
	_, err := s.Defender.Page(ctx, defender.UseLookup, defender.Query{Type: defender.TypeUnrestrict, Newest: true, Top: 1})
	var answer *defender.Error
	switch {
	case ctx.Err() != nil:
	case err != nil && !errors.As(err, &answer): // no call is free: later
	case err != nil && (answer.Class == defender.Transient || answer.Class == defender.Ambiguous || answer.Op == "token"):
		s.Gate.Fault(fault.Code, fault.Reason) // a probe that failed: the next one later
	default:
		s.streak.end()
		s.Gate.HealthyAgain(fault.Code)
	}
}
