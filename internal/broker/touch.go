package broker

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/nats-io/nats.go"

	"example.com/unrestrict-worker/internal/health"
)

const (
	// outAfter is how long a replica may have heard nothing from UNRESTRICT_STATE, its own word included, before it is out of
	// touch: what it was told last, that nobody has paused, may not be so any longer.
	outAfter = 2 * presenceEvery
	// echoWithin is how soon a word that the broker has stored comes back through the watch.
	echoWithin = 3 * time.Second
)

// touch is whether this replica and the others hear each other. What it says of itself comes back to it through the watch
// that brings the operator's pause, so each word proves both ways. Guarded by Replicas.mu.
type touch struct {
	heard   time.Time // when the watch last told anything
	said    time.Time // when the first word that was stored since was begun
	unsaid  error     // why the last word was not stored; nil: it was
	unheard error     // why the watch ended last
}

var errDeaf = errors.New("what this replica says of itself does not come back to it")

// OutOfTouch is the condition of a replica that hears nothing of the others, a pause included, or that they hear nothing of.
func (r *Replicas) OutOfTouch() (c health.Condition, is bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.heard.IsZero() || time.Since(r.heard) < outAfter { // it never ran, or is in touch
		return c, false
	}
	if r.unsaid != nil {
		c = health.New(health.Store, fmt.Sprintf("what this replica says of itself is not stored in %s, and nothing is heard there: %v", StateBucket, r.unsaid))
	} else {
		c = health.New(health.OutOfTouch, fmt.Sprintf("nothing is heard from %s, a pause neither: %v", StateBucket, cmp.Or(r.unheard, errDeaf)))
	}
	c.Since = r.heard.UTC()
	return c, true
}

// spoken records what became of a word that was begun then.
func (r *Replicas) spoken(began time.Time, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.unsaid = r.named(err); err != nil {
		return
	}
	if !r.said.After(r.heard) {
		r.said = began
	}
	signal(r.spoke)
}

// deafened records that the watch ended, and whether that is news.
func (r *Replicas) deafened(err error) (news bool) {
	if err == nil {
		return false
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	err = r.named(err)
	news = r.unheard == nil || r.unheard.Error() != err.Error()
	r.unheard = err
	return news
}

// listen ends with an error when the watch can't be relied on any more: the connection has changed, for one that survived a
// reconnect may be behind, or a word that was stored does not come back, as when somebody has deleted the watch's consumer.
func (r *Replicas) listen(ctx context.Context, status <-chan nats.Status) error {
	for due := (<-chan time.Time)(nil); ; {
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case is := <-status:
			return fmt.Errorf("connection %v", is)
		case <-r.spoke:
			if due == nil {
				due = time.After(echoWithin)
			}
			continue
		case <-due:
		}
		due = nil
		if r.deaf() {
			return errDeaf
		}
	}
}

func (r *Replicas) deaf() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.heard.Before(r.said) && time.Since(r.said) >= echoWithin
}
