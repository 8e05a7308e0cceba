package remediation

import (
	"errors"
	"time"

	"go.uber.org/zap"
)

// handBack gives the message back for a reason that is not the request's fault. The entry is written if the ledger
// does not know the run yet (the first of one id is to stay the first), believes in a call that is not under way, or
// has not heard since when the run waits for quota.
func (p *passage) handBack(d time.Duration, cause string) (Outcome, error) {
	if p.e.State == StateCalled {
		p.e.State = StateWaiting
	}
	if p.e.State != p.stored || p.queued {
		if err := p.save(0); err != nil {
			return Outcome{}, err
		}
	}
	return Later(d, cause), nil
}

// fail gives the message back for a fault of the request's own, with growing delay, or gives the request up.
func (p *passage) fail(atLeast time.Duration, cause string, f *Failure) (Outcome, error) {
	delay := max(p.Config.Backoff.Delay(p.e.Failures), atLeast)
	p.e.Failures++
	p.e.Failed += Duration(delay)
	p.e.LastErr = f
	if p.e.State == StateCalled {
		p.e.State = StateWaiting
	}
	if time.Duration(p.e.Failed) > p.Config.GiveUpAfter {
		return p.giveUp()
	}
	p.e.Due = time.Now().Add(delay).UTC()
	if err := p.save(0); err != nil {
		return Outcome{}, err
	}
	return Later(delay, cause), nil
}

// stumble turns an error that is no answer about the request into what becomes of its message.
func (p *passage) stumble(err error) Outcome {
	var quota interface{ Wait() time.Duration }
	switch {
	case errors.Is(err, ErrConflict):
		return Later(100*time.Millisecond, "overtaken")
	case errors.Is(err, errNewer):
		return Later(time.Minute, "newerVersion")
	case errors.Is(err, errGarbled):
		p.Log.Error("a request waits, for what the ledger has of it makes no sense", p.about(p.req.ID, zap.String("key", p.key), zap.Error(err))...)
		return Later(time.Minute, "garbled")
	case p.wait.Err() != nil || p.work.Err() != nil:
		return Later(0, "shutdown")
	case errors.As(err, &quota):
		return Later(min(quota.Wait(), quotaNap), "quota")
	}
	p.Gate.Fault(faultStore, "the broker does not store what must be durable before a call: "+err.Error()+"; check the broker's connection, its disk and the limits of its streams")
	return Later(p.Gate.HandBack(), faultStore)
}
