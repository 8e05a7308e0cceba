package remediation

import (
	"cmp"
	"context"
	"fmt"
	"time"

	"go.uber.org/zap"

	"example.com/unrestrict-worker/internal/health"
	"example.com/unrestrict-worker/internal/ledger"
	"example.com/unrestrict-worker/internal/message"
)

// Publishing fails for one of two causes. A message that is too large for its stream is its request's own failure
// (message.ErrTooLarge): other requests go on, and it is tried again at growing intervals, because somebody may raise the limit.
// Any other cause is a fault of the system (notPublished): no more calls are made, because their results could not be published.

// longestRetry is the longest interval between two tries to publish what did not fit.
const longestRetry = time.Minute

// notPublished is an error to publish whose cause is not the message.
type notPublished struct{ error }

func (n notPublished) Unwrap() error { return n.error }

func (n notPublished) trip(b *Breaker) {
	b.Trip(faultPublish, "what was decided can't be published: "+n.Error()+"; see the limits of the stream and of the account, and what the broker's user may do")
}

// unpublishable naks a message if something that must be stored for it does not fit. It occupies no slot, and no call is
// made.
func (p *attempt) unpublishable(err error) message.Outcome {
	name := cmp.Or(p.e.ID, p.req.ID, p.d.Ref())
	p.Shared.noteUnpublishable(cmp.Or(p.key, p.d.Ref()), name, err.Error())
	if p.e.Revision > 0 && noteUnpublishable(&p.e, err) {
		p.Log.Error("a request waits: what must be stored of it never fits", p.about(name, zap.String("message", p.d.Ref()), zap.Error(err))...)
		_ = p.save() // best effort: only `worker why` needs it, and the next try writes it
	}
	return message.Later(min(p.Config.Backoff.Delay(p.d.Attempt), longestRetry), health.Unpublishable)
}

// unpublishable puts off publishing a decided run whose message no handler has.
func (t *Tracker) unpublishable(ctx context.Context, key string, e *ledger.Entry, err error) {
	t.mu.Lock()
	if u := t.unpublished[key]; u != nil {
		u.tries++
	}
	t.mu.Unlock()
	t.Shared.noteUnpublishable(key, e.ID, err.Error())
	if noteUnpublishable(e, err) {
		t.Log.Error("a decided result waits: it never fits", e.About(zap.String("key", key), zap.Error(err))...)
		_ = ledger.Save(ctx, t.Ledger, key, e, 0) // as above
	}
}

// noteUnpublishable records in the entry what it waits for, and reports whether that is new.
func noteUnpublishable(e *ledger.Entry, err error) bool {
	why := &message.Failure{Code: health.Unpublishable, Origin: message.OriginWorker, Message: message.Shorten(err.Error(), message.MaxMessage)}
	if e.LastError != nil && *e.LastError == *why {
		return false
	}
	e.LastError = why
	return true
}

func isUnpublishable(e *ledger.Entry) bool {
	return e.LastError != nil && e.LastError.Code == health.Unpublishable
}

// unpublishableRequest is a request that waits for room.
type unpublishableRequest struct {
	id, why string
	until   time.Time // without a new try by then another replica has it
}

func (n *SharedState) noteUnpublishable(key, id, why string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.unpublishable == nil {
		n.unpublishable = map[string]unpublishableRequest{}
	}
	n.unpublishable[key] = unpublishableRequest{id, why, time.Now().Add(3 * longestRetry)}
}

func (n *SharedState) notePublished(key string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	delete(n.unpublishable, key)
}

// unpublishableNow is the condition for the requests that wait. The caller holds mu.
func (n *SharedState) unpublishableNow() (c health.Condition, is bool) {
	var first unpublishableRequest
	for key, u := range n.unpublishable {
		if time.Now().After(u.until) {
			delete(n.unpublishable, key)
		} else if first.id == "" || u.id < first.id {
			first = u
		}
	}
	if first.id == "" {
		return c, false
	}
	return health.New(health.Unpublishable, fmt.Sprintf("what is to be stored of %d requests never fits, as of %s: %s", len(n.unpublishable), first.id, first.why)), true
}
