package remediation

import (
	"context"
	"errors"
	"time"

	"example.com/unrestrict-worker/internal/defender"
	"example.com/unrestrict-worker/internal/ledger"
)

// Idle probes while there is no message to probe with: a fault must not keep a replica from being ready until the next
// request. Any answer shows that the API can be reached. Whether its answers are clear again, or whether the broker stores,
// is best probed by a request, and without one only where none waits (none). Whether the API takes calls again shows only in
// a call.
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
	case fault.Code == faultPublish && none: // nothing waits with a message in hand, and the tracker has had no failure lately
		if gone = time.Since(s.Breaker.lastMet()) > 3*sweepEvery; !gone {
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
