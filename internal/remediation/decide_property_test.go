package remediation

import (
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"example.com/unrestrict-worker/internal/defender"
	"example.com/unrestrict-worker/internal/ledger"
	"example.com/unrestrict-worker/internal/message"
)

// anyInput is a run of any kind in a state, at any time, with any facts and any answer.
func anyInput(t *rapid.T, states ...ledger.State) *input {
	second := func(name string, from, to int) time.Duration {
		return time.Duration(rapid.IntRange(from, to).Draw(t, name)) * time.Second
	}
	in := ordinary(rapid.SampledFrom(states).Draw(t, "state"))
	e, f := &in.e, &in.f
	e.Owner = rapid.SampledFrom([]string{"us", "them", ""}).Draw(t, "owner")
	e.Attempts, e.Looks, e.Failures = rapid.IntRange(0, 5).Draw(t, "attempts"), rapid.IntRange(0, 3).Draw(t, "looks"), rapid.IntRange(0, 9).Draw(t, "failures")
	e.LastCall, e.LookFrom = tableNow.Add(-second("lastCall", 0, 90)), tableNow.Add(-second("lookFrom", -40, 90))
	e.Written, e.NotBefore = tableNow.Add(-second("written", 0, 100_000)), tableNow.Add(second("due", -10, 10))
	e.Failed = ledger.Duration(second("failed", 0, 90_000))
	e.Published, e.Dead = rapid.Bool().Draw(t, "published"), rapid.Bool().Draw(t, "dead")
	e.Source = rapid.SampledFrom([]string{"S:1", "S:2"}).Draw(t, "source")
	if rapid.Bool().Draw(t, "a 404 before") {
		e.NotFound = tableNow.Add(-second("notFound", 0, 10))
	}
	f.isHolder, f.busy, f.stopping = rapid.Bool().Draw(t, "holds"), rapid.Bool().Draw(t, "busy"), rapid.Bool().Draw(t, "stopping")
	f.tripped, f.ambiguous, f.allowed = rapid.Bool().Draw(t, "tripped"), rapid.Bool().Draw(t, "ambiguous"), rapid.Bool().Draw(t, "allowed")
	f.paused, f.answered, f.served = second("paused", 0, 1), tableNow.Add(-second("answered", 0, 10)), tableNow.Add(-second("served", 0, 100))
	f.tries = tries{
		began: tableNow.Add(-second("began", 0, 9)), stale: rapid.IntRange(0, 3).Draw(t, "stale"), reauth: rapid.IntRange(0, 2).Draw(t, "reauth"),
		held: second("held", 0, 4), intent: second("intent", 0, 1),
	}
	f.ordersStale = rapid.Bool().Draw(t, "orders unheard")
	switch rapid.IntRange(0, 4).Draw(t, "ordered") {
	case 0:
		cancelOrdered(in)
	case 1:
		withAction(in)
	case 2:
		batchPaused(in)
	}
	if rapid.Bool().Draw(t, "refused") {
		f.refusal = &message.Failure{Code: message.CodePolicy}
	}
	if rapid.Bool().Draw(t, "people are asked") {
		awaits(in)
		if rapid.Bool().Draw(t, "were asked") {
			askedFor(second("asked", 0, 20_000))(in)
		}
		if rapid.Bool().Draw(t, "another message") {
			f.approval.digest = "other"
		}
		if rapid.Bool().Draw(t, "approved") {
			approvedByAnn(in)
		}
		if rapid.Bool().Draw(t, "denied") {
			deniedBy("ben")(in)
		}
	}
	in.d.Track = rapid.Bool().Draw(t, "track")
	class := defender.Class(rapid.IntRange(int(defender.Transient), int(defender.Stale)).Draw(t, "class"))
	of(class, rapid.SampledFrom([]int{0, 400, 403, 503}).Draw(t, "status"), rapid.SampledFrom([]string{"x", "redirect"}).Draw(t, "code"))(in)
	if rapid.Bool().Draw(t, "an action") {
		in.action = anAction(rapid.SampledFrom([]string{"Pending", "Succeeded", "odd"}).Draw(t, "status of it"))
	}
	in.seen = observation{overdue: rapid.Bool().Draw(t, "overdue")}
	if in.action != nil {
		in.seen.action = *in.action
	}
	fresh(in)
	return in
}

type asked struct {
	name   string
	states []ledger.State // in which carry asks it
	take   func(*input) (ledger.Entry, step)
}

var decisions = []asked{
	{"message", []ledger.State{ledger.StateWaiting, ledger.StateCalled, ledger.StateUnknown, ledger.StateSubmitted, ledger.StateFinal}, arrives},
	{"next", []ledger.State{ledger.StateWaiting, ledger.StateCalled, ledger.StateUnknown, ledger.StateSubmitted, ledger.StateFinal}, next},
	{"before call", []ledger.State{ledger.StateWaiting, ledger.StateCalled}, beforeCall},
	{"answered", []ledger.State{ledger.StateWaiting, ledger.StateCalled}, answered},
	{"before look", []ledger.State{ledger.StateUnknown}, beforeLook},
	{"looked", []ledger.State{ledger.StateUnknown}, looked},
	{"look failed", []ledger.State{ledger.StateWaiting, ledger.StateUnknown}, lookFailed},
	{"adopted", []ledger.State{ledger.StateCalled}, adopted},
	{"order", []ledger.State{ledger.StateWaiting, ledger.StateCalled, ledger.StateUnknown, ledger.StateSubmitted, ledger.StateFinal}, cancels},
	{"followed", []ledger.State{ledger.StateSubmitted, ledger.StateFinal}, sighted},
}

// Every input leads somewhere: to a step that carry or the tracker knows, with what that step needs. What ends a delivery
// and changes the state is written first; what is published is decided; and a call is only made of a run that waits, or
// right behind one that did not take place.
func TestEveryInputLeadsSomewhere(t *testing.T) {
	for _, d := range decisions {
		t.Run(d.name, func(t *testing.T) {
			rapid.Check(t, func(t *rapid.T) {
				in := anyInput(t, d.states...)
				e, s := d.take(in)
				if s.do.String() == "" || s.do == doWait && s.cause == "" {
					t.Fatalf("no step: %+v", s)
				}
				if !e.State.Known() {
					t.Fatalf("state %q", e.State)
				}
				if s.ends() && e.State != in.e.State && essenceOf(&e) == essenceOf(&in.e) {
					t.Fatalf("%s would not be written before %s", e.State, s.do)
				}
				if s.do == doPublish && e.State != ledger.StateSubmitted && e.State != ledger.StateFinal {
					t.Fatalf("%s is published", e.State)
				}
				if s.do == doPublish && e.State == ledger.StateFinal && e.Dead && e.Source != in.f.message {
					t.Fatal("a dead letter of another message is published")
				}
				if s.do == doCall && e.State != ledger.StateWaiting && d.name != "before call" || s.do == doAgain && d.name != "answered" {
					t.Fatalf("%s of a run that is %s", s.do, e.State)
				}
				if s.do == doLook && e.State != ledger.StateUnknown || s.do == doAdopt && (e.State != in.e.State || s.conflict == nil) {
					t.Fatalf("%s of a run that is %s", s.do, e.State)
				}
				if s.do == doCall && d.name == "before call" && in.f.approval.stops() {
					t.Fatalf("called for without approval: %+v", in.f.approval)
				}
				if s.do == doAsk && (e.State != ledger.StateWaiting || e.Approval.Asked) {
					t.Fatalf("asked for approval again, or as %s", e.State)
				}
				if d.name == "look failed" && e.Looks != in.e.Looks {
					t.Fatal("a look that failed counts")
				}
				if s.mustSave && e.State != ledger.StateUnknown && e.ActionID == "" {
					t.Fatal("it insists on nothing")
				}
			})
		})
	}
}

// A final entry never changes but by a replay, or by the request of a dry run coming again.
func TestFinalStaysFinal(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		for _, d := range decisions {
			if !slices.Contains(d.states, ledger.StateFinal) {
				continue
			}
			in := anyInput(t, ledger.StateFinal)
			if e, _ := d.take(in); essenceOf(&e) != essenceOf(&in.e) || e.Outcome != in.e.Outcome || e.ActionID != in.e.ActionID {
				t.Fatalf("%s made %+v of %+v", d.name, e, in.e)
			}
			mine := in.e
			mine.ActionID, mine.State = "a2", ledger.StateSubmitted
			if e, over := merged(mine, in.e); over || e.Outcome != in.e.Outcome || e.ActionID != in.e.ActionID {
				t.Fatalf("a late answer made %+v of %+v", e, in.e)
			}
		}
	})
}

// A cancelled run is never called, nor is one that is held back, or any while the orders are out of sync; and a run whose call may
// have taken place never ends as taken back.
func TestNothingIsCalledAgainstAnOrder(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		for _, d := range decisions {
			in := anyInput(t, d.states...)
			e, s := d.take(in)
			if d.name == "before call" && s.do == doCall && (in.f.ordered != (ordered{}) || in.f.ordersStale) {
				t.Fatalf("called in spite of %+v", in.f.ordered)
			}
			if e.Error != nil && e.Error.Code == message.CodeCancelled && (in.e.State != ledger.StateWaiting && d.name != "before call" || e.ActionID != "") {
				t.Fatalf("%s of a run that was %s ended as taken back", d.name, in.e.State)
			}
		}
	})
}

// A run whose call may have taken place is not called for again before three looks, each when it was due and the last behind
// the call's time-out, did not show it: whatever happens in between, at any time, in any process.
func TestNoSecondCallBeforeThreeEmptyLooks(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		in := ordinary(ledger.StateWaiting)
		in.e = in.d.intended(in.e, tableNow, tableNow)
		in.e.Written = tableNow
		called, empty := tableNow, 0
		if rapid.Bool().Draw(t, "the answer is unclear") {
			of(defender.Ambiguous, 503, "x")(in)
			in.e, _ = answered(in)
		}
		in.f.isHolder = true
		for range rapid.IntRange(1, 40).Draw(t, "steps") {
			by := time.Duration(rapid.IntRange(0, 20).Draw(t, "seconds")) * time.Second
			in.f.now, in.f.brokerNow = in.f.now.Add(by), in.f.brokerNow.Add(by)
			in.d.Owner = rapid.SampledFrom([]string{"us", "them"}).Draw(t, "process")
			e, s := next(in)
			if s.do == doLook {
				in.e = e
				if rapid.IntRange(0, 3).Draw(t, "look") == 0 {
					of(rapid.SampledFrom([]defender.Class{defender.Ambiguous, defender.Throttled, defender.System}).Draw(t, "class"), 503, "x")(in)
					e, s = lookFailed(in)
				} else {
					e, s = looked(in)
					empty++
				}
			}
			if s.ends() && essenceOf(&e) != essenceOf(&in.e) {
				in.e.Written = in.f.brokerNow
			}
			e.Written = in.e.Written
			in.e = e
			if s.do == doCall {
				if empty < 3 || in.f.now.Sub(called) < in.d.Timeout {
					t.Fatalf("called again %v after the call, behind %d looks", in.f.now.Sub(called), empty)
				}
				return
			}
		}
	})
}
