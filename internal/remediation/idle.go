package remediation

import (
	"context"
	"errors"
	"time"

	"example.com/unrestrict-worker/internal/defender"
	"example.com/unrestrict-worker/internal/ledger"
)

// Idle probes while there is no message to probe with, because a fault must not keep a replica unready until the next
// request. Any answer shows that the API is reachable. Clear answers, and a broker that stores, are better probed by a
// request, so Idle probes for those only if no request waits (none). Only a real call shows that the API takes calls again.
func (s *Submitter) Idle(ctx context.Context, none bool) {
	fault, on := s.Breaker.Current()
	var gone bool
	switch {
	case !on:
		return
	case fault.Code == faultUnreachable, fault.Code == faultAmbiguous && none:
		var tried bool
		if gone, tried = s.probeAPI(ctx); !tried {
			return
		}
	case fault.Code == faultPublish && none: // no request waits to publish, and the tracker has not failed to publish lately
		if gone = time.Since(s.Breaker.lastMet()) > 3*sweepEvery; !gone {
			return
		}
	case fault.Code == faultStore && none:
		gone = s.probeStore(ctx) == nil
	case fault.Code == faultSlow && none:
		began := time.Now()
		gone = s.probeStore(ctx) == nil && time.Since(began) < decider(s.Config).slowFor()
	default:
		return
	}
	switch {
	case ctx.Err() != nil:
	case gone:
		s.ambiguous.reset()
		s.Breaker.ResetFrom(fault.Code)
	default:
		s.Breaker.Trip(fault.Code, fault.Reason) // the probe failed: lengthen the delay
	}
}

// probeAPI reports whether the API gives a clear answer; tried is false if no call was free for the probe.
func (s *Submitter) probeAPI(ctx context.Context) (clear, tried bool) {
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

// probeStore writes a key of this process's own to the ledger. The key expires.
func (s *Submitter) probeStore(ctx context.Context) error {
	key := "probe." + s.Config.Owner
	rec, err := s.Ledger.Load(ctx, key)
	if err != nil {
		return err
	}
	_, err = s.Ledger.Save(ctx, ledger.Write{Key: key, Value: []byte(ledger.Nonce()), Revision: rec.Revision, TTL: time.Minute})
	return err
}
