package remediation

import (
	"cmp"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"example.com/unrestrict-worker/internal/defender"
)

var (
	tableNow   = time.Date(2030, 1, 1, 12, 0, 0, 0, time.UTC)
	tableRules = decider{Owner: "us", GiveUpAfter: 24 * time.Hour, ReconcileDelay: 5 * time.Second, Timeout: 30 * time.Second, StartLimit: 2 * time.Second, MaxAction: 1 << 20, Track: true}
)

// row is one line of the table of decisions: a run in a state, an event, and what makes the difference; then the state
// and the step that follow. It begins from an entry and facts to which nothing remarkable has happened (ordinary).
type row struct {
	from  State
	event string
	when  string
	given func(r *input)
	take  func(r *input) (Entry, step)

	to   State
	want step // of it: do, after, cause, and whether up, quota, insist and a fault are set
	code string
}

// input is what a row's decision gets.
type input struct {
	d decider
	e Entry
	f facts

	answer *defender.Error
	action *defender.MachineAction
	seen   sighting
	comes  arrival
}

func ordinary(from State) *input {
	in := &input{d: tableRules, f: facts{
		now: tableNow, brokerNow: tableNow, message: "S:1", delivered: 1, backoff: time.Second, retry: time.Second, parked: time.Second,
		served: tableNow.Add(-time.Second), answered: tableNow.Add(-time.Second), tries: tries{began: tableNow.Add(-2 * time.Second), intent: time.Millisecond},
	}}
	if in.e.State = from; from == "" {
		return in
	}
	in.e.Run, in.e.Print, in.e.Source, in.e.Revision = 1, "print", "S:1", 7
	in.e.ReceivedAt, in.e.Written = tableNow.Add(-time.Minute), tableNow.Add(-time.Minute)
	switch from {
	case StateCalled:
		in.e.Owner, in.e.Attempts, in.e.LastCall = "us", 1, tableNow.Add(-time.Minute)
	case StateUnknown:
		in.e.Attempts, in.e.LastCall, in.e.LookFrom = 1, tableNow.Add(-time.Minute), tableNow.Add(-time.Minute)
	case StateSubmitted:
		in.e.Attempts, in.e.ActionID, in.e.Follow = 1, "a1", true
	case StateFinal:
		in.e.Outcome, in.e.Error, in.e.Dead = Rejected, &Failure{Code: "x"}, true
	}
	return in
}

func next(in *input) (Entry, step)       { return in.d.next(in.e, in.f) }
func beforeCall(in *input) (Entry, step) { return in.d.beforeCall(in.e, in.f) }
func answered(in *input) (Entry, step)   { return in.d.answered(in.e, in.answer, in.f) }
func accepted(in *input) (Entry, step)   { return in.d.accepted(in.e, *in.action, in.f) }
func looked(in *input) (Entry, step)     { return in.d.looked(in.e, in.action, in.f) }
func lookFailed(in *input) (Entry, step) { return in.d.lookFailed(in.e, in.answer, in.f) }
func adopted(in *input) (Entry, step)    { return in.d.adopted(in.e, in.action, in.answer, in.f) }
func sighted(in *input) (Entry, step)    { return in.d.sighted(in.e, in.seen, time.Hour, in.f.now) }
func arrives(in *input) (Entry, step)    { return opened(in.e, in.comes, in.f.now) }
func intends(in *input) (Entry, step) {
	return in.d.intended(in.e, in.f.now, in.f.now), step{do: doCall}
}

func of(class defender.Class, status int, code string) func(*input) {
	return func(in *input) {
		in.answer = &defender.Error{Op: "unrestrict", Class: class, StatusCode: status, Code: code, Sent: true, RetryAfter: 10 * time.Second}
	}
}

func anAction(status string) *defender.MachineAction {
	return &defender.MachineAction{ID: "a1", Status: status, CreationTime: tableNow, Raw: []byte("{}")}
}

func both(fs ...func(*input)) func(*input) {
	return func(in *input) {
		for _, f := range fs {
			f(in)
		}
	}
}

// table is every decision about a run. ARCHITECTURE.md draws it.
var table = []row{
	// A message comes to the entry of its id.
	{"", "message", "unknown id", fresh, arrives, StateWaiting, step{do: doGoOn}, ""},
	{"", "message", "too old", both(fresh, func(in *input) { in.comes.tooOld = true }), arrives, StateFinal, step{do: doPublish}, CodeTooOld},
	{"", "message", "refused before", both(fresh, func(in *input) { in.comes.refusedBefore = true }), arrives, "", step{do: doRefuse}, CodeExpiresTooLate},
	{StateWaiting, "message", "same request", fresh, arrives, StateWaiting, step{do: doGoOn}, ""},
	{StateSubmitted, "message", "another machine or comment", both(fresh, func(in *input) { in.comes.fresh.Print = "other" }), arrives, StateSubmitted, step{do: doRefuse}, CodeIDConflict},
	{StateFinal, "message", "same request", fresh, arrives, StateFinal, step{do: doGoOn}, ""},
	{StateFinal, "message", "ended as dry run, none now", both(fresh, dryRunEnded), arrives, StateWaiting, step{do: doGoOn}, ""},
	{StateFinal, "message", "the dry run's own", both(fresh, dryRunEnded, func(in *input) { in.comes.message = "S:1" }), arrives, StateFinal, step{do: doGoOn}, ""},
	{StateFinal, "message", "ended as dry run, not published", both(fresh, dryRunEnded, func(in *input) { in.e.Published = false }), arrives, StateFinal, step{do: doWait, after: 2 * time.Second, cause: "told"}, ""},
	{"", "replay", "entry expired", replays(1), arrives, StateWaiting, step{do: doReopen}, ""},
	{"", "replay", "letter gone", both(replays(1), func(in *input) { in.comes.replay.found = false }), arrives, "", step{do: doRefuse}, CodeMalformed},
	{StateFinal, "replay", "of its run", both(replays(1), func(in *input) { in.e.Published = true }), arrives, StateWaiting, step{do: doReopen}, ""},
	{StateFinal, "replay", "of a fateUnknown", both(replays(1), func(in *input) {
		in.e.Published, in.e.Outcome, in.e.Error = true, Abandoned, &Failure{Code: CodeFateUnknown}
	}), arrives, StateUnknown, step{do: doReopen}, ""},
	{StateFinal, "replay", "its run not published", replays(1), arrives, StateFinal, step{do: doWait, after: 2 * time.Second, cause: "told"}, ""},
	{StateFinal, "replay", "of a run that succeeded", both(replays(1), func(in *input) { in.e.Published, in.e.Outcome = true, Succeeded }), arrives, StateFinal, step{do: doDrop}, ""},
	{StateFinal, "replay", "of an earlier run", both(replays(1), func(in *input) { in.e.Published, in.e.Run = true, 2 }), arrives, StateFinal, step{do: doDrop}, ""},
	{StateWaiting, "replay", "its own run, letter there", both(replays(1), func(in *input) { in.e.ReplayOf = 9 }), arrives, StateWaiting, step{do: doReopen}, ""},
	{StateWaiting, "replay", "its own run, letter gone", both(replays(1), func(in *input) { in.e.ReplayOf, in.comes.replay.found = 9, false }), arrives, StateWaiting, step{do: doGoOn}, ""},

	// Where it stands.
	{StateWaiting, "next", "due", nil, next, StateWaiting, step{do: doCall}, ""},
	{StateWaiting, "next", "not due", func(in *input) { in.e.Due = tableNow.Add(time.Minute) }, next, StateWaiting, step{do: doWait, after: time.Minute, cause: "notDue"}, ""},
	{StateCalled, "next", "another owner, may still live", func(in *input) { in.e.Owner, in.e.Written = "them", tableNow.Add(-10*time.Second) }, next, StateCalled, step{do: doWait, after: 27 * time.Second, cause: "inFlight"}, ""},
	{StateCalled, "next", "of a version before, not begun for certain", func(in *input) {
		in.e.Owner, in.e.Written, in.e.StartBy = "them", tableNow.Add(-38*time.Second), in.e.LastCall.Add(10*time.Second)
	}, next, StateCalled, step{do: doWait, after: 7 * time.Second, cause: "inFlight"}, ""},
	{StateCalled, "next", "machine never taken", func(in *input) { in.e.Owner = "them" }, next, StateWaiting, step{do: doCall}, ""},
	{StateCalled, "next", "machine taken, owner dead", func(in *input) { in.e.Owner, in.f.holds = "them", true }, next, StateUnknown, step{do: doLook}, ""},
	{StateCalled, "next", "machine taken, our own call unrecorded", func(in *input) { in.f.holds = true }, next, StateUnknown, step{do: doWait, after: 5 * time.Second, cause: "unclear"}, ""},
	{StateCalled, "next", "machine's record may have expired", func(in *input) { in.e.Written = tableNow.Add(-24 * time.Hour) }, next, StateUnknown, step{do: doWait, after: 5 * time.Second, cause: "unclear"}, ""},
	{StateUnknown, "next", "look due", nil, next, StateUnknown, step{do: doLook}, ""},
	{StateUnknown, "next", "look not due", func(in *input) { in.e.LookFrom = tableNow }, next, StateUnknown, step{do: doWait, after: 5 * time.Second, cause: "unclear"}, ""},
	{StateUnknown, "next", "last look, the call may not have timed out", func(in *input) { in.e.Looks, in.e.LastCall = 2, tableNow }, next, StateUnknown, step{do: doWait, after: 30 * time.Second, cause: "unclear"}, ""},
	{StateUnknown, "before look", "breaker open", func(in *input) { in.f.paused = time.Second }, beforeLook, StateUnknown, step{do: doWait, after: time.Second, cause: "systemFault"}, ""},
	{StateUnknown, "before look", "", nil, beforeLook, StateUnknown, step{do: doLook}, ""},
	{StateSubmitted, "next", "", nil, next, StateSubmitted, step{do: doPublish}, ""},
	{StateFinal, "next", "not published", nil, next, StateFinal, step{do: doPublish}, ""},
	{StateFinal, "next", "not published, another message's dead letter", func(in *input) { in.e.Source = "S:2" }, next, StateFinal, step{do: doWait, after: 2 * time.Second, cause: "told"}, ""},
	{StateFinal, "next", "published", func(in *input) { in.e.Published = true }, next, StateFinal, step{do: doAck}, ""},

	// Before a call. An order to cancel, a batch that is held, and an approval that is awaited, given or denied are rows here.
	{StateWaiting, "before call", "refused: signature, policy, age, expiry, signer's rate", func(in *input) { in.f.refusal = &Failure{Code: CodeExpired} }, beforeCall, StateFinal, step{do: doPublish}, CodeExpired},
	{StateWaiting, "before call", "breaker open", func(in *input) { in.f.paused = time.Second }, beforeCall, StateWaiting, step{do: doWait, after: time.Second, cause: "systemFault"}, ""},
	{StateCalled, "before call", "breaker open, call refused before", func(in *input) { in.f.paused = time.Second }, beforeCall, StateWaiting, step{do: doWait, after: time.Second, cause: "systemFault"}, ""},
	{StateWaiting, "before call", "machine busy", func(in *input) { in.f.busy, in.f.delivered = true, 25 }, beforeCall, StateWaiting, step{do: doWait, after: 3 * time.Second, cause: "machineBusy"}, ""},
	{StateWaiting, "before call", "", nil, beforeCall, StateWaiting, step{do: doCall}, ""},
	{StateWaiting, "no quota", "", nil, func(in *input) (Entry, step) { return in.d.notGranted(in.e, time.Hour, in.f) }, StateWaiting, step{do: doWait, after: maxQuotaDelay, cause: "quota", quota: true}, ""},
	{StateWaiting, "dry run", "", nil, func(in *input) (Entry, step) { return rehearsed(in.e, in.f) }, StateFinal, step{do: doPublish}, ""},
	{StateWaiting, "intent", "", nil, intends, StateCalled, step{do: doCall}, ""},
	{StateCalled, "machine taken by another", "", nil, func(in *input) (Entry, step) { return putOff(reverted(in.e), machineBusy(in.f)) }, StateWaiting, step{do: doWait, after: time.Second, cause: "machineBusy"}, ""},

	// The answer to a call.
	{StateCalled, "accepted", "followed", func(in *input) { in.action = anAction("Pending") }, accepted, StateSubmitted, step{do: doPublish, up: true, insist: true}, ""},
	{StateCalled, "accepted", "not followed", func(in *input) { in.action, in.d.Track = anAction("Pending"), false }, accepted, StateFinal, step{do: doPublish, up: true, insist: true}, ""},
	{StateCalled, "throttled", "", of(defender.Throttled, 429, "x"), answered, StateWaiting, step{do: doWait, after: 10 * time.Second, cause: "throttled", quota: true}, ""},
	{StateCalled, "ambiguous", "", of(defender.Ambiguous, 503, "x"), answered, StateUnknown, step{do: doWait, after: 5 * time.Second, cause: "unclear", insist: true}, ""},
	{StateCalled, "ambiguous", "several in a row", both(of(defender.Ambiguous, 503, "x"), func(in *input) { in.f.ambiguous = true }), answered, StateUnknown, step{do: doWait, after: 5 * time.Second, cause: "unclear", insist: true, fault: &Fault{}}, faultAmbiguous},
	{StateCalled, "system", "not Defender's answer", of(defender.System, 302, "redirect"), answered, StateUnknown, step{do: doWait, after: 5 * time.Second, cause: "unclear", insist: true, fault: &Fault{}}, "redirect"},
	{StateCalled, "system", "", of(defender.System, 403, "x"), answered, StateWaiting, step{do: doWait, cause: "systemFault", fault: &Fault{}}, "x"},
	{StateWaiting, "system", "no token", func(in *input) { in.answer = &defender.Error{Op: "token", Class: defender.System, Code: "x"} }, answered, StateWaiting, step{do: doWait, cause: "systemFault", fault: &Fault{}}, "token"},
	{StateCalled, "conflict", "", of(defender.Conflict, 400, "x"), answered, StateCalled, step{do: doAdopt, up: true}, ""},
	{StateCalled, "404", "the first", of(defender.NotFound, 404, "x"), answered, StateWaiting, step{do: doWait, after: 5100 * time.Millisecond, cause: "notFound", up: true}, ""},
	{StateCalled, "404", "again too soon", both(of(defender.NotFound, 404, "x"), func(in *input) { in.e.NotFound = tableNow.Add(-4 * time.Second) }), answered, StateWaiting, step{do: doWait, after: 5100 * time.Millisecond, cause: "notFound", up: true}, ""},
	{StateCalled, "404", "again, 5 s later", both(of(defender.NotFound, 404, "x"), func(in *input) { in.e.NotFound = tableNow.Add(-5 * time.Second) }), answered, StateFinal, step{do: doPublish, up: true}, "x"},
	{StateCalled, "rejected", "", of(defender.Rejected, 400, "x"), answered, StateFinal, step{do: doPublish, up: true}, "x"},
	{StateCalled, "rejected", "403", of(defender.Rejected, 403, "x"), answered, StateFinal, step{do: doPublish}, "x"},
	{StateWaiting, "transient", "tried for at most 3 s", of(defender.Transient, 0, "x"), answered, StateWaiting, step{do: doAgain, after: time.Second, cause: "transient"}, ""},
	{StateWaiting, "transient", "longer, others were answered", both(of(defender.Transient, 0, "x"), heldLong), answered, StateWaiting, step{do: doWait, after: time.Second, cause: "transient"}, ""},
	{StateWaiting, "transient", "longer, nobody was answered", both(of(defender.Transient, 0, "x"), heldLong, func(in *input) { in.f.answered = time.Time{} }), answered, StateWaiting, step{do: doWait, cause: "unreachable", fault: &Fault{}}, faultUnreachable},
	{StateWaiting, "transient", "longer than WORKER_GIVE_UP_AFTER in all", both(of(defender.Transient, 0, "x"), heldLong, waitedLong), answered, StateFinal, step{do: doPublish}, CodeGaveUp},
	{StateCalled, "stale", "tried again", both(of(defender.Stale, 0, "x"), func(in *input) { in.f.tries.stale = 2 }), answered, StateCalled, step{do: doAgain}, ""},
	{StateCalled, "stale", "too often", both(of(defender.Stale, 0, "x"), func(in *input) { in.f.tries.stale = 3 }), answered, StateWaiting, step{do: doWait, after: time.Second, cause: "stale"}, ""},
	{StateCalled, "stale", "too often, slow intents", both(of(defender.Stale, 0, "x"), func(in *input) { in.f.tries.stale, in.f.tries.intent = 3, time.Second }), answered, StateWaiting, step{do: doWait, cause: faultSlow, fault: &Fault{}}, faultSlow},
	{StateCalled, "reauthenticate", "the first", both(of(defender.Reauthenticate, 401, "x"), func(in *input) { in.f.tries.reauth = 1 }), answered, StateCalled, step{do: doAgain}, ""},
	{StateCalled, "reauthenticate", "again", both(of(defender.Reauthenticate, 401, "x"), func(in *input) { in.f.tries.reauth = 2 }), answered, StateWaiting, step{do: doWait, cause: "systemFault", fault: &Fault{}}, "x"},
	{StateCalled, "holder looked up", "an unrestrict action", func(in *input) { in.action = anAction("Pending") }, adopted, StateSubmitted, step{do: doPublish, up: true, insist: true}, ""},
	{StateCalled, "holder looked up", "another kind", of(defender.Conflict, 400, "x"), adopted, StateWaiting, step{do: doWait, after: 5 * time.Second, cause: "conflict"}, ""},

	// Looking for a call.
	{StateUnknown, "looked", "found", func(in *input) { in.action = anAction("Pending") }, looked, StateSubmitted, step{do: doPublish, up: true, insist: true}, ""},
	{StateUnknown, "looked", "found, not followed", func(in *input) { in.action, in.d.Track = anAction("Pending"), false }, looked, StateFinal, step{do: doPublish, up: true, insist: true}, ""},
	{StateUnknown, "looked", "not there, 1st and 2nd", func(in *input) { in.e.LookFrom = tableNow }, looked, StateUnknown, step{do: doWait, after: 15 * time.Second, cause: "unclear"}, ""},
	{StateUnknown, "looked", "not there, 3rd", func(in *input) { in.e.Looks = 2 }, looked, StateWaiting, step{do: doCall}, ""},
	{StateUnknown, "looked", "not there, 3rd, waited longer than WORKER_GIVE_UP_AFTER", both(waitedLong, func(in *input) { in.e.Looks = 2 }), looked, StateFinal, step{do: doPublish}, CodeGaveUp},
	{StateUnknown, "look failed", "no permission", of(defender.System, 403, "x"), lookFailed, StateUnknown, step{do: doWait, after: time.Second, cause: "mayNotList"}, ""},
	{StateUnknown, "look failed", "system", of(defender.System, 401, "x"), lookFailed, StateUnknown, step{do: doWait, cause: "systemFault", fault: &Fault{}}, "x"},
	{StateUnknown, "look failed", "throttled", of(defender.Throttled, 429, "x"), lookFailed, StateUnknown, step{do: doWait, after: 10 * time.Second, cause: "throttled", quota: true}, ""},
	{StateUnknown, "look failed", "reauthenticate", of(defender.Reauthenticate, 401, "x"), lookFailed, StateUnknown, step{do: doWait, cause: "reauthenticate"}, ""},
	{StateUnknown, "look failed", "stopping", both(of(defender.Ambiguous, 0, "x"), func(in *input) { in.f.stopping = true }), lookFailed, StateUnknown, step{do: doWait, cause: "shutdown"}, ""},
	{StateUnknown, "look failed", "nobody was answered", both(of(defender.Transient, 0, "x"), func(in *input) { in.f.answered = time.Time{} }), lookFailed, StateUnknown, step{do: doWait, cause: "unreachable", fault: &Fault{}}, faultUnreachable},
	{StateUnknown, "look failed", "no clear answer", of(defender.Ambiguous, 503, "x"), lookFailed, StateUnknown, step{do: doWait, after: time.Second, cause: "lookUpFailed"}, ""},
	{StateUnknown, "look failed", "no clear answer, several in a row", both(of(defender.Ambiguous, 503, "x"), func(in *input) { in.f.ambiguous = true }), lookFailed, StateUnknown, step{do: doWait, after: time.Second, cause: "lookUpFailed", fault: &Fault{}}, faultAmbiguous},
	{StateUnknown, "look failed", "waited longer than WORKER_GIVE_UP_AFTER", both(of(defender.Ambiguous, 503, "x"), waitedLong), lookFailed, StateFinal, step{do: doPublish}, CodeFateUnknown},

	// Following.
	{StateSubmitted, "followed", "open", func(in *input) { in.seen.action = *anAction("Pending") }, sighted, StateSubmitted, step{do: doFollow}, ""},
	{StateSubmitted, "followed", "final", func(in *input) { in.seen.action = *anAction("Failed") }, sighted, StateFinal, step{do: doPublish}, ""},
	{StateSubmitted, "followed", "overdue", func(in *input) { in.seen = sighting{action: *anAction("Pending"), overdue: true} }, sighted, StateFinal, step{do: doPublish}, CodeTrackTimeout},
	{StateSubmitted, "followed", "vanished", func(in *input) { in.seen.gone = &defender.Error{StatusCode: 404} }, sighted, StateFinal, step{do: doPublish}, CodeActionVanished},
	{StateFinal, "followed", "another tracker was first", func(in *input) { in.seen.action = *anAction("Succeeded") }, sighted, StateFinal, step{do: doAck}, ""},
}

func beforeLook(in *input) (Entry, step) { return in.d.beforeLook(in.e, in.f) }
func heldLong(in *input)                 { in.f.tries.held = 2500 * time.Millisecond }
func waitedLong(in *input)               { in.e.Failed = Duration(24 * time.Hour) }

func fresh(in *input) {
	in.comes = arrival{fresh: Entry{State: StateWaiting, Run: 1, Print: "print"}, message: "S:2", claimed: "r"}
}

func dryRunEnded(in *input) {
	in.e.Outcome, in.e.Error, in.e.Dead, in.e.Published = DryRun, nil, false, true
}

func replays(run int) func(*input) {
	return func(in *input) {
		fresh(in)
		in.comes.replay = replay{seq: 9, found: true, run: run}
	}
}

func TestTable(t *testing.T) {
	for _, r := range table {
		t.Run(strings.ReplaceAll(strings.Join([]string{cmp.Or(string(r.from), "none"), r.event, r.when}, ", "), "/", " or "), func(t *testing.T) {
			in := ordinary(r.from)
			if r.given != nil {
				r.given(in)
			}
			e, s := r.take(in)
			if e.State != r.to || s.do != r.want.do || s.after != r.want.after || s.cause != r.want.cause {
				t.Errorf("%q, %s after %v (%s); want %q, %s after %v (%s)", e.State, s.do, s.after, s.cause, r.to, r.want.do, r.want.after, r.want.cause)
			}
			if s.up != r.want.up || s.quota != r.want.quota || s.insist != r.want.insist || (s.fault != nil) != (r.want.fault != nil) {
				t.Errorf("%+v, want %+v", s, r.want)
			}
			code := ""
			switch {
			case s.fault != nil:
				code = s.fault.Code
			case s.invalid != nil:
				code = s.invalid.Code
			case r.from != StateFinal && e.Error != nil:
				code = e.Error.Code
			}
			if code != r.code {
				t.Errorf("code %q, want %q", code, r.code)
			}
		})
	}
}

// TestChart holds the state chart of ARCHITECTURE.md against the table: its arrows are those of the rows.
func TestChart(t *testing.T) {
	page, err := os.ReadFile("../../ARCHITECTURE.md")
	if err != nil {
		t.Fatal(err)
	}
	var drawn, decided []string
	for _, m := range regexp.MustCompile(`(?m)^    (\S+) --> (\S+):`).FindAllStringSubmatch(string(page), -1) {
		if m[2] != "[*]" {
			drawn = append(drawn, m[1]+" --> "+m[2])
		}
	}
	for _, r := range table {
		if r.from != r.to {
			decided = append(decided, cmp.Or(string(r.from), "[*]")+" --> "+string(r.to))
		}
	}
	slices.Sort(drawn)
	slices.Sort(decided)
	if decided = slices.Compact(decided); !slices.Equal(drawn, decided) {
		t.Errorf("ARCHITECTURE.md draws\n%s\nthe table has\n%s", strings.Join(drawn, "\n"), strings.Join(decided, "\n"))
	}
}
