//go:build !race

package remediation

import (
	"bytes"
	"cmp"
	"fmt"
	"time"
	"unsafe"

	"example.com/unrestrict-worker/internal/defender"
	"example.com/unrestrict-worker/internal/ledger"
	"example.com/unrestrict-worker/internal/message"
)

// A universe is two replicas, a request and its duplicate, the ledger, the machine's record, the API, and what was
// published: one value that can be compared. Its times are ages in ticks, so that universes that differ only in when they
// are look the same; a revision is only known as "the present one" or not, for nothing else is ever asked of it.
type universe struct {
	ledger  rec
	holds   bool // the machine's record names the request
	acked   [2]bool
	procs   [2]proc
	tracks  [2]tracking
	flights [2]flight // a third can't come before a call that should not be made
	late    late
	other   glimpse
	effects int8 // actions that the API has made
	told    rec  // the final result, as published
	crashes int8 // still to come
	faults  int8
	refuses int8
	freezes int8
	lates   int8
	looks   int8
	orders  int8
	asks    int8 // people are: 1: and nobody has approved, 2: somebody has; 0: nobody is asked
	denies  int8 // still to come
	denied  int8 // as ordered
	ordered int8 // how many ticks ago somebody ordered the request to be cancelled, from 1 on; 0: nobody has
}

// rec is an entry as far as decisions rest on it.
type rec struct {
	state, owner, looks     int8
	lastCall, lookFrom      int8 // ages
	written                 int8 // age
	due                     int8 // age, below 0; 0: none
	action, outcome, source int8
	approval                int8 // that it awaits: 1: not asked for, 2: asked for, 3: given; 0: none
	dead, published         bool
}

// proc is one replica's handling of a message.
type proc struct {
	at     place
	msg    int8
	do     int8
	insist bool
	e, was rec  // as it is to become, and as it was read or written
	fresh  bool // e's revision is the ledger's
	frozen bool // time passes in the middle of its work
	seen   int8 // the machine's record: 0 not there when it was read, or not read; 1 as it is; 2 written since
}

type place int8

const (
	idle place = iota
	writing
	intending
	taking // the machine
	reverting
	posting
	answering // the call is under way
	looking
	adopting
	publishing
	marking
	acking
)

func (p place) String() string {
	return [...]string{"idle", "write", "intent", "machine", "revert", "POST", "answer", "look", "look at the holder", "publish", "mark", "ack"}[p]
}

// tracking is one replica's tracker with an entry in hand.
type tracking struct {
	at    place // idle, writing, publishing, marking
	e     rec
	fresh bool
}

// flight is a POST on its way.
type flight struct {
	at     progress
	age    int8
	waiter int8 // the replica that waits for the answer, from 1 on; 0: nobody any more
}

type progress int8

const (
	none    progress = iota
	pending          // the API may still carry it out
	carriedOut
	rejected
	throttled
	conflicting
	failing // no effect, and no clear answer
)

// late is a write that its process believes lost.
type late struct {
	live  bool
	e     rec
	fresh bool
}

// glimpse is the latest look that was made for another request while a call was under way. It does not show the call. One that
// does is like the run's own.
type glimpse struct {
	made bool
	age  int8
}

const (
	tick    = time.Second
	oldest  = 6 // ages beyond it are all the same
	timeout = 2 // of an exchange
)

var (
	owners   = [...]string{"", "r0", "r1", "dead"}
	states   = [...]ledger.State{"", ledger.StateWaiting, ledger.StateCalled, ledger.StateUnknown, ledger.StateSubmitted, ledger.StateFinal}
	outcomes = [...]string{"", message.Submitted, message.Succeeded, message.Failed, message.Rejected, message.Abandoned, message.Cancelled}
	messages = [...]string{"", "m0", "m1"}
)

// exploring are the settings. The looks alone would end before the call can have: all three are due at the first tick.
var exploring = decider{GiveUpAfter: 24 * time.Hour, ReconcileDelay: tick / 8, Timeout: timeout * tick, StartLimit: tick, Track: true}

func index[T comparable](all []T, v T) int8 {
	for i, x := range all {
		if x == v {
			return int8(i)
		}
	}
	panic(fmt.Sprint("not modelled: ", v))
}

func ago(age int8) time.Time { return tableNow.Add(-time.Duration(age) * tick) }

func ageOf(t time.Time) int8 {
	if t.IsZero() {
		return oldest
	}
	return int8(min(-(t.Sub(tableNow) / tick), oldest)) // what comes within a tick comes at its end
}

func (r rec) entry() ledger.Entry {
	e := ledger.Entry{
		State: states[r.state], Run: 1, Fingerprint: "print", Owner: owners[r.owner], Looks: int(r.looks), LastCall: ago(r.lastCall), LookFrom: ago(r.lookFrom),
		Written: ago(r.written), Outcome: outcomes[r.outcome], Dead: r.dead, Published: r.published, Source: messages[r.source],
	}
	if r.action > 0 {
		e.ActionID = fmt.Sprint("a", r.action)
		e.Follow = true
	}
	if r.due != 0 {
		e.NotBefore = ago(r.due)
	}
	if r.approval > 0 {
		e.Approval = &ledger.Approval{Required: 1, Digest: "d", Since: tableNow, ExpiresAt: tableNow.Add(time.Hour), Asked: r.approval > 1}
	}
	if r.approval == 3 {
		e.Approval.Given = []ledger.Verdict{{By: "ann"}}
	}
	if r.outcome > 0 && r.action == 0 {
		e.Error = &message.Failure{Code: "x"}
	}
	return e
}

func recordOf(e ledger.Entry) rec {
	r := rec{
		state: index(states[:], e.State), owner: index(owners[:], e.Owner), looks: int8(e.Looks), lastCall: ageOf(e.LastCall), lookFrom: ageOf(e.LookFrom),
		written: ageOf(e.Written), outcome: index(outcomes[:], e.Outcome), source: index(messages[:], e.Source), dead: e.Dead, published: e.Published,
	}
	if e.State != ledger.StateCalled && e.State != ledger.StateUnknown { // they are not read any more
		r.lastCall, r.lookFrom, r.owner, r.looks = oldest, oldest, 0, 0
	}
	if e.State != ledger.StateCalled {
		r.written = oldest
	}
	if !e.Dead {
		r.source = 0
	}
	switch a := e.Approval; {
	case a == nil || e.State == ledger.StateSubmitted || e.State == ledger.StateFinal:
	case len(a.Given) > 0:
		r.approval = 3
	case a.Asked:
		r.approval = 2
	default:
		r.approval = 1
	}
	if e.ActionID != "" {
		r.action = int8(e.ActionID[1] - '0')
	}
	if e.NotBefore.After(tableNow) {
		r.due = ageOf(e.NotBefore)
	}
	return r
}

// older is r one tick later.
func (r rec) older() rec {
	for _, age := range []*int8{&r.lastCall, &r.lookFrom, &r.written} {
		*age = min(*age+1, oldest)
	}
	if r.due < 0 {
		r.due++
	}
	return r
}

// orphan is r after the replica has died.
func (r rec) orphan(replica int8) rec {
	if r.owner == replica+1 {
		r.owner = 3
	}
	return r
}

// canonical is u, or one that differs from it only in which replica, message or flight is called the first.
func (u universe) canonical() universe {
	least := u
	for _, replicas := range []bool{false, true} {
		for _, others := range []bool{false, true} {
			v := u
			if replicas {
				v.swapReplicas()
			}
			if others {
				v.swapMessages()
			}
			if v.flights[1].less(v.flights[0]) {
				v.flights[0], v.flights[1] = v.flights[1], v.flights[0]
			}
			if bytes.Compare(v.bytes(), least.bytes()) < 0 {
				least = v
			}
		}
	}
	return least
}

func (f flight) less(g flight) bool {
	return cmp.Or(cmp.Compare(f.at, g.at), cmp.Compare(f.age, g.age), cmp.Compare(f.waiter, g.waiter)) < 0
}

// bytes is the universe as it lies in memory: all its fields are one byte long.
func (u *universe) bytes() []byte { return (*[unsafe.Sizeof(*u)]byte)(unsafe.Pointer(u))[:] }

// records are all entries that anybody has.
func (u *universe) records() [8]*rec {
	return [...]*rec{&u.ledger, &u.late.e, &u.procs[0].e, &u.procs[0].was, &u.procs[1].e, &u.procs[1].was, &u.tracks[0].e, &u.tracks[1].e}
}

func (u *universe) swapReplicas() {
	u.procs[0], u.procs[1] = u.procs[1], u.procs[0]
	u.tracks[0], u.tracks[1] = u.tracks[1], u.tracks[0]
	for _, r := range u.records() {
		if r.owner == 1 || r.owner == 2 {
			r.owner = 3 - r.owner
		}
	}
	for j := range u.flights {
		if w := &u.flights[j].waiter; *w > 0 {
			*w = 3 - *w
		}
	}
}

func (u *universe) swapMessages() {
	u.acked[0], u.acked[1] = u.acked[1], u.acked[0]
	for i := range u.procs {
		if u.procs[i] != (proc{}) {
			u.procs[i].msg = 1 - u.procs[i].msg
		}
	}
	for _, r := range u.records() {
		if r.source > 0 {
			r.source = 3 - r.source
		}
	}
}

// rules are the decisions and the rules of carrying them out. A test takes one away at a time.
type rules struct {
	next       func(d decider, e ledger.Entry, f facts) (ledger.Entry, step)
	answered   func(d decider, e ledger.Entry, a *defender.Error, f facts) (ledger.Entry, step)
	looked     func(d decider, e ledger.Entry, found *defender.MachineAction, f facts) (ledger.Entry, step)
	merged     func(mine, theirs ledger.Entry) (ledger.Entry, bool)
	sighted    func(d decider, e ledger.Entry, s observation, timeout time.Duration, now time.Time) (ledger.Entry, step)
	serves     func(l look, n need) bool
	unintended bool // the POST needs no intent
	unlimited  bool // nor must it leave within StartLimit of it
	blind      bool // writes are no compare-and-swap
	hasty      bool // what is decided is published without being written first
	forward    bool // acknowledged before it is published
	marksFirst bool // marked as published before it is
	deaf       bool // what was ordered is not asked for right before the intent
}

func theRules() rules {
	return rules{next: decider.next, answered: decider.answered, looked: decider.looked, merged: merged, sighted: decider.observed, serves: look.serves}
}
