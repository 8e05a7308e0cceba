package remediation

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"go.uber.org/zap"
	"golang.org/x/sync/errgroup"

	"example.com/unrestrict-worker/internal/defender"
	"example.com/unrestrict-worker/internal/health"
	"example.com/unrestrict-worker/internal/ledger"
	"example.com/unrestrict-worker/internal/message"
)

// round is one look of the Tracker at all actions that it follows.
type round struct {
	*Tracker
	ctx      context.Context
	open     []*followed // by creation
	byAction map[string][]*followed
	seen     map[string]bool
	finals   []defender.MachineAction
	shown    look // a look for calls made since the last round; not whole: none
	calls    int
	changed  bool
}

// list lists all actions since the oldest one followed, a call per page of 10,000, unless a look for calls has shown them.
func (r *round) list() error {
	if r.shown.whole {
		r.observe(defender.Page{Actions: r.shown.actions, Exchange: r.shown.exchange})
		return nil
	}
	q := defender.Query{Type: defender.TypeUnrestrict, CreatedSince: r.open[0].since(), Top: pageSize}
	reach := q.CreatedSince
	for pages := 1; ; pages++ {
		page, err := r.ask(q)
		r.observe(page)
		if err != nil {
			return err
		}
		n := len(page.Actions)
		if n > fewActions {
			reach = time.Time{}
		}
		if n == 0 || n < pageSize && !page.More {
			r.Shared.calls.follow(reach)
			return nil
		}
		last := page.Actions[n-1].CreationTime
		switch further := last.After(q.CreatedSince); {
		case pages == roundPages || !further && n < pageSize: // the page announces more, but there is no later action to continue from
			return cutShort(page)
		case !further:
			last = q.CreatedSince.Add(time.Second) // a full page of one instant: skip past it, or the same page would come again
		}
		q.CreatedSince = last
	}
}

func (r *round) ask(q defender.Query) (defender.Page, error) {
	r.calls++
	answered := r.Shared.setCauseAfter(slowLook, health.NotFollowing, "accepted actions are not followed: the API has not answered the list of them for more than 10 s")
	page, err := r.Defender.Page(r.ctx, "follow", q)
	answered()
	if a, is := errors.AsType[*defender.Error](err); is || err == nil {
		r.Shared.listed(a)
	}
	return page, err
}

// observe records the status of each followed action on the page.
func (r *round) observe(page defender.Page) {
	for _, a := range page.Actions {
		fs := r.byAction[a.ID]
		if len(fs) == 0 || r.seen[a.ID] {
			continue
		}
		r.seen[a.ID] = true
		for _, f := range fs {
			f.missed = 0
			if f.status != a.Status {
				r.changed = r.changed || f.status != ""
				f.status = a.Status
			}
		}
		if a.Final() {
			r.changed = true
			a.Exchange = page.Exchange
			r.finals = append(r.finals, a)
		}
	}
}

// finish decides and publishes the runs whose actions have become final, some at a time.
func (r *round) finish() {
	var g errgroup.Group
	g.SetLimit(publishWorkers)
	for _, a := range r.finals {
		for _, f := range r.byAction[a.ID] {
			g.Go(func() error {
				r.end(r.ctx, f.key, observation{action: a, exchange: a.Exchange})
				return nil
			})
		}
	}
	_ = g.Wait() // end logs its own errors; one that fails is seen again in the next round
}

// missing looks up by id the actions that the list no longer shows, and those that are open for too long. After an error the
// round fails, so that the fault is reported; the action is tried again in the next round, after those that wait for longer.
func (r *round) missing() error {
	now := time.Now()
	slices.SortStableFunc(r.open, func(a, b *followed) int { return a.lookAt.Compare(b.lookAt) })
	for _, f := range r.open {
		overdue := now.Sub(f.accepted) > r.Config.Timeout
		if !overdue && (r.seen[f.action] || now.Sub(f.accepted) < listLag) || now.Before(f.lookAt) {
			continue
		}
		f.lookAt = now.Add(vanishedEvery)
		if err := r.lookUp(f, overdue); err != nil {
			f.lookAt = now
			return fmt.Errorf("ask for the action %s by its id: %w", f.action, err)
		}
	}
	return nil
}

// singles looks up a few of the actions by id, because the API refuses every list. Those that were looked up longest ago
// come first.
func (r *round) singles() error {
	slices.SortStableFunc(r.open, func(a, b *followed) int { return a.lookAt.Compare(b.lookAt) })
	now := time.Now()
	for _, f := range r.open[:min(len(r.open), singlesPerRound)] {
		if now.Before(f.lookAt) {
			break
		}
		f.lookAt = now.Add(vanishedEvery)
		if err := r.lookUp(f, now.Sub(f.accepted) > r.Config.Timeout); err != nil {
			return err
		}
	}
	return nil
}

// lookUp looks up one action by its id, and ends its run if the action is final, overdue or permanently gone.
func (r *round) lookUp(f *followed, overdue bool) error {
	r.calls++
	answered := r.Shared.setCauseAfter(slowLook, health.NotFollowing, "accepted actions are not followed: the API has not answered for one of them for more than 10 s")
	a, err := r.Defender.Action(r.ctx, "follow", f.action)
	answered()
	answer, is := errors.AsType[*defender.Error](err)
	switch {
	case err == nil && !overdue && !a.Final():
		f.missed, f.created = 0, a.CreationTime
	case err == nil:
		r.end(r.ctx, f.key, observation{action: a, exchange: a.Exchange, overdue: overdue})
	case is && (answer.Class == defender.NotFound || answer.Class == defender.Rejected): // Rejected: the API does not accept the id
		if f.missed++; f.missed >= vanishedLooks {
			r.end(r.ctx, f.key, observation{exchange: answer.Exchange, vanished: answer})
		}
	default:
		return err
	}
	return nil
}

// end decides a run, and publishes. A crash after the decision leaves the publishing to the sweep.
func (t *Tracker) end(ctx context.Context, key string, s observation) {
	if t.isCancelling(key) {
		return // the next round decides it
	}
	e, err := ledger.Load(ctx, t.Ledger, key)
	if err == nil {
		s.cancel = t.Orders.about(targetOf(&e)).cancel
		var next step
		if e, next = (decider{MaxAction: t.Config.MaxAction}).observed(e, s, t.Config.Timeout, time.Now()); next.do != doPublish {
			return
		}
		e.AddLook(s.exchange, nil)
		err = ledger.Save(ctx, t.Ledger, key, &e, 0)
	}
	if errors.Is(err, ledger.ErrConflict) || t.unfollow(key, err) {
		return
	}
	if err == nil {
		t.Metrics.decided(&e)
		t.Log.Info("request decided", e.About(ledger.Decision(&e)...)...)
		err = t.publish(t.Tracing.device(ctx, &e), key, &e)
	}
	if err != nil && ctx.Err() == nil {
		t.Log.Warn("the end of a followed action is put off", e.About(zap.String("key", key), zap.Error(err))...)
	}
}

// publish is publisher.publish without a message. Another tracker may be first.
func (t *Tracker) publish(ctx context.Context, key string, e *ledger.Entry) error {
	err := publisher{t.Publisher, t.Audit, t.Ledger}.publish(ctx, key, e, nil)
	failed, is := errors.AsType[notPublished](err)
	switch {
	case err == nil:
		t.Shared.notePublished(key)
		t.Breaker.ResetFrom(faultPublish)
	case errors.Is(err, ledger.ErrConflict):
		return nil
	case errors.Is(err, message.ErrTooLarge):
		t.unpublishable(ctx, key, e, err)
	case is && ctx.Err() == nil:
		failed.trip(t.Breaker)
	}
	return err
}

const sweepEvery = 5 * time.Second

// sweep publishes decided results that, as far as the ledger shows, are not published.
func (t *Tracker) sweep(ctx context.Context) {
	for t.awaitDecided(ctx) == nil && sleep(ctx, sweepEvery) == nil {
		for _, key := range t.overdue() {
			e, err := ledger.Load(ctx, t.Ledger, key)
			if t.unfollow(key, err) {
				continue
			}
			if err == nil && e.State == ledger.StateFinal && !e.Published && !e.Dead {
				err = t.publish(t.Tracing.resume(ctx, &e), key, &e)
			}
			if err != nil && ctx.Err() == nil {
				t.Log.Warn("a decided result is not published yet", e.About(zap.String("key", key), zap.Error(err))...)
			}
			if err != nil && !errors.Is(err, message.ErrTooLarge) { // too large is this result's own failure; the next may succeed
				break
			}
		}
	}
}

// awaitDecided blocks until there is a decided result that may have to be published.
func (t *Tracker) awaitDecided(ctx context.Context) error {
	for {
		t.mu.Lock()
		n := len(t.unpublished)
		t.mu.Unlock()
		if n > 0 {
			return nil
		}
		if err := await(ctx, t.toPublish, time.Hour); err != nil {
			return err
		}
	}
}

// notify sends to a channel of capacity one, unless it is full.
func notify(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// overdue returns the keys whose next try is due.
func (t *Tracker) overdue() (keys []string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for key, u := range t.unpublished {
		if time.Since(u.tried) >= min(sweepEvery<<min(u.tries, 10), longestRetry) {
			u.tried = time.Now()
			keys = append(keys, key)
		}
	}
	return keys
}
