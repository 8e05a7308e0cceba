package remediation

import (
	"context"
	"errors"
	"slices"
	"time"

	"go.uber.org/zap"

	"example.com/unrestrict-worker/internal/defender"
	"example.com/unrestrict-worker/internal/health"
)

// follow looks at all followed actions periodically; less often while nothing changes, or while other requests need the
// quota. It returns nil when ctx ends, or the error of a look if another replica should try.
func (t *Tracker) follow(ctx context.Context) error {
	interval, calls, last := t.Config.Interval, 1, time.Now()
	failures := 0
	for {
		if t.Following() == 0 {
			if t.awaitFirst(ctx) != nil {
				return nil
			}
			interval, last, failures = t.Config.Interval, time.Now(), 0
			continue
		}
		due := interval
		if t.Config.Contended() {
			due = max(due, t.fairShare(calls))
		}
		t.mu.Lock()
		t.due = due
		t.mu.Unlock()
		shown := t.shown(last.Add(t.Config.Interval))
		if rest := time.Until(last.Add(due)); rest > 0 && !shown.whole {
			if sleep(ctx, min(rest, time.Second)) != nil {
				return nil
			}
			continue
		}
		var changed bool
		var err error
		changed, calls, err = t.look(ctx, shown)
		last = time.Now()
		wait, quota := quotaWait(err)
		switch {
		case quota:
			last = last.Add(min(wait, t.Config.Interval) - due) // retry soon, not a whole round later: others would take the free calls
		case err == nil:
			failures = 0
			t.Shared.clearCause(health.NotFollowing)
		case ctx.Err() == nil:
			failures++
			if t.failed(failures, err) {
				return err
			}
		}
		if interval = min(interval*3/2, t.longest()); changed || failures == 1 {
			interval = t.Config.Interval
		}
		if listRefused(err) { // each such round takes several calls
			interval = t.longest()
		}
	}
}

// failed reports that consecutive rounds failed, and returns whether another replica should try: perhaps only this one can't
// reach the API.
func (t *Tracker) failed(rounds int, err error) (release bool) {
	t.Log.Warn("following is held up", zap.Error(err))
	if rounds == 1 || t.Shared.mayNotList() { // a single bad answer, or the API refuses lists to all replicas
		return false
	}
	t.Shared.setCause(health.NotFollowing, "accepted actions are not followed: "+err.Error())
	return rounds >= releaseAfter && t.Config.Others != nil && t.Config.Others()
}

// awaitFirst waits until there is an action to follow. Its first look comes after one interval.
func (t *Tracker) awaitFirst(ctx context.Context) error {
	t.Shared.clearCause(health.NotFollowing)
	t.Shared.calls.follow(time.Time{})
	return await(ctx, t.toFollow, time.Hour)
}

// listRefused reports whether an error is the API's refusal of the list.
func listRefused(err error) bool {
	a, is := errors.AsType[*defender.Error](err)
	return is && a.Class == defender.Rejected
}

// longest is the longest interval between looks while no other request needs the quota.
func (t *Tracker) longest() time.Duration { return 4 * t.Config.Interval }

// fairShare is the shortest interval at which looks of so many calls leave the rest of the quota to the requests that wait
// for it.
func (t *Tracker) fairShare(calls int) time.Duration {
	var least time.Duration
	share := quotaShare
	if t.Shared.Guarding() {
		share = guardingShare
	}
	for _, w := range t.Config.Windows {
		if w.Calls > 0 {
			least = max(least, time.Duration(float64(w.Per)*float64(max(calls, 1))/(share*float64(w.Calls))))
		}
	}
	return least
}

// shown returns a look for calls that began at that time or later and covers all followed actions, so that the round needs
// no call of its own.
func (t *Tracker) shown(begun time.Time) look {
	l, is := t.Shared.calls.have(need{begun, time.Now()})
	if !is || len(l.actions) > fewActions { // a long list lacks the raw actions, which final results need
		return look{}
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, f := range t.open {
		if !l.serves(need{begun, f.since()}) {
			return look{}
		}
	}
	return l
}

// look makes one round over all followed actions. If shown is whole, it covers them already. calls is the number of
// exchanges it took.
func (t *Tracker) look(ctx context.Context, shown look) (changed bool, calls int, err error) {
	r := &round{Tracker: t, ctx: ctx, shown: shown, byAction: map[string][]*followed{}, seen: map[string]bool{}}
	t.mu.Lock()
	changed, t.fresh = t.fresh, false
	for _, f := range t.open {
		r.open = append(r.open, f)
		r.byAction[f.action] = append(r.byAction[f.action], f)
	}
	t.mu.Unlock()
	if len(r.open) == 0 {
		t.markLooked()
		t.Shared.calls.follow(time.Time{})
		return false, 0, nil
	}
	slices.SortFunc(r.open, func(a, b *followed) int { return a.created.Compare(b.created) })
	err = r.list()
	r.finish()
	switch {
	case err == nil:
		err = r.missing()
	case listRefused(err):
		err = errors.Join(err, r.singles())
	}
	if err == nil {
		t.markLooked()
	}
	return changed || r.changed, r.calls, err
}
