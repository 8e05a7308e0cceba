package remediation

import (
	"context"
	"errors"
	"slices"
	"time"

	"go.uber.org/zap"
	"golang.org/x/sync/errgroup"

	"example.com/unrestrict-worker/internal/defender"
	"example.com/unrestrict-worker/internal/ledger"
	"example.com/unrestrict-worker/internal/message"
)

// round is one look of the Tracker at everything it follows.
type round struct {
	*Tracker
	ctx      context.Context
	open     []*followed // by creation
	byAction map[string][]*followed
	seen     map[string]bool
	finals   []defender.MachineAction
	shown    look // for calls, made since the last round; not whole: none
	calls    int
	changed  bool
}

// list asks for all actions since the oldest one followed, a call per page of 10,000, unless a look for calls has shown them.
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
		case pages == roundPages || !further && n < pageSize: // it says that there is more, and shows no more
			return cutShort(page)
		case !further:
			last = q.CreatedSince.Add(time.Second) // a whole page of one instant: go past it rather than round in a circle
		}
		q.CreatedSince = last
	}
}

func (r *round) ask(q defender.Query) (defender.Page, error) {
	r.calls++
	page, err := r.Defender.Page(r.ctx, "follow", q)
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

// finish decides and publishes what has become final, some at a time.
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
	_ = g.Wait() // end reports for itself: one that fails is seen again in the next round
}

// missing looks after those that the list no longer shows, and after those that are open for too long.
func (r *round) missing() error {
	now := time.Now()
	for _, f := range r.open {
		overdue := now.Sub(f.accepted) > r.Config.Timeout
		if !overdue && (r.seen[f.action] || now.Sub(f.accepted) < listLag) || now.Before(f.lookAt) {
			continue
		}
		f.lookAt = now.Add(vanishedEvery)
		if err := r.lookUp(f, overdue); err != nil {
			return err
		}
	}
	return nil
}

// singles asks by its id for a few of the actions that the list does not show, because the API refuses every list. Those that
// were asked for longest ago come first.
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

// lookUp asks for one action by its id, and ends its run if it is final, overdue or gone for good.
func (r *round) lookUp(f *followed, overdue bool) error {
	r.calls++
	a, err := r.Defender.Action(r.ctx, "follow", f.action)
	answer, is := errors.AsType[*defender.Error](err)
	switch {
	case err == nil && !overdue && !a.Final():
		f.missed, f.created = 0, a.CreationTime
	case err == nil:
		r.end(r.ctx, f.key, observation{action: a, exchange: a.Exchange, overdue: overdue})
	case is && (answer.Class == defender.NotFound || answer.Class == defender.Rejected): // refused: it is no id to the API
		if f.missed++; f.missed >= vanishedLooks {
			r.end(r.ctx, f.key, observation{exchange: answer.Exchange, gone: answer})
		}
	default:
		return err
	}
	return nil
}

// end decides a run, and publishes. A crash after the decision leaves the publishing to the sweep.
func (t *Tracker) end(ctx context.Context, key string, s observation) {
	if t.isCancelling(key) {
		return // the next round sees it too
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

// publish is publisher.publish without a message in hand. Another tracker may be first.
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

// sweep publishes what was decided and, as far as the ledger knows, not published.
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
			if err != nil && !errors.Is(err, message.ErrTooLarge) { // which says nothing of the next one
				break
			}
		}
	}
}

// awaitDecided blocks until there is something decided that may have to be published.
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

// fill fills a channel that has room for one.
func fill(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// overdue are those whose next try is due.
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
