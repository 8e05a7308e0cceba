package remediation

import (
	"context"
	"errors"
	"time"

	"example.com/unrestrict-worker/internal/defender"
	"example.com/unrestrict-worker/internal/ledger"
)

// Idle is a probe for when there is no message to probe with: a fault must not outlast its cause until the next request,
// and keep a replica from being ready. That the API can be reached shows in any answer. That its answers are clear
// again, or that the broker stores, is best tried by a request, and tried without one only where nobody waits (none). A
// refusal of the call itself can only be tried by a call.
func (s *Submitter) Idle(ctx context.Context, none bool) {
	fault, on := s.Breaker.Current()
	var gone bool
	switch {
	case !on:
		return
	case fault.Code == faultUnreachable, fault.Code == faultAmbiguous && none:
		var tried bool
		if gone, tried = s.answers(ctx); !tried {
			return
		}
	case fault.Code == faultStore && none:
		gone = s.stores(ctx) == nil
	case fault.Code == faultSlow && none:
		began := time.Now()
		gone = s.stores(ctx) == nil && time.Since(began) < decider(s.Config).slowFor()
	default:
		return
	}
	switch {
	case ctx.Err() != nil:
	case gone:
		s.ambiguous.reset()
		s.Breaker.ResetFrom(fault.Code)
	default:
		s.Breaker.Trip(fault.Code, fault.Reason) // a probe that failed: the next one later
	}
}

// answers says whether the API gives a clear answer; tried is false where no call was free for asking.
func (s *Submitter) answers(ctx context.Context) (clear, tried bool) {
	_, err := s.Defender.Page(ctx, defender.UseLookup, defender.Query{Type: defender.TypeUnrestrict, Newest: true, Top: 1})
	answer, is := errors.AsType[*defender.Error](err)
	switch {
	case err == nil:
		return true, true
	case !is:
		return false, false
	}
	return answer.Class != defender.Transient && answer.Class != defender.Ambiguous && answer.Op != "token", true
}

// stores tries a key of this process's own in the ledger, which goes by itself.
func (s *Submitter) stores(ctx context.Context) error {
	key := "probe." + s.Config.Owner
	rec, err := s.Ledger.Load(ctx, key)
	if err != nil {
		return err
	}
	_, err = s.Ledger.Save(ctx, ledger.Write{Key: key, Value: []byte(ledger.Nonce()), Revision: rec.Revision, TTL: time.Minute})
	return err
}
