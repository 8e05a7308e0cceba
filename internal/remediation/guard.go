package remediation

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"time"

	"example.com/unrestrict-worker/internal/defender"
)

// Types of the actions that a release would undo, or come too early for ([doc] machineaction.md).
const (
	typeRestrict = "RestrictCodeExecution"
	typeIsolate  = "Isolate"
)

// guard holds an old request, and every replay, against what was done to the machine since it was published: somebody
// who restricted or isolated it later knew more than the request does. It is asked right before a call,
// and again for each further call; a call that may have taken place is looked for first. Its look may use the quota's
// reserve, so that those that have a permit for their call do not take all of it from one another. The error is refused
// if the run may not go on, a *defender.Error if the look failed.
func (p *attempt) guard() error {
	if !p.toBeGuarded(0) {
		return nil
	}
	p.Notes.guards()
	measured := p.clockKnown()
	since := p.askedByAPI()
	actions, err := p.newerThan(since)
	if err == nil && !measured {
		// The answer has told the API's time. Of a clock far behind ours too little was asked for.
		from := since
		if since = p.askedByAPI(); since.Before(from) {
			actions, err = p.newerThan(since)
		}
	}
	if err != nil {
		return err
	}
	p.Notes.mayList(true, "")
	for _, a := range actions {
		if strings.EqualFold(a.MachineID, p.e.MachineID) && restricts(a, since) {
			return refused{&Failure{Code: CodeRestrictedAgain, Origin: OriginRequest, Message: fmt.Sprintf(
				"the machine got %s (action %s) at %s, after the request was published; look at the machine, and publish a new request if it is to be released",
				a.Type, a.ID, a.CreationTime.Format(time.RFC3339))}}
		}
	}
	p.e.Guarded = p.BrokerNow().UTC()
	return nil
}

// toBeGuarded says whether the guard has to look for a call that is due within a while.
func (p *attempt) toBeGuarded(within time.Duration) bool {
	return p.old(within) && p.BrokerNow().Sub(p.e.Guarded) > guardGood
}

// few lets two through at a time: one that hangs must not hold up all others.
type few struct {
	once  sync.Once
	slots chan struct{}
}

func (f *few) enter(ctx context.Context) error {
	f.once.Do(func() { f.slots = make(chan struct{}, 2) })
	select {
	case f.slots <- struct{}{}:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

func (f *few) leave() { <-f.slots }

func (p *attempt) newerThan(since time.Time) ([]defender.MachineAction, error) {
	return p.list(defender.Query{MachineID: p.e.MachineID, CreatedSince: since})
}

// guardGood is how old the guard's last look may be, for a request that comes again at once because the machine was busy,
// or whose permit was too old by the time of its call.
const guardGood = 10 * time.Second

// old says whether the request will be one for the guard within a while.
func (p *attempt) old(within time.Duration) bool {
	return p.e.ReplayOf != 0 || p.Config.GuardAfter == 0 || p.BrokerNow().Sub(p.asked())+within > p.Config.GuardAfter
}

// asked is when the request was published first, by the broker's clock. The entry's word comes first: the dead letter
// that a replay's was read from is gone once the run is open. Entries of earlier versions have none.
func (p *attempt) asked() time.Time {
	if p.e.Asked.IsZero() {
		return p.origin.Published
	}
	return p.e.Asked
}

// askedByAPI is that instant in the API's time, less the margin of apiTime: an action that is created before it was
// certainly there before the request.
func (p *attempt) askedByAPI() time.Time {
	return p.apiTime().Add(p.asked().Sub(p.BrokerNow()))
}

// restricts says whether an action holds the machine back since then. One that ended without success did not; one that
// is open, or in a status nobody knows, may; and so may one whose time can't be read, for the API was asked for newer ones.
func restricts(a defender.MachineAction, since time.Time) bool {
	if !strings.EqualFold(a.Type, typeRestrict) && !strings.EqualFold(a.Type, typeIsolate) || a.Final() && a.Status != "Succeeded" {
		return false
	}
	return a.CreationTime.IsZero() || !a.CreationTime.Before(since)
}
