package remediation

import (
	"context"
	"sync"
	"time"

	"example.com/unrestrict-worker/internal/defender"
	"example.com/unrestrict-worker/internal/ledger"
)

// look is what a list of actions on all machines showed. The zero look shows nothing.
type look struct {
	begun    time.Time // right before it was sent, by this machine's clock
	since    time.Time // it shows what was created from then on, in the API's time
	whole    bool      // it was neither cut short nor had an entity that can't be read
	actions  []defender.MachineAction
	exchange defender.Exchange
	call     ledger.Call // the same, as a run records it
}

// need is what somebody needs a look for: it must have begun then or later, and show all that was created since.
type need struct{ begun, since time.Time }

// serves reports whether the look answers a need. A look that began too early says nothing of what was listed since then, and
// one that does not reach back far enough, or is not whole, does not show that an action is absent.
func (l look) serves(n need) bool {
	return l.whole && !l.begun.Before(n.begun) && !l.since.After(n.since)
}

// sharedLook is the latest look of one process at the actions of some types. One of those who need another makes it for all
// who wait. The zero value is ready.
type sharedLook struct {
	mu            sync.Mutex
	last          look
	waiting       map[string]time.Time // need.since of those who wait, by entry key
	underWay      *lookUnderWay
	disabledUntil time.Time // until then no list of all machines is whole
	followed      time.Time // since when the tracker needs what is created, in the API's time; zero: no matter
}

type lookUnderWay struct {
	done chan struct{}
	err  error // set before done is closed; nil also if its maker was stopped
}

// notWholeFor is how long no other list of all machines is tried after one that is not whole.
const notWholeFor = time.Minute

// get returns a look that serves n, or one that is not whole if there can be none for now: then each has to look at its own
// machine. list makes it. It is told since when the look is needed by those who wait by the time it asks.
func (l *sharedLook) get(ctx context.Context, key string, n need, list func(oldest func() time.Time) (look, error)) (look, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.waiting == nil {
		l.waiting = map[string]time.Time{}
	}
	l.waiting[key] = n.since
	defer delete(l.waiting, key)
	for {
		switch {
		case l.last.serves(n):
			return l.last, nil
		case time.Now().Before(l.disabledUntil):
			return look{}, nil
		case l.underWay == nil:
			return l.make(ctx, list)
		}
		other := l.underWay
		l.mu.Unlock()
		select {
		case <-other.done:
		case <-ctx.Done():
		}
		l.mu.Lock()
		switch {
		case ctx.Err() != nil:
			return look{}, context.Cause(ctx)
		case other.err != nil:
			return look{}, othersLook{other.err}
		}
	}
}

// make makes the look. The caller holds mu, which is free meanwhile.
func (l *sharedLook) make(ctx context.Context, list func(oldest func() time.Time) (look, error)) (look, error) {
	own := &lookUnderWay{done: make(chan struct{})}
	l.underWay = own
	l.mu.Unlock()
	made, err := list(l.oldest)
	l.mu.Lock()
	l.underWay = nil
	switch {
	case err == nil && made.whole:
		l.last = made
	case err == nil:
		l.disabledUntil = time.Now().Add(notWholeFor)
	case ctx.Err() == nil:
		own.err = err
	}
	close(own.done)
	return made, err
}

// othersLook is the error of a look that another request made for this one too.
type othersLook struct{ error }

func (o othersLook) Unwrap() error { return o.error }

// oldest is since when the look is needed by those who wait.
func (l *sharedLook) oldest() (since time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, t := range l.waiting {
		if since.IsZero() || t.Before(since) {
			since = t
		}
	}
	return since
}

// have is the latest look if it serves n.
func (l *sharedLook) have(n need) (look, bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.last, l.last.serves(n)
}

// follow says since when the tracker needs what is created, so that looks that are made anyway serve it too.
func (l *sharedLook) follow(since time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.followed = since
}

// reach is t, or since when the tracker needs what is created.
func (l *sharedLook) reach(t time.Time) time.Time {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.followed.IsZero() && l.followed.Before(t) {
		return l.followed
	}
	return t
}
