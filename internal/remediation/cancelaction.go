package remediation

import (
	"context"
	"errors"
	"time"

	"go.uber.org/zap"

	"example.com/unrestrict-worker/internal/defender"
	"example.com/unrestrict-worker/internal/ledger"
)

// An order to cancel may also demand that the API cancels an action that is under way. The API's answer decides nothing: it may be
// "Cancelled" for an action that completed, or be missing. The action is followed as before, and the run ends as the action
// does.

const (
	cancelEvery = 2 * time.Second
	cancelAgain = time.Minute // retry interval after an inconclusive answer
	maxCancels  = 3           // requests to the API for one action
)

const doCancel do = iota + 30 // ask the API to cancel the action

// cancelAsked decides whether to ask the API to cancel the run's action, and returns the entry as its write-ahead intent. A
// crash after the intent leaves an entry that asks again a minute later, which does no harm.
func (d decider) cancelAsked(e ledger.Entry, c *ledger.Cancel, now time.Time) (ledger.Entry, step) {
	if e.State != ledger.StateSubmitted || e.Adopted || c == nil || !c.Actions {
		return e, step{do: doFollow} // an adopted action was another call's
	}
	asked := *c
	if was := e.Cancel; was != nil {
		asked.Asked, asked.AskedAt, asked.HTTPStatus = was.Asked, was.AskedAt, was.HTTPStatus
	}
	if asked.Asked >= maxCancels || asked.Asked > 0 && (now.Sub(asked.AskedAt) < cancelAgain || conclusive(asked.HTTPStatus)) {
		return e, step{do: doFollow}
	}
	asked.Asked++
	asked.AskedAt = now.UTC()
	e.Cancel = &asked
	return e, step{do: doCancel}
}

// conclusive reports whether an answer shows that the API has understood the request, so that asking again would change
// nothing. A 404 is not conclusive: the action may be too young.
func conclusive(status int) bool {
	return status >= 200 && status < 300 || status >= 400 && status < 500 && status != 401 && status != 403 && status != 404 && status != 408 && status != 429
}

// cancelAnswered is the entry after the API's answer; status 0: there was none.
func (d decider) cancelAnswered(e ledger.Entry, status int, a *defender.Error) ledger.Entry {
	c := *e.Cancel
	switch {
	case a == nil:
		c.HTTPStatus = status
	case !a.Sent || a.Class == defender.Throttled || a.Class == defender.Reauthenticate:
		c.Asked, c.AskedAt = c.Asked-1, time.Time{}
	default:
		c.HTTPStatus = a.StatusCode
	}
	e.Cancel = &c
	return e
}

// cancelActions asks the API to cancel the ordered actions, until ctx ends.
func (t *Tracker) cancelActions(ctx context.Context) {
	for sleep(ctx, cancelEvery) == nil {
		for _, f := range t.toCancel() {
			if err := t.cancelAction(ctx, f); err != nil {
				if wait, quota := quotaWait(err); quota {
					_ = sleep(ctx, min(wait, t.Config.Interval))
				} else if ctx.Err() == nil {
					t.Log.Warn("an action could not be cancelled as ordered; it is tried again", zap.String("action_id", f.action), zap.Error(err))
				}
				break
			}
		}
	}
}

// toCancel returns the followed actions that the API may have to be asked to cancel.
func (t *Tracker) toCancel() (all []*followed) {
	if t.Orders == nil || !t.Orders.exist() {
		return nil
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, f := range t.open {
		if !f.cancelled && t.Orders.mentions(f.run.id, f.run.batch) {
			if c := t.Orders.about(f.run).cancel; c != nil && c.Actions && time.Since(f.cancelTried) > cancelAgain {
				all = append(all, f)
			}
		}
	}
	return all
}

// cancelAction asks the API once to cancel an action, if cancelAsked decides so.
func (t *Tracker) cancelAction(ctx context.Context, f *followed) error {
	e, err := ledger.Load(ctx, t.Ledger, f.key)
	if err != nil {
		return err
	}
	d := decider{MaxAction: t.Config.MaxAction}
	e, s := d.cancelAsked(e, t.Orders.about(targetOf(&e)).cancel, time.Now())
	if s.do != doCancel {
		t.cancelling(f, false, e.Adopted || e.State != ledger.StateSubmitted || e.Cancel != nil && (e.Cancel.Asked >= maxCancels || conclusive(e.Cancel.HTTPStatus)))
		return nil
	}
	permit, err := t.Defender.ReadyToCancel(ctx)
	if err != nil {
		return err
	}
	t.cancelling(f, true, false) // delays the decision of its end until the answer is written
	defer t.cancelling(f, false, false)
	if err := ledger.Save(ctx, t.Ledger, f.key, &e, 0); err != nil {
		return err
	}
	x, err := t.Defender.Cancel(ctx, permit, e.ActionID, cancelComment(&e))
	answer, is := errors.AsType[*defender.Error](err)
	if err != nil && !is {
		return err
	}
	e = d.cancelAnswered(e, x.StatusCode, answer)
	e.AddLook(x, err)
	status := e.Cancel.HTTPStatus
	t.Log.Info("asked the API to cancel an action", e.About(zap.String("action_id", e.ActionID), zap.Int("http_status", status), zap.String("order", e.Cancel.Order), zap.Error(err))...)
	return ledger.Save(ctx, t.Ledger, f.key, &e, 0)
}

// cancelling records whether the API is being asked now, and whether it need not be asked again.
func (t *Tracker) cancelling(f *followed, now, done bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	f.cancelling, f.cancelled, f.cancelTried = now, f.cancelled || done, time.Now()
}

// isCancelling reports whether the API is being asked to cancel the run's action. If so, the run's end is decided in the
// next round.
func (t *Tracker) isCancelling(key string) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	f := t.open[key]
	return f != nil && f.cancelling
}

func cancelComment(e *ledger.Entry) string {
	text := "Cancelled"
	if e.Cancel.By != "" {
		text += " by " + e.Cancel.By
	}
	if e.Cancel.Reason != "" {
		text += ": " + e.Cancel.Reason
	}
	return text + " (request " + e.ID + ")"
}
