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

// What can't be published has one of two causes. A message that is larger than its stream takes is its request's own trouble
// (message.ErrTooLarge): others go on, and it is tried again at growing intervals, for somebody may raise the limit. Anything
// else is the system's (notPublished): nothing more is called, because what comes of it could not be told.

// longestRetry is the longest interval between two tries to publish what did not fit.
const longestRetry = time.Minute

// notPublished is an error to publish that says nothing of the message.
type notPublished struct{ error }

func (n notPublished) Unwrap() error { return n.error }

func (n notPublished) trip(b *Breaker) {
	b.Trip(faultPublish, "what was decided can't be published: "+n.Error()+"; see the limits of the stream and of the account, and what the broker's user may do")
}

// unpublishable naks a message of which something does not fit. No slot is held, and no call is made.
func (p *attempt) unpublishable(err error) message.Outcome {
	name := cmp.Or(p.e.ID, p.req.ID, p.d.Ref())
	p.Shared.noteUnpublishable(cmp.Or(p.key, p.d.Ref()), name, err.Error())
	if p.e.Revision > 0 && noteUnpublishable(&p.e, err) {
		p.Log.Error("a request waits: what must be stored of it never fits", p.about(name, zap.String("message", p.d.Ref()), zap.Error(err))...)
		_ = p.save() // only `worker why` needs it, and the next try writes it
	}
	return message.Later(min(p.Config.Backoff.Delay(p.d.Attempt), longestRetry), health.Unpublishable)
}

// unpublishable puts off a decided run that no message is in hand for.
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

// noteUnpublishable has the entry say what it waits for, and reports whether that is new.
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

// unpublishableRequest is one that waits for room.
type unpublishableRequest struct {
	id, why string
	until   time.Time // nobody has tried since: another replica has it
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

// unpublishableNow is the condition for those that wait. The caller holds mu.
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
