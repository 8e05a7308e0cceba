//go:build !race

package remediation

import (
	"fmt"
	"time"

	"example.com/unrestrict-worker/internal/defender"
	"example.com/unrestrict-worker/internal/ledger"
	"example.com/unrestrict-worker/internal/policy"
)

// explorer knows all that can happen next in a universe.
type explorer struct {
	rules
	named    bool // the moves have names, which take their time
	orphaned bool // the message in hand is redelivered
	emit     func(what string, next universe, wrong string)
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
	if u.looks > 0 && u.effects == 0 && (u.flights[0].at == pending || u.flights[1].at == pending) {
		n := u
		n.looks--
		n.other = glimpse{made: true}
		x.emit("a look is made for another request", n, "")
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
	if u.orders > 0 {
		n := u
		n.orders--
		n.ordered = 1
		x.emit("somebody orders it to be cancelled", n, "")
	}
	if u.asks == 1 {
		n := u
		n.asks = 2
		x.emit("somebody approves", n, "")
	}
	if u.denies > 0 {
		n := u
		n.denies--
		n.denied = 1
		x.emit("somebody denies", n, "")
	}
	if n, ok := u.tick(); ok && n != u {
		x.emit("a tick", n, "")
	}
}

// sayer emits what a replica does.
type sayer func(n universe, format string, args ...any)

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
		x.takes(u, i, say)
	case writing:
		x.writes(u, i, say)
	case intending:
		x.intends(u, i, say)
	case taking:
		x.claims(u, i, say)
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
		if x.marksFirst {
			n.procs[i].at = acking
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
		x.acks(u, i, say)
	}
}

// takes hands an idle replica a message that nobody has acknowledged, for the first time or once more.
func (x *explorer) takes(u universe, i int, say sayer) {
	for m := range u.acked {
		for _, x.orphaned = range []bool{true, false} {
			if !u.acked[m] {
				n := u
				n.procs[i] = proc{msg: int8(m)}
				x.stand(&n, i)
				say(n, "takes m%d (redelivered: %t) and reads: %s", m, x.orphaned, n.procs[i].at)
			}
		}
	}
}

// intends writes the intent.
func (x *explorer) intends(u universe, i int, say sayer) {
	n := u
	q := &n.procs[i]
	if x.facts(u, i).halts() && !x.deaf {
		e, s := x.decider(i).beforeCall(q.e.entry(), x.facts(u, i))
		n.route(i, e, s, &x.rules)
		say(n, "learns what people say, or do not say")
		return
	}
	q.e, q.at = recordOf(x.decider(i).intended(q.e.entry(), tableNow, tableNow)), taking
	if x.unintended {
		q.at = posting
		say(n, "goes without an intent")
		return
	}
	x.cas(u, n, i, say, "the intent")
}

// claims writes the machine's record.
func (x *explorer) claims(u universe, i int, say sayer) {
	n := u
	if u.procs[i].seen == 2 { // it had read the record, and another took it since
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
}

func (x *explorer) acks(u universe, i int, say sayer) {
	p, n := u.procs[i], u
	n.acked[p.msg], n.procs[i] = true, proc{}
	if x.forward && do(p.do) == doPublish && states[p.e.state] == ledger.StateFinal && !p.e.published {
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

func (x *explorer) decider(i int) decider {
	d := exploring
	d.Owner = owners[i+1]
	return d
}

func (x *explorer) facts(u universe, i int) facts {
	f := facts{now: tableNow, brokerNow: tableNow, message: messages[u.procs[i].msg+1], delivered: 1, orphaned: x.orphaned, isHolder: u.holds, answered: tableNow, tries: tries{began: tableNow, stale: maxStale, reauth: 2, held: holdFor + 1}}
	if u.ordered > 0 {
		f.ordered.cancel = &ledger.Cancel{Order: "C:1"}
	}
	if u.asks > 0 {
		f.approval = approval{requirement: requirement{need: &policy.Approvals{Required: 1, By: []string{"ann"}, Within: time.Hour}, digest: "d"}}
	}
	if u.asks == 2 {
		f.approval.given = []ledger.Verdict{{By: "ann"}}
	}
	if u.denied > 0 {
		f.approval.denied = &ledger.Verdict{By: "ben"}
	}
	return f
}

// stand reads the ledger and decides where the run stands.
func (x *explorer) stand(u *universe, i int) {
	p := &u.procs[i]
	p.e, p.was, p.fresh, p.seen = u.ledger, u.ledger, true, 0
	f := x.facts(*u, i)
	e, s := opened(p.e.entry(), arrival{fresh: ledger.Entry{State: ledger.StateWaiting, Run: 1, Fingerprint: "print", Source: f.message}, message: f.message, claimed: "r"}, tableNow)
	if s.do == doGoOn {
		if (e.State == ledger.StateCalled || e.State == ledger.StateUnknown) && u.holds {
			p.seen = 1
		}
		e, s = x.next(x.decider(i), e, f)
	}
	u.route(i, e, s, &x.rules)
}

// route goes where a step leads.
func (u *universe) route(i int, e ledger.Entry, s step, r *rules) {
	p := &u.procs[i]
	p.e, p.do, p.insist = recordOf(e), int8(s.do), s.mustSave
	if !s.ends() {
		p.at = [...]place{doLook: looking, doAdopt: adopting, doCall: intending, doAgain: intending}[s.do]
		return
	}
	was := p.was.entry()
	if p.at = writing; essenceOf(&e) == essenceOf(&was) || r.hasty && s.do == doPublish {
		u.finish(i, r)
	}
}

// finish takes a step that ends the delivery.
func (u *universe) finish(i int, r *rules) {
	p := &u.procs[i]
	switch {
	case do(p.do) == doWait:
		*p = proc{}
	case do(p.do) == doAsk: // and published it, which the stream knows again
		p.e.approval, p.do, p.at = 2, int8(doWait), writing
	case do(p.do) == doPublish && states[p.e.state] == ledger.StateFinal && !r.forward:
		p.at = publishing
		if r.marksFirst {
			p.at = marking
		}
	default:
		p.at = acking
	}
}

// post is the check of the permit's age and the first byte, which nothing can come between.
func (x *explorer) post(u universe, i int, say sayer) {
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
					wrong = "promise 2: called again while an earlier call may take place"
				}
			}
			if u.effects > 0 {
				wrong = "promise 2: called again behind a call that took place"
			}
			if u.asks == 1 {
				wrong = "orders: called without approval"
			}
			if u.denied > 2 {
				wrong = "orders: called longer after the denial than an intent may be old"
			}
			if u.ordered > 2 {
				wrong = "orders: called longer after the order than an intent may be old"
			}
			x.emit(x.name("r%d: sends the POST", i), n, wrong)
			return
		}
	}
}

func (x *explorer) looks(u universe, i int, say sayer) {
	p, f := u.procs[i], x.facts(u, i)
	sees := func(there bool, how string) {
		n := u
		var found *defender.MachineAction
		if there {
			found = &defender.MachineAction{ID: "a1", Status: "Pending"}
		}
		e, s := x.looked(x.decider(i), p.e.entry(), found, f)
		n.route(i, e, s, &x.rules)
		say(n, "%s, found: %t", how, there)
	}
	if o := u.other; o.made && x.serves(look{begun: ago(o.age), whole: true}, need{begun: x.decider(i).lookDue(p.e.entry(), f)}) {
		sees(false, "takes another's look")
	} else {
		sees(u.effects > 0, "looks")
	}
	if u.faults == 0 {
		return
	}
	for _, waited := range []ledger.Duration{0, ledger.Duration(25 * time.Hour)} {
		n := u
		n.faults--
		e := p.e.entry()
		e.Failed = waited
		e, s := x.decider(i).lookFailed(e, &defender.Error{Op: "list", Class: defender.Ambiguous, Code: "x"}, f)
		n.route(i, e, s, &x.rules)
		say(n, "its look fails; gives up: %t", waited > 0)
	}
}
