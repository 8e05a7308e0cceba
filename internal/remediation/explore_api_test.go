//go:build !race

package remediation

import (
	"fmt"
	"time"

	"example.com/unrestrict-worker/internal/defender"
	"example.com/unrestrict-worker/internal/ledger"
)

// api is what becomes of a POST. It takes effect within the time-out or never, whoever still waits for its answer.
func (x *explorer) api(u universe, j int) {
	f := u.flights[j]
	if f.at == pending {
		n := u
		n.flights[j].at = carriedOut
		n.effects++
		x.emit("the API carries the call out", n.sweep(), "")
		if u.refuses > 0 {
			for _, at := range []progress{rejected, throttled, conflicting} {
				n := u
				n.refuses--
				n.flights[j].at = at
				x.emit([...]string{rejected: "the API rejects the call", throttled: "the API throttles the call", conflicting: "the API has another action on the machine"}[at], n.sweep(), "")
			}
		}
		if u.faults > 0 {
			n := u
			n.faults--
			n.flights[j].at = failing
			x.emit("the API fails, without effect", n.sweep(), "")
		}
	}
	if f.waiter == 0 {
		return
	}
	i := int(f.waiter) - 1
	answer := func(what string, n universe, class defender.Class) {
		p := u.procs[i]
		var e ledger.Entry
		var s step
		if class == 0 {
			e, s = x.decider(i).accepted(p.e.entry(), defender.MachineAction{ID: fmt.Sprint("a", u.effects)}, x.facts(u, i))
		} else {
			e, s = x.answered(x.decider(i), p.e.entry(), &defender.Error{Op: "unrestrict", Class: class, Code: "x", StatusCode: 400}, x.facts(u, i))
		}
		n.route(i, e, s, &x.rules)
		x.emit(x.name("r%d: %s", i, what), n, n.wrong())
	}
	if f.at != pending {
		n := u
		n.flights[j] = flight{}
		answer("is answered", n, [...]defender.Class{carriedOut: 0, rejected: defender.Rejected, throttled: defender.Throttled, conflicting: defender.Conflict, failing: defender.Ambiguous}[f.at])
	}
	if u.faults > 0 {
		n := u
		n.faults--
		n.flights[j].waiter = 0
		answer("loses the answer", n.sweep(), defender.Ambiguous)
	}
}

// sweep forgets the calls that have ended and nobody waits for.
func (u universe) sweep() universe {
	for j, f := range u.flights {
		if f.waiter == 0 && f.at != pending {
			u.flights[j] = flight{}
		}
	}
	return u
}

func (x *explorer) tracker(u universe, i int) {
	t := u.tracks[i]
	n := u
	say := func(n universe, what string) { x.emit(x.name("tracker %d: %s", i, what), n, n.wrong()) }
	write := func(e rec, at place, what string) {
		if !t.fresh && !x.blind {
			n.tracks[i] = tracking{}
			say(n, "is overtaken")
			return
		}
		n.write(e, -1)
		n.tracks[i] = tracking{at, e, true}
		if at == idle {
			n.tracks[i] = tracking{}
		}
		say(n, what)
		if u.faults > 0 {
			n.faults--
			n.tracks[i] = tracking{}
			say(n, what+", and does not hear of it")
		}
	}
	switch t.at {
	case idle:
		l := u.ledger
		if e, ends := x.withdraws(u, i); ends {
			m := u
			m.tracks[i] = tracking{writing, recordOf(e), true}
			say(m, "finds that it is to be cancelled")
		}
		e, s := x.sighted(exploring, l.entry(), observation{action: defender.MachineAction{ID: fmt.Sprint("a", l.action), Status: "Succeeded"}}, time.Hour, tableNow)
		switch {
		case l.action > 0 && s.do == doPublish:
			n.tracks[i] = tracking{writing, recordOf(e), true}
			say(n, "sees the end of the action")
		case states[l.state] == ledger.StateFinal && !l.published && !l.dead:
			n.tracks[i] = tracking{publishing, l, true}
			say(n, "sweeps")
		}
	case writing:
		write(t.e, publishing, "writes final")
	case publishing:
		n.tracks[i].at = marking
		x.emit(x.name("tracker %d: publishes", i), n, n.publish(t.e, false))
	case marking:
		t.e.published = true
		write(t.e, idle, "writes the mark")
	}
}

// withdraws is the run as it ends where somebody sees to what was ordered, without the message in hand (carryWithdrawn).
func (x *explorer) withdraws(u universe, i int) (e ledger.Entry, ends bool) {
	l := u.ledger.entry()
	if u.procs[i] != (proc{}) { // the request is in hand of this process (inFlight)
		return l, false
	}
	if u.ordered == 0 && u.denied == 0 || l.State == ledger.StateFinal || l.State == ledger.StateSubmitted {
		return l, false
	}
	f := x.facts(u, i)
	e, _ = opened(l, arrival{fresh: ledger.Entry{State: ledger.StateWaiting, Run: 1, Fingerprint: "print", Source: messages[1]}, message: messages[1], claimed: "r"}, tableNow)
	e, s := x.next(x.decider(i), e, f)
	if s.do == doCall {
		e, _ = x.decider(i).beforeCall(e, f)
	}
	return e, e.State == ledger.StateFinal
}

func (u universe) crash(i int8) universe {
	u.crashes--
	u.procs[i], u.tracks[i] = proc{}, tracking{}
	for j := range u.flights {
		if u.flights[j].waiter == i+1 {
			u.flights[j].waiter = 0
		}
	}
	for _, r := range u.records() {
		*r = r.orphan(i)
	}
	return u.sweep()
}

// busy: it goes on at once, unless it freezes.
func (p proc) busy() bool { return p.at != idle && p.at != answering && !p.frozen }

// tick lets time pass. A call that has not been carried out by its time-out never is, and nobody waits for its answer for longer.
func (u universe) tick() (universe, bool) {
	if u.procs[0].busy() || u.procs[1].busy() {
		return u, false
	}
	for j, f := range u.flights {
		if f.at == pending && f.age >= timeout-1 || f.at != none && f.age >= timeout {
			return u, false
		}
		if f.at != none {
			u.flights[j].age++
		}
	}
	u.ledger = u.ledger.older()
	if u.ordered > 0 {
		u.ordered = min(u.ordered+1, 4)
	}
	if u.denied > 0 {
		u.denied = min(u.denied+1, 4)
	}
	if u.other.made {
		u.other.age = min(u.other.age+1, oldest)
	}
	for i := range u.procs {
		p := &u.procs[i]
		if *p != (proc{}) {
			p.e, p.was = p.e.older(), p.was.older()
		}
	}
	if u.late.live {
		u.late.e = u.late.e.older()
	}
	return u, true
}
