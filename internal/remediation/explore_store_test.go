//go:build !race

package remediation

import (
	"fmt"

	"example.com/unrestrict-worker/internal/ledger"
	"example.com/unrestrict-worker/internal/message"
)

// writes is carry's write: insisted on or not.
func (x *explorer) writes(u universe, i int, say sayer) {
	p := u.procs[i]
	n := u
	n.procs[i].was = p.e
	n.finish(i, &x.rules)
	if p.fresh || x.blind || !p.insist {
		x.cas(u, n, i, say, string(states[p.e.state]))
		return
	}
	n = u
	e, over := x.merged(p.e.entry(), u.ledger.entry())
	if !over {
		x.stand(&n, i)
		say(n, "another's word stands")
		return
	}
	n.procs[i].e, n.procs[i].fresh = recordOf(e), true
	say(n, "puts its action over another's word")
}

// cas writes the entry of n's replica i if u's is at the present revision. Lost replies and late writes are faults.
func (x *explorer) cas(u, n universe, i int, say sayer, what string) {
	e := n.procs[i].e
	if n.procs[i] == (proc{}) {
		e = u.procs[i].e
	}
	insists := u.procs[i].at == writing && u.procs[i].insist
	gone := func(n universe) universe {
		if n.procs[i] = (proc{}); insists {
			n.procs[i] = u.procs[i]
			n.procs[i].fresh = n.procs[i].fresh && n.ledger == u.ledger
		}
		return n
	}
	if !u.procs[i].fresh && !x.blind {
		say(gone(u), "is overtaken at %s", what)
		if u.procs[i].at == intending { // the machine's record is written all the same
			m := gone(u)
			m.take(i)
			say(m, "is overtaken at %s, and takes the machine", what)
		}
		return
	}
	written := n
	written.write(e, i)
	say(written, "writes %s", what)
	if f := u; u.faults > 0 {
		f.faults--
		say(gone(f), "can't write %s", what)
		f.write(e, -1)
		say(gone(f), "writes %s, and does not hear of it", what)
	}
	if l := u; u.lates > 0 && !insists {
		l.lates--
		l.late = late{true, e, true}
		say(gone(l), "believes its write of %s lost", what)
	}
}

// write makes e the ledger's; by is the replica whose copy is the present one by then, -1 for none.
func (u *universe) write(e rec, by int) {
	if states[e.state] == ledger.StateCalled {
		e.written = 0
	}
	u.ledger = e
	for i := range u.procs {
		u.procs[i].fresh = u.procs[i] != (proc{}) && i == by
		u.tracks[i].fresh = false
	}
	u.late.fresh = false
	if by >= 0 && u.procs[by] != (proc{}) {
		u.procs[by].e = e
	}
}

func (u *universe) take(i int) {
	u.holds = true
	for j := range u.procs {
		if u.procs[j].seen == 1 {
			u.procs[j].seen = 2
		}
	}
	if u.procs[i] != (proc{}) {
		u.procs[i].seen = 1
	}
}

// publish is a final result on its way to everybody.
func (u *universe) publish(e rec, marked bool) (wrong string) {
	result := rec{state: e.state, action: e.action, outcome: e.outcome}
	ledger := rec{state: u.ledger.state, action: u.ledger.action, outcome: u.ledger.outcome}
	switch {
	case u.told != rec{} && u.told != result:
		wrong = fmt.Sprintf("promise 1: a second final result: %s behind %s", outcomes[e.outcome], outcomes[u.told.outcome])
	case ledger != result && !marked:
		wrong = "promise 1: published, and not durable"
	}
	u.told = result
	return wrong
}

// wrong says what a universe may not be.
func (u universe) wrong() string {
	switch {
	case u.effects > 1:
		return "promise 2: carried out twice"
	case outcomes[u.ledger.outcome] == message.Rejected && u.effects > 0:
		return "promise 1: rejected, and carried out"
	case outcomes[u.ledger.outcome] == message.Cancelled && u.effects > 0:
		return "orders: taken back before its call, and carried out"
	case u.told != rec{} && states[u.ledger.state] != ledger.StateFinal:
		return "promise 1: a final result, and the run goes on"
	}
	return ""
}

// settled: nothing is left to do, and everybody knows.
func (u universe) settled() bool {
	return u.acked == [2]bool{true, true} && states[u.ledger.state] == ledger.StateFinal && u.ledger.published && u.told != rec{}
}
