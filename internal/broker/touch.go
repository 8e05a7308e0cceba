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
	// outAfter is how long a replica may receive no update of UNRESTRICT_STATE, its own presence record included, before it is
	// out of touch: an operator may have paused since the last update.
	outAfter = 2 * presenceEvery
	// echoWithin is how soon the watch must deliver this replica's presence record after the broker has stored it.
	echoWithin = 3 * time.Second
)

// touch is whether this replica can publish to the shared state and receives updates of it. The watch that delivers the
// operator's pause also delivers this replica's own presence record, so each record that comes back proves both directions.
// Guarded by Replicas.mu.
type touch struct {
	lastUpdate  time.Time // when the watch last delivered anything
	publishedAt time.Time // when the first record that was stored after lastUpdate was sent
	publishErr  error     // why the last record was not stored; nil: it was
	watchErr    error     // why the watch last ended
}

var errNoEcho = errors.New("the watch does not deliver this replica's own presence record")

// OutOfTouch is the condition of a replica that receives no updates of the shared state, so no pause either, or whose presence
// record can't be stored, so that the others do not see it.
func (r *Replicas) OutOfTouch() (c health.Condition, is bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.lastUpdate.IsZero() || time.Since(r.lastUpdate) < outAfter { // Run was never called, or updates arrive
		return c, false
	}
	if r.publishErr != nil {
		c = health.New(health.Store, fmt.Sprintf("this replica can neither write its presence record to %s nor follow the bucket: %v", StateBucket, r.publishErr))
	} else {
		c = health.New(health.OutOfTouch, fmt.Sprintf("this replica can't follow %s, and would not learn of a pause: %v", StateBucket, cmp.Or(r.watchErr, errNoEcho)))
	}
	c.Since = r.lastUpdate.UTC()
	return c, true
}

// reported records whether the presence record that was sent at began was stored.
func (r *Replicas) reported(began time.Time, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.publishErr = r.withDenial(err); err != nil {
		return
	}
	if !r.publishedAt.After(r.lastUpdate) {
		r.publishedAt = began
	}
	signal(r.stored)
}

// watchEnded records why the watch ended, and reports whether that is another reason than the last time.
func (r *Replicas) watchEnded(err error) (news bool) {
	if err == nil {
		return false
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	err = r.withDenial(err)
	news = r.watchErr == nil || r.watchErr.Error() != err.Error()
	r.watchErr = err
	return news
}

// superviseWatch returns an error when the watch can't be relied on any more. That is so after the connection has changed, because
// a watch that survives a reconnect may be behind; and when the watch does not deliver a stored presence record, for example
// because somebody has deleted the watch's consumer.
func (r *Replicas) superviseWatch(ctx context.Context, status <-chan nats.Status) error {
	for due := (<-chan time.Time)(nil); ; {
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case is := <-status:
			return fmt.Errorf("connection %v", is)
		case <-r.stored:
			if due == nil {
				due = time.After(echoWithin)
			}
			continue
		case <-due:
		}
		due = nil
		if r.echoOverdue() {
			return errNoEcho
		}
	}
}

func (r *Replicas) echoOverdue() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.lastUpdate.Before(r.publishedAt) && time.Since(r.publishedAt) >= echoWithin
}
