package remediation

import (
	"errors"
	"time"

	"go.uber.org/zap"

	"example.com/unrestrict-worker/internal/ledger"
	"example.com/unrestrict-worker/internal/message"
)

// outcomeOf decides the outcome of a delivery after an error that is not an answer about the request.
func (p *attempt) outcomeOf(err error) message.Outcome {
	wait, quota := quotaWait(err)
	switch {
	case errors.Is(err, ledger.ErrConflict):
		return message.Later(100*time.Millisecond, "overtaken")
	case errors.Is(err, ledger.ErrNewer):
		return message.Later(time.Minute, "newerVersion")
	case errors.Is(err, ledger.ErrGarbled):
		key := p.key
		if unread, is := errors.AsType[*ledger.UnreadError](err); is {
			key = unread.Key
		}
		p.Log.Error("a request waits: what the ledger has of it is not understood", p.about(p.req.ID, zap.String("key", key), zap.Error(err))...)
		return message.Later(time.Minute, causeGarbled)
	case errors.Is(err, message.ErrTooLarge): // for example, a results stream that was made for smaller messages
		return p.unpublishable(err)
	case p.wait.Err() != nil || p.work.Err() != nil:
		return message.Later(0, "shutdown")
	case quota:
		return message.Later(min(wait, maxQuotaDelay), "quota")
	}
	if failed, is := errors.AsType[notPublished](err); is {
		failed.trip(p.Breaker)
		return message.Later(p.Breaker.NakDelay(), faultPublish)
	}
	p.Breaker.Trip(faultStore, "the broker does not store what must be durable before a call: "+err.Error()+"; check the broker's connection, its disk and the limits of its streams")
	return message.Later(p.Breaker.NakDelay(), faultStore)
}

// quotaWait is how long until a call may be available, if err is the budget's.
func quotaWait(err error) (d time.Duration, is bool) {
	var quota interface{ Wait() time.Duration }
	if is = errors.As(err, &quota); is {
		d = quota.Wait()
	}
	return d, is
}
