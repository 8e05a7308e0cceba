package remediation

import (
	"context"
	"errors"
	"fmt"
	"time"

	"go.uber.org/zap"
	"golang.org/x/sync/errgroup"

	"example.com/unrestrict-worker/internal/defender"
)

// round is one look of the Tracker at everything it follows.
type round struct {
	*Tracker
	ctx      context.Context
	open     []*followed // by creation
	byAction map[string][]*followed
	seen     map[string]bool
	finals   []defender.MachineAction
	calls    int
	changed  bool
}

// list asks for all actions since the oldest one followed: a call per page of 10,000.
func (r *round) list() error {
	var since time.Time
	for _, f := range r.open {
		if !f.straggler {
			since = f.created
			break
		}
	}
	if since.IsZero() {
		return nil
	}
	q := defender.Query{Type: defender.TypeUnrestrict, CreatedSince: since.Add(-time.Second).Truncate(time.Second), Top: pageSize}
	for first := true; ; first = false {
		page, err := r.ask(q)
		mine := r.observe(page)
		if err != nil {
			return err
		}
		n := len(page.Actions)
		if n == 0 || n < pageSize && !page.More {
			return nil
		}
		last := page.Actions[n-1].CreationTime
		if first && len(mine) <= idsPerCall {
			for _, f := range mine {
				f.straggler, f.lookAt = true, time.Now().Add(r.longest())
			}
		}
		if !last.After(q.CreatedSince) {
			last = q.CreatedSince.Add(time.Second) // a whole page of one instant: go past it rather than round in a circle
		}
		q.CreatedSince = last
	}
}

// stragglers asks by id for the few whose age would cost a page of others' actions each time.
func (r *round) stragglers() error {
	var ids []string
	for _, f := range r.open {
		if f.straggler && !time.Now().Before(f.lookAt) && len(ids) < idsPerCall {
			f.lookAt = time.Now().Add(r.longest())
			ids = append(ids, f.action)
		}
	}
	if len(ids) == 0 {
		return nil
	}
	page, err := r.ask(defender.Query{IDs: ids})
	r.observe(page)
	if err != nil {
		return err
	}
	for _, id := range ids {
		for _, f := range r.byAction[id] {
			if f.gone = !r.seen[id]; f.gone {
				f.lookAt = time.Time{} // missing sees to it
			}
		}
	}
	return nil
}

func (r *round) ask(q defender.Query) (defender.Page, error) {
	r.calls++
	page, err := r.Defender.Page(r.ctx, "follow", q)
	var a *defender.Error
	switch {
	case err == nil:
		r.Notes.mayList(true, "")
	case errors.As(err, &a) && a.Class == defender.System && a.StatusCode == 403:
		r.Notes.mayList(false, a.Reason)
	}
	return page, err
}

// observe notes the status of each action that is followed and returns those.
func (r *round) observe(page defender.Page) (mine []*followed) {
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
		mine = append(mine, fs...)
		if a.Final() {
			r.changed = true
			a.Exchange = page.Exchange
			r.finals = append(r.finals, a)
		}
	}
	return mine
}

// tell decides and publishes what has become final, some at a time.
func (r *round) tell() {
	var g errgroup.Group
	g.SetLimit(tellers)
	for _, a := range r.finals {
		for _, f := range r.byAction[a.ID] {
			g.Go(func() error {
				r.end(r.ctx, f.key, a, outcomeOf(a.Status), nil)
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
		if !overdue && (r.seen[f.action] || f.straggler && !f.gone || now.Sub(f.accepted) < listLag) || now.Before(f.lookAt) {
			continue
		}
		f.lookAt = now.Add(vanishedEvery)
		if err := r.lookUp(f, overdue); err != nil {
			return err
		}
	}
	return nil
}

// lookUp asks for one action by its id, and ends its run if it is final, overdue or gone for good.
func (r *round) lookUp(f *followed, overdue bool) error {
	r.calls++
	a, err := r.Defender.Action(r.ctx, "follow", f.action)
	var answer *defender.Error
	switch {
	case err == nil && a.Final():
		r.end(r.ctx, f.key, a, outcomeOf(a.Status), nil)
	case err == nil && overdue:
		r.end(r.ctx, f.key, a, TimedOut, &Failure{
			Code: CodeTrackTimeout, Origin: OriginWorker,
			Message: fmt.Sprintf("the action was still %s after %s (WORKER_TRACK_TIMEOUT); it may yet be carried out when the machine comes online", a.Status, r.Config.Timeout),
		})
	case err == nil:
		f.missed, f.gone, f.created = 0, false, a.CreationTime
	case errors.As(err, &answer) && (answer.Class == defender.NotFound || answer.Class == defender.Rejected): // refused: it is no id to the API
		if f.missed++; f.missed >= vanishedLooks {
			r.end(r.ctx, f.key, defender.MachineAction{Exchange: answer.Exchange}, Failed, &Failure{
				Code: CodeActionVanished, Origin: OriginWorker, HTTPStatus: answer.StatusCode,
				Message: "the API accepted the call but no longer knows the action; see the machine in the portal",
			})
		}
	default:
		return err
	}
	return nil
}

// end decides a run, and tells. A crash after the decision leaves the telling to the sweep.
func (t *Tracker) end(ctx context.Context, key string, a defender.MachineAction, outcome string, f *Failure) {
	e, err := load(ctx, t.Ledger, key)
	if err == nil && e.State != StateSubmitted {
		return // another tracker was first
	}
	if err == nil {
		if a.ID != "" {
			e.keepAction(a, t.Config.MaxAction)
		}
		e.looked(a.Exchange, nil)
		e.decide(outcome, f, false)
		err = save(ctx, t.Ledger, key, &e, 0)
	}
	if errors.Is(err, ErrConflict) || t.leave(key, err) {
		return
	}
	if err == nil {
		t.Metrics.decided(&e)
		t.Log.Info("request decided", e.about(decision(&e)...)...)
		err = t.told(t.Tracing.device(ctx, &e), key, e)
	}
	if err != nil && ctx.Err() == nil {
		t.Log.Warn("the end of a followed action is put off", e.about(zap.String("key", key), zap.Error(err))...)
	}
}

// told records a decision, publishes it and marks it. That the call was accepted is told by whoever has the message; if
// that one died, and the message has not come again yet, it is told here, for after the end nobody would.
func (t *Tracker) told(ctx context.Context, key string, e Entry) error {
	if accepted := e.acceptance(); accepted != nil {
		waits, err := t.Publisher.Waits(ctx, e.Source)
		if err != nil {
			return err
		}
		if waits {
			if err := t.tell(ctx, *accepted); err != nil {
				return err
			}
		}
	}
	if err := t.tell(ctx, e); err != nil {
		return err
	}
	e.forget()
	err := save(ctx, t.Ledger, key, &e, keep)
	if errors.Is(err, ErrConflict) {
		return nil
	}
	return err
}

func (t *Tracker) tell(ctx context.Context, e Entry) error {
	if err := t.Audit.Record(ctx, e.audit()); err != nil {
		return err
	}
	return t.Publisher.Result(ctx, e.Result(), e.trace(), e.ReplyTo, e.since())
}

const sweepEvery = 5 * time.Second

// sweep tells what was decided and, as far as the ledger knows, not told.
func (t *Tracker) sweep(ctx context.Context) {
	for sleep(ctx, sweepEvery) == nil {
		for _, key := range t.overdue() {
			e, err := load(ctx, t.Ledger, key)
			if t.leave(key, err) {
				continue
			}
			if err == nil && e.State == StateFinal && !e.Published && !e.Dead {
				err = t.told(t.Tracing.resume(ctx, &e), key, e)
			}
			if err != nil && ctx.Err() == nil {
				t.Log.Warn("a decided result is not told yet", e.about(zap.String("key", key), zap.Error(err))...)
				break
			}
		}
	}
}

func (t *Tracker) overdue() (keys []string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for key, since := range t.untold {
		if time.Since(since) >= sweepEvery {
			keys = append(keys, key)
		}
	}
	return keys
}

func outcomeOf(status string) string {
	switch status {
	case "Succeeded":
		return Succeeded
	case "TimeOut":
		return TimedOut
	case "Cancelled", "Canceled":
		return Cancelled
	default:
		return Failed
	}
}
