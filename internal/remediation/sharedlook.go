package remediation

import (
	"context"
	"sync"
	"time"

	"example.com/unrestrict-worker/internal/defender"
	"example.com/unrestrict-worker/internal/ledger"
)

// look is the result of listing the actions on all machines. The zero look shows nothing.
type look struct {
	begun    time.Time // right before it was sent, by this machine's clock
	since    time.Time // it shows actions created from then on, in the API's time
	whole    bool      // not cut short, and every entity could be read
	actions  []defender.MachineAction
	exchange defender.Exchange
	call     ledger.Call // the same exchange, as a run records it
}

// need is a requirement for a look: it must have begun at begun or later, and show all actions created since.
type need struct{ begun, since time.Time }

// serves reports whether the look meets a need. A look that began too early does not show what was listed since then, and
// one that does not reach back far enough, or is not whole, does not show that an action is absent.
func (l look) serves(n need) bool {
	return l.whole && !l.begun.Before(n.begun) && !l.since.After(n.since)
}

// sharedLook is the latest look of one process at the actions of some types. One of the requests that need another makes it
// for all that wait. The zero value is ready.
type sharedLook struct {
	mu            sync.Mutex
	last          look
	waiting       map[string]time.Time // need.since of waiting requests, by entry key
	underWay      *lookUnderWay
	disabledUntil time.Time // until then no list of all machines is tried
	followed      time.Time // the tracker needs all actions since then, in the API's time; zero: none
}

type lookUnderWay struct {
	done chan struct{}
	err  error // set before done is closed; also nil if the maker was stopped
}

// notWholeFor is how long no other list of all machines is tried after one that is not whole.
const notWholeFor = time.Minute

// get returns a look that serves n. It returns one that is not whole if no look can for now: then each request has to look at
// its own machine. list makes the look; it calls oldest for the earliest need.since of the requests that wait by then.
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
			return look{}, sharedLookError{other.err}
		}
	}
}

// make makes the look. The caller holds mu, which is unlocked meanwhile.
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

// sharedLookError is the error of a look that another request made for this one too.
type sharedLookError struct{ error }

func (o sharedLookError) Unwrap() error { return o.error }

// oldest is the earliest need.since of the waiting requests.
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

// have returns the latest look, and whether it serves n.
func (l *sharedLook) have(n need) (look, bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.last, l.last.serves(n)
}

// follow records since when the tracker needs all actions, so that looks which are made anyway serve it too.
func (l *sharedLook) follow(since time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.followed = since
}

// reach is the earlier of t and the time since which the tracker needs all actions.
func (l *sharedLook) reach(t time.Time) time.Time {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.followed.IsZero() && l.followed.Before(t) {
		return l.followed
	}
	return t
}
