//go:build !race

// The explorer runs without the race detector (make test): it is one goroutine, in which there are no races to find.
//
// It takes the decisions of decide*.go through every order of events, under small bounds. What is carried out is a
// model of carry.go, call.go, intent.go, publish.go and round.go (explore_moves_test.go); the decisions are the real ones.
//
// It assumes of the store: a write is a compare-and-swap on the revision; one whose acknowledgement is lost was made, was
// not made, or is made later if the revision is still the same; a read shows the latest write. Publishing again what was
// published with the same message id changes nothing. A message that was not acknowledged is redelivered at any time, also
// while it is in hand.
//
// Of looks: one that was made for another request reaches back far enough, and is whole (look.serves refuses others).
//
// Of the API: a call takes effect within the time-out of an exchange from its first byte, or never, whoever still waits for
// its answer; an action is listed as soon as it is there; the API refuses a call that it does not carry out.
//
// Of the worker: nothing comes between the check of the permit's age and the first byte (promise 2 says so). A process
// works at once, or freezes and goes on later. Left out: other requests for the machine, what never leaves it, stale reads
// (decisions rest on writes), replays, the end of the time within which approval is awaited, and giving up by any other way than failed looks.
//
// It checks promise 1: one final result, durable before it is published, true to what the API did, and from everywhere a
// way to the end; and 6.2: no call while an earlier one may take place or did.
package remediation

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"example.com/unrestrict-worker/internal/defender"
	"example.com/unrestrict-worker/internal/ledger"
)

// explore goes through every universe that can come of the first one, breadth first, so that the first bad one it meets is
// one of the nearest. It returns how many there are, and the way to the bad one.
func explore(r rules, first universe) (count int, trace []string, wrong string) {
	seen := map[universe]int32{first: 0}
	all, from := []universe{first}, []int32{-1}
	var into [][2]int32 // edges, for the way back
	x := &explorer{rules: r}
	for at := int32(0); int(at) < len(all) && wrong == ""; at++ {
		x.emit = func(_ string, next universe, bad string) {
			next = next.canonical()
			to, known := seen[next]
			if !known {
				to = int32(len(all))
				seen[next] = to
				all, from = append(all, next), append(from, at)
			}
			into = append(into, [2]int32{to, at})
			if bad != "" && wrong == "" {
				trace, wrong = x.trail(all, from, at, next), bad
			}
		}
		x.moves(all[at])
	}
	if wrong != "" {
		return len(all), trace, wrong
	}
	// Nothing is lost: from everywhere there is a way to the end.
	if lost := stuck(all, into); lost >= 0 {
		return len(all), x.trail(all, from, lost, universe{}), "promise 1: from here no way leads to a final result and two acknowledgements"
	}
	return len(all), nil, ""
}

// trail is the way to a universe, and one step further unless last is zero, without the renaming of canonical.
func (x *explorer) trail(all []universe, from []int32, to int32, last universe) (trace []string) {
	var way []universe
	if last != (universe{}) {
		way = append(way, last)
	}
	for at := to; at > 0; at = from[at] {
		way = append(way, all[at])
	}
	told := explorer{rules: x.rules, named: true}
	for u := all[0]; len(way) > 0; way = way[:len(way)-1] {
		var next universe
		told.emit = func(what string, n universe, _ string) {
			if next == (universe{}) && n.canonical() == way[len(way)-1] {
				next = n
				trace = append(trace, what)
			}
		}
		told.moves(u)
		u = next
	}
	return trace
}

// stuck is the first universe from which no settled one can be reached; -1: there is none.
func stuck(all []universe, into [][2]int32) int32 {
	first := make([]int32, len(all)+1) // where the edges into a universe begin
	for _, e := range into {
		first[e[0]+1]++
	}
	for i := range all {
		first[i+1] += first[i]
	}
	from, end := make([]int32, len(into)), slices.Clone(first)
	for _, e := range into {
		from[end[e[0]]] = e[1]
		end[e[0]]++
	}
	good, queue := make([]bool, len(all)), []int32{}
	for i, u := range all {
		if u.settled() {
			good[i] = true
			queue = append(queue, int32(i))
		}
	}
	for len(queue) > 0 {
		to := queue[0]
		queue = queue[1:]
		for _, f := range from[first[to]:first[to+1]] {
			if !good[f] {
				good[f] = true
				queue = append(queue, f)
			}
		}
	}
	return int32(slices.Index(good, false))
}

// start is the first universe; what may go wrong in it is bounded.
func start(crashes, faults, refuses, freezes, lates int8) universe {
	return universe{
		ledger:  rec{lastCall: oldest, lookFrom: oldest, written: oldest},
		crashes: crashes, faults: faults, refuses: refuses, freezes: freezes, lates: lates,
	}
}

// beside is a universe in which a look is made for another request, which may count for this one too.
func beside(u universe) universe {
	u.looks = 1
	return u
}

// ordering is a universe in which somebody orders the request to be cancelled, at any time.
func ordering(u universe) universe {
	u.orders = 1
	return u
}

// approving is a universe in which people are asked first, and somebody approves at any time.
func approving(u universe) universe {
	u.asks = 1
	return u
}

// denying is one in which somebody has approved, and somebody else denies it at any time.
func denying(u universe) universe {
	u.asks, u.denies = 2, 1
	return u
}

// The promises hold in every universe.
func TestExplore(t *testing.T) {
	bounds := []universe{
		start(1, 0, 1, 1, 0), start(2, 0, 0, 0, 0), start(0, 1, 1, 0, 0), start(0, 1, 0, 1, 0), start(1, 1, 0, 0, 0), start(0, 0, 0, 0, 1), beside(start(0, 1, 0, 0, 0)), beside(start(1, 0, 0, 0, 0)),
		ordering(start(1, 0, 0, 0, 0)), ordering(start(0, 1, 0, 0, 0)), ordering(start(0, 0, 1, 1, 0)), ordering(start(0, 0, 0, 0, 1)),
		approving(start(1, 0, 0, 0, 0)), approving(start(0, 1, 0, 0, 0)), denying(start(1, 0, 0, 0, 0)), denying(start(0, 0, 1, 0, 0)),
	}
	for _, first := range bounds {
		t.Run(fmt.Sprintf("crashes %d, faults %d, refusals %d, freezes %d, late writes %d, looks of others %d, orders %d, asks %d, denials %d", first.crashes, first.faults, first.refuses, first.freezes, first.lates, first.looks, first.orders, first.asks, first.denies), func(t *testing.T) {
			t.Parallel()
			began := time.Now()
			count, trace, wrong := explore(theRules(), first)
			if wrong != "" {
				t.Fatalf("%s:\n%s", wrong, strings.Join(trace, "\n"))
			}
			t.Log(count, "universes in", time.Since(began))
		})
	}
}

// Each rule taken away lets the explorer find what it is there for.
func TestExploreFindsEachRuleTakenAway(t *testing.T) {
	for name, m := range map[string]struct {
		first   universe
		without func(r *rules)
		finds   string
	}{
		"another's call is waited for while it may be under way": {start(0, 0, 0, 0, 0), func(r *rules) {
			r.next = func(d decider, e ledger.Entry, f facts) (ledger.Entry, step) {
				e.Written = e.Written.Add(-time.Hour)
				return d.next(e, f)
			}
		}, "promise 2"},
		"an intent whose machine was taken may have been followed by a call": {start(1, 0, 0, 0, 0), func(r *rules) {
			r.next = func(d decider, e ledger.Entry, f facts) (ledger.Entry, step) {
				f.isHolder = false
				return d.next(e, f)
			}
		}, "promise 2"},
		"who wants a message later leaves \"called\" as it is": {start(0, 0, 0, 0, 0), func(r *rules) {
			r.next = func(d decider, e ledger.Entry, f facts) (ledger.Entry, step) {
				e, s := d.next(e, f)
				if s.cause == "inFlight" {
					return putOff(e, s)
				}
				return e, s
			}
		}, "promise 2"},
		"an unclear answer is looked for": {start(0, 1, 0, 0, 0), func(r *rules) {
			r.answered = func(d decider, e ledger.Entry, a *defender.Error, f facts) (ledger.Entry, step) {
				e, s := d.answered(e, a, f)
				if e.State == ledger.StateUnknown {
					e.State = ledger.StateWaiting
				}
				return e, s
			}
		}, "promise 2"},
		"three looks": {start(0, 1, 0, 0, 0), func(r *rules) {
			r.looked = func(d decider, e ledger.Entry, found *defender.MachineAction, f facts) (ledger.Entry, step) {
				e.Looks = 2
				return d.looked(e, found, f)
			}
		}, "promise 2"},
		"an early look that does not show the call counts for nothing": {start(0, 0, 0, 0, 0), func(r *rules) {
			r.looked = func(d decider, e ledger.Entry, found *defender.MachineAction, f facts) (ledger.Entry, step) {
				if e.State == ledger.StateCalled {
					e.State, e.Looks = ledger.StateUnknown, 2
				}
				return d.looked(e, found, f)
			}
		}, "promise 2"},
		"the last look not before the call has timed out": {start(0, 1, 0, 0, 0), func(r *rules) {
			r.next = func(d decider, e ledger.Entry, f facts) (ledger.Entry, step) {
				if e.State == ledger.StateUnknown {
					d.Timeout, d.StartLimit = 0, 0
				}
				return d.next(e, f)
			}
		}, "promise 2"},
		"a look that began before it was due does not count": {beside(start(0, 1, 0, 0, 0)), func(r *rules) {
			r.serves = func(look, need) bool { return true }
		}, "promise 2"},
		"what was ordered is asked for right before the intent": {ordering(start(0, 0, 0, 1, 0)), func(r *rules) { r.deaf = true }, "orders"},
		"nothing is called before it is approved":               {approving(start(0, 0, 0, 0, 0)), func(r *rules) { r.deaf = true }, "orders"},
		"what may have been called is found out before it is denied": {denying(start(1, 0, 0, 0, 0)), func(r *rules) {
			r.next = func(d decider, e ledger.Entry, f facts) (ledger.Entry, step) {
				if f.approval.denied != nil && (e.State == ledger.StateCalled || e.State == ledger.StateUnknown) {
					return reject(e, f, denial(f.approval.denied))
				}
				return d.next(e, f)
			}
		}, "promise 1"},
		"what may have been called is found out before it is taken back": {ordering(start(1, 0, 0, 0, 0)), func(r *rules) {
			r.next = func(d decider, e ledger.Entry, f facts) (ledger.Entry, step) {
				if f.ordered.cancel != nil && (e.State == ledger.StateCalled || e.State == ledger.StateUnknown) {
					return endCancelled(e, f)
				}
				return d.next(e, f)
			}
		}, "orders"},
		"the intent before the call":          {start(1, 0, 0, 0, 0), func(r *rules) { r.unintended = true }, "promise "},
		"the call within its permit's time":   {start(0, 0, 0, 1, 0), func(r *rules) { r.unlimited = true }, "promise 2"},
		"compare and swap":                    {start(0, 0, 0, 0, 0), func(r *rules) { r.blind = true }, "promise "},
		"written before it is published":      {start(1, 0, 1, 0, 0), func(r *rules) { r.hasty = true }, "promise 1"},
		"published before it is acknowledged": {start(1, 0, 1, 0, 0), func(r *rules) { r.forward = true }, "promise 1"},
		"published before it is marked":       {start(1, 0, 1, 0, 0), func(r *rules) { r.marksFirst = true }, "promise 1"},
		"a late answer overrules no decision": {start(0, 1, 0, 1, 0), func(r *rules) {
			r.merged = func(mine, theirs ledger.Entry) (ledger.Entry, bool) { return mine, true }
		}, "promise "},
		"only what is followed ends by being followed": {start(0, 0, 0, 0, 0), func(r *rules) {
			r.sighted = func(d decider, e ledger.Entry, s observation, timeout time.Duration, now time.Time) (ledger.Entry, step) {
				if e.State == ledger.StateFinal {
					e.State, s.action.Status = ledger.StateSubmitted, "Failed"
				}
				return d.observed(e, s, timeout, now)
			}
		}, "promise 1"},
	} {
		t.Run(name, func(t *testing.T) {
			r := theRules()
			m.without(&r)
			count, trace, wrong := explore(r, m.first)
			t.Logf("%d universes; %s:\n%s", count, wrong, strings.Join(trace, "\n"))
			if !strings.Contains(wrong, m.finds) {
				t.Errorf("found: %q", wrong)
			}
		})
	}
}
