package remediation

import (
	"fmt"
	"time"

	"example.com/unrestrict-worker/internal/defender"
)

// explorer knows all that can happen next in a universe.
type explorer struct {
	rules
	named bool // the moves have names, which take their time
	emit  func(what string, next universe, wrong string)
}

func (x *explorer) name(format string, args ...any) string {
	if !x.named {
		return ""
	}
	return fmt.Sprintf(format, args...)
}

// moves says all of it.
func (x *explorer) moves(u universe) {
	for i := range u.procs {
		x.handler(u, i)
		x.tracker(u, i)
		if u.crashes > 0 && (u.procs[i] != proc{} || u.tracks[i] != tracking{}) {
			x.emit(x.name("r%d dies", i), u.crash(int8(i)), "")
		}
	}
	for i := range u.flights {
		x.api(u, i)
	}
	if u.late.live {
		n := u
		n.late = late{}
		x.emit("the late write is dropped", n, "")
		if u.late.fresh || x.blind {
			n.write(u.late.e, -1)
			x.emit("the late write arrives", n, "")
		}
	}
	if n, ok := u.tick(); ok && n != u {
		x.emit("a tick", n, "")
	}
}

func (x *explorer) handler(u universe, i int) {
	p := u.procs[i]
	if p.busy() && u.freezes > 0 {
		n := u
		n.freezes--
		n.procs[i].frozen = true
		x.emit(x.name("r%d freezes", i), n, "")
	}
	u.procs[i].frozen, p.frozen = false, false
	say := func(n universe, format string, args ...any) {
		x.emit(x.name("r%d: ", i)+x.name(format, args...), n, n.wrong())
	}
	switch p.at {
	case idle:
		for m := range u.acked {
			if !u.acked[m] {
				n := u
				n.procs[i] = proc{msg: int8(m)}
				x.stand(&n, i)
				say(n, "takes m%d and reads: %s", m, n.procs[i].at)
			}
		}
	case writing:
		x.writes(u, i, say)
	case intending:
		n := u
		q := &n.procs[i]
		e := x.decider(i).intended(p.e.entry(), tableNow, tableNow)
		q.e, q.at = recordOf(e), taking
		if x.unintended {
			q.at = posting
			say(n, "goes without an intent")
			return
		}
		x.cas(u, n, i, say, "the intent")
	case taking:
		n := u
		if p.seen == 2 { // it had read the record, and another took it since
			n.procs[i].at = reverting
			say(n, "finds the machine taken")
			return
		}
		n.take(i)
		n.procs[i].at = posting
		say(n, "takes the machine")
		if u.faults > 0 {
			n.faults--
			n.procs[i].at = reverting
			say(n, "takes the machine, and does not hear of it")
			n = u
			n.faults--
			n.procs[i].at = reverting
			say(n, "can't take the machine")
		}
	case reverting:
		n := u
		n.procs[i].e = recordOf(reverted(p.e.entry()))
		n.procs[i].at, n.procs[i].do = writing, int8(doWait)
		say(n, "takes the intent back")
	case posting:
		x.post(u, i, say)
	case looking:
		x.looks(u, i, say)
	case adopting:
		n := u
		e, s := x.decider(i).adopted(p.e.entry(), nil, &defender.Error{Class: defender.Conflict, Code: "x"}, x.facts(u, i))
		n.route(i, e, s, &x.rules)
		say(n, "finds no action to adopt")
	case publishing:
		n := u
		wrong := n.publish(p.e, x.marksFirst)
		n.procs[i].at = marking
		if x.marksFirst || x.forward {
			n.procs[i].at = acking
		}
		if x.forward { // it was acknowledged before
			n.procs[i].at = marking
		}
		x.emit(x.name("r%d: publishes %s", i, outcomes[p.e.outcome]), n, wrong)
	case marking:
		n := u
		n.procs[i].e.published = true
		n.procs[i].at = acking
		if x.marksFirst {
			n.procs[i].at = publishing
		}
		x.cas(u, n, i, say, "the mark")
	case acking:
		n := u
		n.acked[p.msg], n.procs[i] = true, proc{}
		if x.forward && do(p.do) == doPublish && states[p.e.state] == StateFinal && !p.e.published {
			n.procs[i] = p
			n.procs[i].at = publishing
		}
		say(n, "acknowledges m%d", p.msg)
		if u.faults > 0 {
			n := u
			n.faults--
			n.procs[i] = proc{}
			say(n, "its acknowledgement is lost")
		}
	}
}

func (x *explorer) decider(i int) decider {
	d := exploring
	d.Owner = owners[i+1]
	return d
}

func (x *explorer) facts(u universe, i int) facts {
	return facts{now: tableNow, brokerNow: tableNow, message: messages[u.procs[i].msg+1], delivered: 1, holds: u.holds, answered: tableNow, tries: tries{began: tableNow, stale: maxStale, reauth: 2, held: holdFor + 1}}
}

// stand reads the ledger and decides where the run stands.
func (x *explorer) stand(u *universe, i int) {
	p := &u.procs[i]
	p.e, p.was, p.fresh, p.seen = u.ledger, u.ledger, true, 0
	f := x.facts(*u, i)
	e, s := opened(p.e.entry(), arrival{fresh: Entry{State: StateWaiting, Run: 1, Print: "print", Source: f.message}, message: f.message, claimed: "r"}, tableNow)
	if s.do == doGoOn {
		if (e.State == StateCalled || e.State == StateUnknown) && u.holds {
			p.seen = 1
		}
		e, s = x.next(x.decider(i), e, f)
	}
	u.route(i, e, s, &x.rules)
}

// route goes where a step leads.
func (u *universe) route(i int, e Entry, s step, r *rules) {
	p := &u.procs[i]
	p.e, p.do, p.insist = recordOf(e), int8(s.do), s.insist
	if !s.ends() {
		p.at = [...]place{doLook: looking, doAdopt: adopting, doCall: intending, doAgain: intending}[s.do]
		return
	}
	was := p.was.entry()
	if p.at = writing; e.essence() == was.essence() || r.hasty && s.do == doPublish {
		u.finish(i, r)
	}
}

// finish takes a step that ends the delivery.
func (u *universe) finish(i int, r *rules) {
	p := &u.procs[i]
	switch {
	case do(p.do) == doWait:
		*p = proc{}
	case do(p.do) == doPublish && states[p.e.state] == StateFinal && !r.forward:
		p.at = publishing
		if r.marksFirst {
			p.at = marking
		}
	default:
		p.at = acking
	}
}

// writes is carry's write: insisted on or not.
func (x *explorer) writes(u universe, i int, say func(universe, string, ...any)) {
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
func (x *explorer) cas(u, n universe, i int, say func(universe, string, ...any), what string) {
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
	if states[e.state] == StateCalled {
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

// post is the check of the permit's age and the first byte, which nothing can come between.
func (x *explorer) post(u universe, i int, say func(universe, string, ...any)) {
	p := u.procs[i]
	if p.e.lastCall > 1 && !x.unlimited {
		n := u
		e, s := x.answered(x.decider(i), reverted(p.e.entry()), &defender.Error{Op: "unrestrict", Class: defender.Stale}, x.facts(u, i))
		n.route(i, e, s, &x.rules)
		say(n, "its permit is too old")
		return
	}
	for j := range u.flights {
		if u.flights[j] == (flight{}) {
			n := u
			n.flights[j] = flight{pending, 0, int8(i) + 1}
			n.procs[i].at = answering
			wrong := ""
			for _, f := range u.flights {
				if f.at == pending || f.at == carriedOut {
					wrong = "contract 6.2: called again while an earlier call may take place"
				}
			}
			if u.effects > 0 {
				wrong = "contract 6.2: called again behind a call that took place"
			}
			x.emit(x.name("r%d: sends the POST", i), n, wrong)
			return
		}
	}
}

func (x *explorer) looks(u universe, i int, say func(universe, string, ...any)) {
	p, f := u.procs[i], x.facts(u, i)
	n := u
	var found *defender.MachineAction
	if u.effects > 0 {
		found = &defender.MachineAction{ID: "a1", Status: "Pending"}
	}
	e, s := x.looked(x.decider(i), p.e.entry(), found, f)
	n.route(i, e, s, &x.rules)
	say(n, "looks, found: %t", found != nil)
	if u.faults == 0 {
		return
	}
	for _, waited := range []Duration{0, Duration(25 * time.Hour)} {
		n := u
		n.faults--
		e := p.e.entry()
		e.Failed = waited
		e, s := x.decider(i).lookFailed(e, &defender.Error{Op: "list", Class: defender.Ambiguous, Code: "x"}, f)
		n.route(i, e, s, &x.rules)
		say(n, "its look fails; gives up: %t", waited > 0)
	}
}

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
		var e Entry
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
		e, s := x.sighted(exploring, l.entry(), sighting{action: defender.MachineAction{ID: fmt.Sprint("a", l.action), Status: "Succeeded"}}, time.Hour, tableNow)
		switch {
		case l.action > 0 && s.do == doPublish:
			n.tracks[i] = tracking{writing, recordOf(e), true}
			say(n, "sees the end of the action")
		case states[l.state] == StateFinal && !l.published && !l.dead:
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

// publish is a final result on its way to everybody.
func (u *universe) publish(e rec, marked bool) (wrong string) {
	result := rec{state: e.state, action: e.action, outcome: e.outcome}
	ledger := rec{state: u.ledger.state, action: u.ledger.action, outcome: u.ledger.outcome}
	switch {
	case u.told != rec{} && u.told != result:
		wrong = fmt.Sprintf("contract 6.1: a second final result: %s behind %s", outcomes[e.outcome], outcomes[u.told.outcome])
	case ledger != result && !marked:
		wrong = "contract 6.1: published, and not durable"
	}
	u.told = result
	return wrong
}

// wrong says what a universe may not be.
func (u universe) wrong() string {
	switch {
	case u.effects > 1:
		return "contract 6.2: carried out twice"
	case outcomes[u.ledger.outcome] == Rejected && u.effects > 0:
		return "contract 6.1: rejected, and carried out"
	case u.told != rec{} && states[u.ledger.state] != StateFinal:
		return "contract 6.1: a final result, and the run goes on"
	}
	return ""
}

// settled: nothing is left to do, and everybody knows.
func (u universe) settled() bool {
	return u.acked == [2]bool{true, true} && states[u.ledger.state] == StateFinal && u.ledger.published && u.told != rec{}
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
