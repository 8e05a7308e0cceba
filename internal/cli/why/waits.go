package why

import (
	"context"
	"fmt"
	"time"

	"example.com/unrestrict-worker/internal/admin"
	"example.com/unrestrict-worker/internal/broker"
	"example.com/unrestrict-worker/internal/config"
	"example.com/unrestrict-worker/internal/ledger"
	"example.com/unrestrict-worker/internal/service"
)

// waitsFor says what must happen before the request goes on; nil: it has ended.
func waitsFor(ctx context.Context, conn *broker.Broker, s *History, rates config.Rates) ([]string, error) {
	own, taking := s.Own(time.Now())
	if !taking {
		return own, nil
	}
	shared, err := service.Blockers(ctx, conn, rates)
	if len(shared) > 0 && len(own) == 1 && own[0] == nextAttempt {
		own = nil // it is that attempt that waits for the rest
	}
	return append(own, shared...), err
}

const nextAttempt = "its next attempt"

// Own is what the request itself waits for. taking: it also needs somebody who takes requests.
func (s *History) Own(now time.Time) (waits []string, taking bool) {
	e := s.Entry
	if e == nil || e.State == ledger.StateFinal && e.Published {
		if len(s.Queued) == 0 {
			return nil, false
		}
		q := s.Queued[len(s.Queued)-1]
		return []string{fmt.Sprintf("being taken: it is number %d of %d in the queue", q.Place, s.Queue)}, true
	}
	switch e.State {
	case ledger.StateSubmitted:
		if !e.Follow {
			return nil, false
		}
		return []string{fmt.Sprintf("the end of action %s, which is looked up regularly", e.ActionID)}, true
	case ledger.StateFinal:
		return []string{"its result to be published; it is decided: " + e.Outcome}, true
	case ledger.StateCalled:
		return []string{fmt.Sprintf("the answer to the call of %s, or the look-up of what became of it", admin.Clock(e.LastCall))}, true
	case ledger.StateUnknown:
		waits = append(waits, fmt.Sprintf("a look-up of whether the call of %s took place (%d of 3 have not shown it)", admin.Clock(e.LastCall), e.Looks))
	default:
		waits = append(waits, nextAttempt)
	}
	if e.NotBefore.After(now) {
		waits = append(waits, "its time: not tried again before "+admin.Clock(e.NotBefore))
	}
	if e.LastError != nil {
		waits = append(waits, "an end of this fault: "+e.LastError.Code+": "+e.LastError.Message)
	}
	return waits, true
}
