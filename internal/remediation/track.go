package remediation

import (
	"context"
	"errors"
	"sync"
	"time"

	"go.uber.org/zap"
	"golang.org/x/sync/errgroup"

	"example.com/unrestrict-worker/internal/defender"
	"example.com/unrestrict-worker/internal/health"
	"example.com/unrestrict-worker/internal/ledger"
)

// Feed watches every request entry in the ledger. It calls fn for each existing entry, in any order, then synced once, then
// fn for each change, in the order of the writes to one key. A deleted or expired entry has a nil value. It returns when ctx
// ends (nil) or when the watch breaks (an error). fn is not called concurrently.
type Feed interface {
	Entries(ctx context.Context, synced func(), fn func(key string, rec ledger.Record)) error
}

// Window is a limit of the budget, in the form that following needs.
type Window struct {
	Calls int
	Per   time.Duration
}

// TrackConfig is the configuration of a Tracker.
type TrackConfig struct {
	Interval  time.Duration // between two looks at all followed actions
	Timeout   time.Duration // an action that is open for longer gets the outcome timedOut
	Windows   []Window      // the limits in force; none: no limit
	MaxAction int           // as in SubmitConfig
	Contended func() bool   // reports whether requests wait for quota
	Others    func() bool   // reports whether another replica could follow instead; nil: none
}

// Tracker follows accepted actions to their end. It runs on one replica at a time, but correctness does not depend on that:
// every decision is a compare-and-swap in the ledger, so a second tracker only wastes calls.
type Tracker struct {
	Defender  *defender.Client
	Ledger    ledger.Ledger
	Publisher Publisher
	Audit     Auditor
	Feed      Feed
	Orders    *Orders  // nil: no orders
	Breaker   *Breaker // tripped when nothing can be published
	Config    TrackConfig
	Metrics   *Metrics
	Shared    *SharedState
	Tracing   Tracing
	Log       *zap.Logger

	mu          sync.Mutex
	open        map[string]*followed
	unpublished map[string]*unpublished // decided and not known to be published
	unpulled    map[string]*unpulled    // runs to end although their messages may not be pulled in time
	fresh       bool                    // an action to follow was added since the last look
	looked      time.Time               // when all open actions were last seen
	due         time.Duration           // the next look is due this long after looked

	toFollow, toPublish chan struct{} // full when open or unpublished has a new member
}

// unpublished is a decided result that is not published, as far as is known.
type unpublished struct {
	tried time.Time
	tries int // tries to publish a result that never fits
}

// followed is one open action. It is small, because there may be tens of thousands.
type followed struct {
	key, action string
	created     time.Time // in the API's time
	accepted    time.Time
	status      string
	missed      int // look-ups by id that did not find it
	lookAt      time.Time

	run         target
	cancelling  bool      // the API is being asked to cancel it
	cancelled   bool      // the API need not be asked again
	cancelTried time.Time // when cancelling was last decided
}

// since is the creation time from which a list must start to include f.
func (f *followed) since() time.Time { return f.created.Add(-time.Second).Truncate(time.Second) }

const (
	pageSize       = 10_000           // the API's largest page [doc]
	listLag        = time.Minute      // younger actions may be missing from the list
	slowLook       = 10 * time.Second // an answer that takes longer is reported
	releaseAfter   = 3                // failed rounds in a row, if another replica may succeed
	vanishedLooks  = 3
	vanishedEvery  = time.Minute
	quotaShare     = 0.03
	guardingShare  = 0.01 // while the guard makes looks too; with those 5 % in all (docs/policy.md, old requests)
	publishWorkers = 16
	// singlesPerRound is how many actions are looked up by id while the API refuses every list. It is for hours in which only
	// the list fails, not for speed.
	singlesPerRound = 4
	fewActions      = 1000 // the longest list that keeps raw actions, and that looks for calls extend to followed ones
)

// Run follows until ctx ends.
func (t *Tracker) Run(ctx context.Context) error {
	t.mu.Lock()
	t.open, t.unpublished, t.unpulled = map[string]*followed{}, map[string]*unpublished{}, map[string]*unpulled{}
	t.toFollow, t.toPublish = make(chan struct{}, 1), make(chan struct{}, 1)
	t.looked = time.Now()
	t.mu.Unlock()
	synced := make(chan struct{})
	g, running := errgroup.WithContext(ctx)
	g.Go(func() error { return t.feed(running, synced) })
	g.Go(func() error {
		select {
		case <-running.Done():
			return nil
		case <-synced:
		}
		return t.follow(running)
	})
	g.Go(func() error {
		t.sweep(running)
		return nil
	})
	g.Go(func() error {
		t.cancelActions(running)
		return nil
	})
	err := g.Wait()
	if ctx.Err() != nil {
		err = nil
	}
	t.forget(err)
	return err
}

// feed applies all entries, and their changes, until the watch breaks. If the watch can't begin, nothing is followed, so
// that is reported.
func (t *Tracker) feed(ctx context.Context, synced chan struct{}) error {
	err := t.Feed.Entries(ctx, func() { close(synced) }, t.observeEntry)
	select {
	case <-synced:
	default:
		if err != nil && ctx.Err() == nil {
			t.Shared.setCause(health.NotFollowing, "accepted actions are not followed, for the ledger can't be: "+err.Error())
		}
	}
	return err
}

// forget ends a Run. A known fault stays reported for as long as another replica needs to find out that it fails too; when
// this one tries again, it finds out itself.
func (t *Tracker) forget(err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.open, t.unpublished, t.unpulled = nil, nil, nil
	if err == nil {
		t.Shared.clearCause(health.NotFollowing)
	} else {
		t.Shared.expireCause(health.NotFollowing, t.longest()+time.Minute)
	}
	t.Shared.calls.follow(time.Time{})
	t.Metrics.followed.Set(0)
}

// Following is the number of actions that this replica follows; 0 on all but one.
func (t *Tracker) Following() int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return len(t.open)
}

// Ages are the times since each followed action was accepted.
func (t *Tracker) Ages() []time.Duration {
	t.mu.Lock()
	defer t.mu.Unlock()
	ages := make([]time.Duration, 0, len(t.open))
	for _, f := range t.open {
		ages = append(ages, time.Since(f.accepted))
	}
	return ages
}

// observeEntry updates what is to be followed or published from an entry.
func (t *Tracker) observeEntry(key string, rec ledger.Record) {
	var e ledger.Entry
	var err error
	if !ledger.Settled(rec) {
		e, err = ledger.DecodeEntry(rec)
	}
	if err != nil && !errors.Is(err, ledger.ErrNewer) { // a newer version's entry is no longer followed here
		t.Log.Error("ledger entry not understood", zap.String("key", key), zap.Error(err))
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	switch decided := e.State == ledger.StateFinal && !e.Published && !e.Dead; {
	case !decided:
		delete(t.unpublished, key)
	case t.unpublished[key] == nil:
		t.unpublished[key] = &unpublished{tried: time.Now()}
		notify(t.toPublish)
	}
	t.updateUnpulled(key, &e)
	if e.State != ledger.StateSubmitted || !e.Follow {
		delete(t.open, key)
	} else if have := t.open[key]; have == nil || have.action != e.ActionID {
		f := &followed{key: key, action: e.ActionID, created: e.Created, accepted: e.AcceptedAt, run: targetOf(&e), cancelled: e.Adopted}
		if f.created.IsZero() {
			f.created = e.CalledAt
		}
		if len(t.open) == 0 {
			t.looked = time.Now() // until now there was nothing to look at
		}
		t.open[key] = f
		t.fresh = true
		notify(t.toFollow)
	}
	t.Metrics.followed.Set(float64(len(t.open)))
}

// unfollow drops an entry if err shows that this version can no longer handle it, and reports whether it did.
func (t *Tracker) unfollow(key string, err error) bool {
	if !errors.Is(err, ledger.ErrNewer) && !errors.Is(err, ledger.ErrGarbled) {
		return false
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	delete(t.open, key)
	delete(t.unpublished, key)
	t.Metrics.followed.Set(float64(len(t.open)))
	return true
}

func (t *Tracker) markLooked() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.looked = time.Now()
}

// Overdue returns when the open actions were last looked at, and by how much the next look is overdue; zero: no action is
// open.
func (t *Tracker) Overdue() (since time.Time, by time.Duration) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(t.open) == 0 {
		return time.Time{}, 0
	}
	return t.looked, time.Since(t.looked) - t.due
}
