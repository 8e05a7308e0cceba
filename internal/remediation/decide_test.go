package remediation

import (
	"cmp"
	"fmt"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"example.com/unrestrict-worker/internal/defender"
	"example.com/unrestrict-worker/internal/ledger"
	"example.com/unrestrict-worker/internal/message"
	"example.com/unrestrict-worker/internal/policy"
)

var (
	tableNow   = time.Date(2030, 1, 1, 12, 0, 0, 0, time.UTC)
	tableRules = decider{Owner: "us", GiveUpAfter: 24 * time.Hour, ReconcileDelay: 5 * time.Second, Timeout: 30 * time.Second, StartLimit: 2 * time.Second, MaxAction: 1 << 20, Track: true}
)

// The steps' names in tables, traces and the chart.
func (d do) String() string {
	return map[do]string{
		doPublish: "publish", doAck: "ack", doWait: "wait", doLook: "look", doAdopt: "adopt", doCall: "call", doAgain: "call again",
		doAsk: "ask", doFollow: "follow", doGoOn: "go on", doRefuse: "refuse", doReopen: "reopen", doDrop: "drop the dead letter", doCancel: "cancel the action",
	}[d]
}

// row is one line of the table of decisions: a run in a state, an event, and what makes the difference; then the state
// and the step that follow. It begins from an entry and facts to which nothing remarkable has happened (ordinary).
type row struct {
	from  ledger.State
	event string
	when  string
	given func(r *input)
	take  func(r *input) (ledger.Entry, step)

	to   ledger.State
	want step // of it: do, after, cause, and whether up, quota, mustSave and a fault are set
	code string
}

// input is what a row's decision gets.
type input struct {
	d decider
	e ledger.Entry
	f facts

	answer *defender.Error
	action *defender.MachineAction
	seen   observation
	comes  arrival
}

// tableTurn is how long one of the table's runs waits for its turn.
var tableTurn = untilTurn(&ledger.Entry{}, facts{brokerNow: tableNow})

func ordinary(from ledger.State) *input {
	in := &input{d: tableRules, f: facts{
		now: tableNow, brokerNow: tableNow, message: "S:1", delivered: 1, backoff: time.Second, retry: time.Second, deliveryBackoff: time.Second,
		served: tableNow.Add(-time.Second), answered: tableNow.Add(-time.Second), tries: tries{began: tableNow.Add(-2 * time.Second), intent: time.Millisecond},
	}}
	if in.e.State = from; from == "" {
		return in
	}
	in.e.Run, in.e.Fingerprint, in.e.Source, in.e.Revision = 1, "print", "S:1", 7
	in.e.ReceivedAt, in.e.Written = tableNow.Add(-time.Minute), tableNow.Add(-time.Minute)
	switch from {
	case ledger.StateCalled:
		in.e.Owner, in.e.Attempts, in.e.LastCall = "us", 1, tableNow.Add(-time.Minute)
	case ledger.StateUnknown:
		in.e.Attempts, in.e.LastCall, in.e.LookFrom = 1, tableNow.Add(-time.Minute), tableNow.Add(-time.Minute)
	case ledger.StateSubmitted:
		in.e.Attempts, in.e.ActionID, in.e.Follow = 1, "a1", true
	case ledger.StateFinal:
		in.e.Outcome, in.e.Error, in.e.Dead = message.Rejected, &message.Failure{Code: "x"}, true
	}
	return in
}

func next(in *input) (ledger.Entry, step)       { return in.d.next(in.e, in.f) }
func beforeCall(in *input) (ledger.Entry, step) { return in.d.beforeCall(in.e, in.f) }
func answered(in *input) (ledger.Entry, step)   { return in.d.answered(in.e, in.answer, in.f) }
func accepted(in *input) (ledger.Entry, step)   { return in.d.accepted(in.e, *in.action, in.f) }
func looked(in *input) (ledger.Entry, step)     { return in.d.looked(in.e, in.action, in.f) }
func lookFailed(in *input) (ledger.Entry, step) { return in.d.lookFailed(in.e, in.answer, in.f) }
func adopted(in *input) (ledger.Entry, step)    { return in.d.adopted(in.e, in.action, in.answer, in.f) }

func sighted(in *input) (ledger.Entry, step) {
	return in.d.observed(in.e, in.seen, time.Hour, in.f.now)
}
func arrives(in *input) (ledger.Entry, step) { return opened(in.e, in.comes, in.f.now) }
func intends(in *input) (ledger.Entry, step) {
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

func ledgerLost(in *input) {
	in.comes.fresh.AskedAt, in.comes.lostBefore = tableNow.Add(-time.Hour), tableNow.Add(-time.Minute)
}

// table is every decision about a run. ARCHITECTURE.md draws it.
var table = []row{
	// A message comes to the entry of its id.
	{"", "message", "unknown id", fresh, arrives, ledger.StateWaiting, step{do: doGoOn}, ""},
	{"", "message", "unknown id, published before the ledger was lost", both(fresh, ledgerLost), arrives, ledger.StateUnknown, step{do: doGoOn}, ""},
	{"", "message", "unknown id, published after the ledger was lost", both(fresh, ledgerLost, func(in *input) { in.comes.fresh.AskedAt = tableNow }), arrives, ledger.StateWaiting, step{do: doGoOn}, ""},
	{"", "message", "too old", both(fresh, func(in *input) { in.comes.tooOld = true }), arrives, ledger.StateFinal, step{do: doPublish}, message.CodeTooOld},
	{"", "message", "refused before", both(fresh, func(in *input) { in.comes.refusedBefore = true }), arrives, "", step{do: doRefuse}, message.CodeExpiresTooLate},
	{ledger.StateWaiting, "message", "same request", fresh, arrives, ledger.StateWaiting, step{do: doGoOn}, ""},
	{ledger.StateSubmitted, "message", "another machine or comment", both(fresh, func(in *input) { in.comes.fresh.Fingerprint = "other" }), arrives, ledger.StateSubmitted, step{do: doRefuse}, message.CodeIDConflict},
	{ledger.StateFinal, "message", "same request", fresh, arrives, ledger.StateFinal, step{do: doGoOn}, ""},
	{ledger.StateFinal, "message", "ended as dry run, none now", both(fresh, dryRunEnded), arrives, ledger.StateWaiting, step{do: doGoOn}, ""},
	{ledger.StateFinal, "message", "the dry run's own", both(fresh, dryRunEnded, func(in *input) { in.comes.message = "S:1" }), arrives, ledger.StateFinal, step{do: doGoOn}, ""},
	{ledger.StateFinal, "message", "ended as dry run, not published", both(fresh, dryRunEnded, func(in *input) { in.e.Published = false }), arrives, ledger.StateFinal, step{do: doWait, after: 2 * time.Second, cause: "unpublished"}, ""},
	{"", "replay", "entry expired", replays, arrives, ledger.StateWaiting, step{do: doReopen}, ""},
	{"", "replay", "entry lost with the ledger", both(replays, ledgerLost), arrives, ledger.StateUnknown, step{do: doReopen}, ""},
	{"", "replay", "letter gone", both(replays, func(in *input) { in.comes.replay.found = false }), arrives, "", step{do: doRefuse}, message.CodeMalformed},
	{ledger.StateFinal, "replay", "of its run", both(replays, func(in *input) { in.e.Published = true }), arrives, ledger.StateWaiting, step{do: doReopen}, ""},
	{ledger.StateFinal, "replay", "of a fateUnknown", both(replays, func(in *input) {
		in.e.Published, in.e.Outcome, in.e.Error = true, message.Abandoned, &message.Failure{Code: message.CodeFateUnknown}
	}), arrives, ledger.StateUnknown, step{do: doReopen}, ""},
	{ledger.StateFinal, "replay", "its run not published", replays, arrives, ledger.StateFinal, step{do: doWait, after: 2 * time.Second, cause: "unpublished"}, ""},
	{ledger.StateFinal, "replay", "of a run that succeeded", both(replays, func(in *input) { in.e.Published, in.e.Outcome = true, message.Succeeded }), arrives, ledger.StateFinal, step{do: doDrop}, ""},
	{ledger.StateFinal, "replay", "of an earlier run", both(replays, func(in *input) { in.e.Published, in.e.Run = true, 2 }), arrives, ledger.StateFinal, step{do: doDrop}, ""},
	{ledger.StateWaiting, "replay", "its own run, letter there", both(replays, func(in *input) { in.e.ReplayOf = 9 }), arrives, ledger.StateWaiting, step{do: doReopen}, ""},
	{ledger.StateWaiting, "replay", "its own run, letter gone", both(replays, func(in *input) { in.e.ReplayOf, in.comes.replay.found = 9, false }), arrives, ledger.StateWaiting, step{do: doGoOn}, ""},

	// Where it stands.
	{ledger.StateWaiting, "next", "due", nil, next, ledger.StateWaiting, step{do: doCall}, ""},
	{ledger.StateWaiting, "next", "not due", func(in *input) { in.e.NotBefore = tableNow.Add(time.Minute) }, next, ledger.StateWaiting, step{do: doWait, after: time.Minute, cause: "notDue"}, ""},
	{ledger.StateCalled, "next", "another owner, may still live", func(in *input) { in.e.Owner, in.e.Written = "them", tableNow.Add(-10*time.Second) }, next, ledger.StateCalled, step{do: doWait, after: 27 * time.Second, cause: "inFlight"}, ""},
	{ledger.StateCalled, "next", "another owner, may still live, but keeps the message alive no longer", both(theirs, redelivered), next, ledger.StateCalled, step{do: doLook}, ""},
	{ledger.StateCalled, "next", "the same, machine never taken", both(theirs, redelivered, func(in *input) { in.f.isHolder = false }), next, ledger.StateCalled, step{do: doWait, after: 10 * time.Second, cause: "inFlight"}, ""},
	{ledger.StateCalled, "looked", "early, found", both(theirs, redelivered, func(in *input) { in.action = anAction("Pending") }), looked, ledger.StateSubmitted, step{do: doPublish, up: true, mustSave: true}, ""},
	{ledger.StateCalled, "looked", "early, not there", both(theirs, redelivered), looked, ledger.StateCalled, step{do: doWait, after: 10 * time.Second, cause: "inFlight"}, ""},
	{ledger.StateCalled, "looked", "early, not there, intent of 20 s ago", both(theirs, redelivered, func(in *input) { in.e.Written = tableNow.Add(-20 * time.Second) }), looked, ledger.StateCalled, step{do: doWait, after: 17 * time.Second, cause: "inFlight"}, ""},
	{ledger.StateCalled, "look failed", "early", both(theirs, redelivered, of(defender.System, 401, "Forbidden")), lookFailed, ledger.StateCalled, step{do: doWait, after: 10 * time.Second, cause: "inFlight"}, ""},
	{ledger.StateCalled, "look not granted", "early", both(theirs, redelivered), notGranted, ledger.StateCalled, step{do: doWait, after: 10 * time.Second, cause: "inFlight"}, ""},
	{ledger.StateUnknown, "look not granted", "", nil, notGranted, ledger.StateUnknown, step{do: doWait, after: 5 * time.Second, cause: "quota", quota: true}, ""},
	{ledger.StateCalled, "next", "of a version before, not begun for certain", func(in *input) {
		in.e.Owner, in.e.Written, in.e.StartBy = "them", tableNow.Add(-38*time.Second), in.e.LastCall.Add(10*time.Second)
	}, next, ledger.StateCalled, step{do: doWait, after: 7 * time.Second, cause: "inFlight"}, ""},
	{ledger.StateCalled, "next", "machine never taken", func(in *input) { in.e.Owner = "them" }, next, ledger.StateWaiting, step{do: doCall}, ""},
	{ledger.StateCalled, "next", "machine taken, owner dead", func(in *input) { in.e.Owner, in.f.isHolder = "them", true }, next, ledger.StateUnknown, step{do: doLook}, ""},
	{ledger.StateCalled, "next", "machine taken, our own call unrecorded", func(in *input) { in.f.isHolder = true }, next, ledger.StateUnknown, step{do: doWait, after: 5 * time.Second, cause: "unclear"}, ""},
	{ledger.StateCalled, "next", "machine's record may have expired", func(in *input) { in.e.Written = tableNow.Add(-24 * time.Hour) }, next, ledger.StateUnknown, step{do: doWait, after: 5 * time.Second, cause: "unclear"}, ""},
	{ledger.StateUnknown, "next", "look due", nil, next, ledger.StateUnknown, step{do: doLook}, ""},
	{ledger.StateUnknown, "next", "look not due", func(in *input) { in.e.LookFrom = tableNow }, next, ledger.StateUnknown, step{do: doWait, after: 5 * time.Second, cause: "unclear"}, ""},
	{ledger.StateUnknown, "next", "look not due, others wait for quota", func(in *input) { in.e.LookFrom, in.f.contended = tableNow, true }, next, ledger.StateUnknown, step{do: doWait, after: 30 * time.Second, cause: "unclear"}, ""},
	{ledger.StateUnknown, "next", "look due, the latest one has counted", func(in *input) {
		in.e.Looks, in.e.Calls = 1, []ledger.Call{{Operation: ledger.OpList, Time: tableNow}}
	}, next, ledger.StateUnknown, step{do: doWait, after: 2500 * time.Millisecond, cause: "unclear"}, ""},
	{ledger.StateUnknown, "next", "last look, the call may not have timed out", func(in *input) { in.e.Looks, in.e.LastCall = 2, tableNow }, next, ledger.StateUnknown, step{do: doWait, after: 32500 * time.Millisecond, cause: "unclear"}, ""},
	{ledger.StateUnknown, "before look", "breaker open", func(in *input) { in.f.paused = time.Second }, beforeLook, ledger.StateUnknown, step{do: doWait, after: time.Second, cause: "systemFault"}, ""},
	{ledger.StateUnknown, "before look", "", nil, beforeLook, ledger.StateUnknown, step{do: doLook}, ""},
	{ledger.StateSubmitted, "next", "", nil, next, ledger.StateSubmitted, step{do: doPublish}, ""},
	{ledger.StateFinal, "next", "not published", nil, next, ledger.StateFinal, step{do: doPublish}, ""},
	{ledger.StateFinal, "next", "not published, another message's dead letter", func(in *input) { in.e.Source = "S:2" }, next, ledger.StateFinal, step{do: doWait, after: 2 * time.Second, cause: "unpublished"}, ""},
	{ledger.StateFinal, "next", "published", func(in *input) { in.e.Published = true }, next, ledger.StateFinal, step{do: doAck}, ""},

	// Ordered to be cancelled: what was not called ends, what may have been is found out first.
	{ledger.StateWaiting, "next", "cancelled", cancelOrdered, next, ledger.StateFinal, step{do: doPublish}, message.CodeCancelled},
	{ledger.StateWaiting, "next", "its batch is cancelled", both(cancelOrdered, func(in *input) { in.f.ordered.cancel.Batch = "b" }), next, ledger.StateFinal, step{do: doPublish}, message.CodeBatchCancelled},
	{ledger.StateWaiting, "next", "cancelled, not due", both(cancelOrdered, func(in *input) { in.e.NotBefore = tableNow.Add(time.Minute) }), next, ledger.StateFinal, step{do: doPublish}, message.CodeCancelled},
	{ledger.StateCalled, "next", "cancelled, another owner may still live", both(cancelOrdered, theirs), next, ledger.StateCalled, step{do: doWait, after: 27 * time.Second, cause: "inFlight"}, ""},
	{ledger.StateCalled, "next", "cancelled, machine never taken", both(cancelOrdered, func(in *input) { in.e.Owner = "them" }), next, ledger.StateWaiting, step{do: doCall}, ""},
	{ledger.StateUnknown, "next", "cancelled, look due", cancelOrdered, next, ledger.StateUnknown, step{do: doLook}, ""},
	{ledger.StateUnknown, "looked", "cancelled, found", both(cancelOrdered, func(in *input) { in.action = anAction("Pending") }), looked, ledger.StateSubmitted, step{do: doPublish, up: true, mustSave: true}, ""},
	{ledger.StateUnknown, "looked", "cancelled, not there, 3rd", both(cancelOrdered, func(in *input) { in.e.Looks = 2 }), looked, ledger.StateWaiting, step{do: doCall}, ""},
	{ledger.StateSubmitted, "next", "cancelled", cancelOrdered, next, ledger.StateSubmitted, step{do: doPublish}, ""},
	{ledger.StateFinal, "next", "cancelled, published", both(cancelOrdered, func(in *input) { in.e.Published = true }), next, ledger.StateFinal, step{do: doAck}, ""},
	{ledger.StateCalled, "accepted", "cancelled", both(cancelOrdered, func(in *input) { in.action = anAction("Pending") }), accepted, ledger.StateSubmitted, step{do: doPublish, up: true, mustSave: true}, ""},
	{ledger.StateCalled, "rejected", "cancelled", both(cancelOrdered, of(defender.Rejected, 400, "x")), answered, ledger.StateFinal, step{do: doPublish, up: true}, "x"},
	{ledger.StateSubmitted, "followed", "cancelled, final", both(cancelOrdered, func(in *input) { in.seen = observation{action: *anAction("Succeeded"), cancel: in.f.ordered.cancel} }), sighted, ledger.StateFinal, step{do: doPublish}, ""},
	{ledger.StateSubmitted, "order", "without the action", cancelOrdered, cancels, ledger.StateSubmitted, step{do: doFollow}, ""},
	{ledger.StateSubmitted, "order", "with the action", withAction, cancels, ledger.StateSubmitted, step{do: doCancel}, ""},
	{ledger.StateSubmitted, "order", "with the action, adopted", both(withAction, func(in *input) { in.e.Adopted = true }), cancels, ledger.StateSubmitted, step{do: doFollow}, ""},
	{ledger.StateSubmitted, "order", "with the action, asked a moment ago", both(withAction, askedBefore(time.Second, 0)), cancels, ledger.StateSubmitted, step{do: doFollow}, ""},
	{ledger.StateSubmitted, "order", "with the action, asked a minute ago, no answer", both(withAction, askedBefore(time.Minute, 0)), cancels, ledger.StateSubmitted, step{do: doCancel}, ""},
	{ledger.StateSubmitted, "order", "with the action, asked a minute ago, 404", both(withAction, askedBefore(time.Minute, 404)), cancels, ledger.StateSubmitted, step{do: doCancel}, ""},
	{ledger.StateSubmitted, "order", "with the action, asked a minute ago, 200", both(withAction, askedBefore(time.Minute, 200)), cancels, ledger.StateSubmitted, step{do: doFollow}, ""},
	{ledger.StateSubmitted, "order", "with the action, asked a minute ago, 400", both(withAction, askedBefore(time.Minute, 400)), cancels, ledger.StateSubmitted, step{do: doFollow}, ""},
	{ledger.StateSubmitted, "order", "with the action, asked three times", both(withAction, askedBefore(time.Hour, 503), func(in *input) { in.e.Cancel.Asked = 3 }), cancels, ledger.StateSubmitted, step{do: doFollow}, ""},
	{ledger.StateFinal, "order", "with the action", withAction, cancels, ledger.StateFinal, step{do: doFollow}, ""},

	// Before a call. An approval that is awaited, given or denied is a row here too.
	{ledger.StateWaiting, "before call", "cancelled", cancelOrdered, beforeCall, ledger.StateFinal, step{do: doPublish}, message.CodeCancelled},
	{ledger.StateCalled, "before call", "cancelled, call refused before", cancelOrdered, beforeCall, ledger.StateFinal, step{do: doPublish}, message.CodeCancelled},
	{ledger.StateWaiting, "before call", "cancelled, and expired, paused and breaker open", both(cancelOrdered, batchPaused, func(in *input) {
		in.f.refusal, in.f.paused = &message.Failure{Code: message.CodeExpired}, time.Second
	}), beforeCall, ledger.StateFinal, step{do: doPublish}, message.CodeCancelled},
	{ledger.StateWaiting, "before call", "its batch is paused", batchPaused, beforeCall, ledger.StateWaiting, step{do: doWait, after: tableTurn, cause: "held"}, ""},
	{ledger.StateWaiting, "before call", "its batch is paused, and it has expired", both(batchPaused, func(in *input) { in.f.refusal = &message.Failure{Code: message.CodeExpired} }), beforeCall, ledger.StateFinal, step{do: doPublish}, message.CodeExpired},
	{ledger.StateWaiting, "before call", "what was ordered is not known", func(in *input) { in.f.ordersStale = true }, beforeCall, ledger.StateWaiting, step{do: doWait, after: time.Second, cause: "controlUnreadable"}, ""},
	{ledger.StateWaiting, "before call", "refused: signature, policy, age, expiry, signer's rate", func(in *input) { in.f.refusal = &message.Failure{Code: message.CodeExpired} }, beforeCall, ledger.StateFinal, step{do: doPublish}, message.CodeExpired},
	{ledger.StateWaiting, "before call", "breaker open", func(in *input) { in.f.paused = time.Second }, beforeCall, ledger.StateWaiting, step{do: doWait, after: time.Second, cause: "systemFault"}, ""},
	{ledger.StateCalled, "before call", "breaker open, call refused before", func(in *input) { in.f.paused = time.Second }, beforeCall, ledger.StateWaiting, step{do: doWait, after: time.Second, cause: "systemFault"}, ""},
	{ledger.StateWaiting, "before call", "its audit record never fits", func(in *input) { in.f.unrecordable = "too large" }, beforeCall, ledger.StateWaiting, step{do: doWait, after: time.Second, cause: "unpublishable"}, ""},
	{ledger.StateWaiting, "before call", "machine busy", func(in *input) { in.f.busy, in.f.delivered = true, 25 }, beforeCall, ledger.StateWaiting, step{do: doWait, after: 3 * time.Second, cause: "machineBusy"}, ""},
	{ledger.StateWaiting, "before call", "approval is asked for", awaits, beforeCall, ledger.StateWaiting, step{do: doAsk, after: 15 * time.Second, cause: "awaitingApproval"}, ""},
	{ledger.StateCalled, "before call", "approval is asked for, by the policy of now; call refused before", awaits, beforeCall, ledger.StateWaiting, step{do: doAsk, after: 15 * time.Second, cause: "awaitingApproval"}, ""},
	{ledger.StateWaiting, "before call", "approval was asked for", both(awaits, askedFor(20*time.Second)), beforeCall, ledger.StateWaiting, step{do: doWait, after: 20 * time.Second, cause: "awaitingApproval"}, ""},
	{ledger.StateWaiting, "before call", "approval was asked for long ago", both(awaits, askedFor(time.Hour)), beforeCall, ledger.StateWaiting, step{do: doWait, after: tableTurn, cause: "awaitingApproval"}, ""},
	{ledger.StateWaiting, "before call", "approval is due soon", both(awaits, askedFor(4*time.Hour-3*time.Second)), beforeCall, ledger.StateWaiting, step{do: doWait, after: 3 * time.Second, cause: "awaitingApproval"}, ""},
	{ledger.StateWaiting, "before call", "approval was due", both(awaits, askedFor(4*time.Hour)), beforeCall, ledger.StateFinal, step{do: doPublish}, message.CodeApprovalExpired},
	{ledger.StateWaiting, "before call", "approval was due, of another message too", both(awaits, askedFor(4*time.Hour), func(in *input) { in.f.approval.digest = "other" }), beforeCall, ledger.StateFinal, step{do: doPublish}, message.CodeApprovalExpired},
	{ledger.StateWaiting, "before call", "approval was asked for, of another message", both(awaits, askedFor(20*time.Second), func(in *input) { in.f.approval.digest = "other" }), beforeCall, ledger.StateWaiting, step{do: doWait, after: 20 * time.Second, cause: "awaitingApproval"}, ""},
	{ledger.StateWaiting, "before call", "approved", both(awaits, askedFor(time.Hour), approvedByAnn), beforeCall, ledger.StateWaiting, step{do: doCall}, ""},
	{ledger.StateWaiting, "before call", "approved before it was asked for", both(awaits, approvedByAnn), beforeCall, ledger.StateWaiting, step{do: doCall}, ""},
	{ledger.StateWaiting, "before call", "approved in time, and found later", both(awaits, askedFor(5*time.Hour), approvedByAnn), beforeCall, ledger.StateWaiting, step{do: doCall}, ""},
	{ledger.StateWaiting, "before call", "approved, and expired since", both(awaits, askedFor(time.Hour), approvedByAnn, func(in *input) { in.f.refusal = &message.Failure{Code: message.CodeExpired} }), beforeCall, ledger.StateFinal, step{do: doPublish}, message.CodeExpired},
	{ledger.StateWaiting, "before call", "approved, breaker open", both(awaits, approvedByAnn, func(in *input) { in.f.paused = time.Second }), beforeCall, ledger.StateWaiting, step{do: doWait, after: time.Second, cause: "systemFault"}, ""},
	{ledger.StateWaiting, "before call", "denied", both(awaits, askedFor(time.Hour), deniedBy("ann")), beforeCall, ledger.StateFinal, step{do: doPublish}, message.CodeDenied},
	{ledger.StateWaiting, "before call", "approved and denied", both(awaits, askedFor(time.Hour), approvedByAnn, deniedBy("ben")), beforeCall, ledger.StateFinal, step{do: doPublish}, message.CodeDenied},
	{ledger.StateWaiting, "before call", "approval was asked for, and the policy asks no more", both(askedFor(time.Hour)), beforeCall, ledger.StateWaiting, step{do: doCall}, ""},
	{ledger.StateWaiting, "before call", "", nil, beforeCall, ledger.StateWaiting, step{do: doCall}, ""},
	{ledger.StateWaiting, "no quota", "", nil, func(in *input) (ledger.Entry, step) { return putOff(awaitQuota(in.e, time.Hour, "quota", in.f)) }, ledger.StateWaiting, step{do: doWait, after: maxQuotaDelay, cause: "quota", quota: true}, ""},
	{ledger.StateWaiting, "dry run", "", nil, func(in *input) (ledger.Entry, step) { return endDryRun(in.e, in.f) }, ledger.StateFinal, step{do: doPublish}, ""},
	{ledger.StateWaiting, "intent", "", nil, intends, ledger.StateCalled, step{do: doCall}, ""},
	{ledger.StateCalled, "machine not understood", "", nil, func(in *input) (ledger.Entry, step) { return machineUnread(reverted(in.e), "m.x: no") }, ledger.StateWaiting, step{do: doWait, after: time.Minute, cause: "garbled"}, ""},
	{ledger.StateCalled, "machine taken by another", "", nil, func(in *input) (ledger.Entry, step) { return machineBusy(reverted(in.e), in.f) }, ledger.StateWaiting, step{do: doWait, after: time.Second, cause: "machineBusy"}, ""},

	// The answer to a call.
	{ledger.StateCalled, "accepted", "followed", func(in *input) { in.action = anAction("Pending") }, accepted, ledger.StateSubmitted, step{do: doPublish, up: true, mustSave: true}, ""},
	{ledger.StateCalled, "accepted", "not followed", func(in *input) { in.action, in.d.Track = anAction("Pending"), false }, accepted, ledger.StateFinal, step{do: doPublish, up: true, mustSave: true}, ""},
	{ledger.StateCalled, "throttled", "", of(defender.Throttled, 429, "x"), answered, ledger.StateWaiting, step{do: doWait, after: 10 * time.Second, cause: "throttled", quota: true}, ""},
	{ledger.StateCalled, "ambiguous", "", of(defender.Ambiguous, 503, "x"), answered, ledger.StateUnknown, step{do: doWait, after: 5 * time.Second, cause: "unclear", mustSave: true}, ""},
	{ledger.StateCalled, "ambiguous", "several in a row", both(of(defender.Ambiguous, 503, "x"), func(in *input) { in.f.ambiguous = true }), answered, ledger.StateUnknown, step{do: doWait, after: 5 * time.Second, cause: "unclear", mustSave: true, fault: &Fault{}}, faultAmbiguous},
	{ledger.StateCalled, "system", "not Defender's answer", of(defender.System, 302, "redirect"), answered, ledger.StateUnknown, step{do: doWait, after: 5 * time.Second, cause: "unclear", mustSave: true, fault: &Fault{}}, "redirect"},
	{ledger.StateCalled, "system", "", of(defender.System, 403, "Forbidden"), answered, ledger.StateWaiting, step{do: doWait, cause: "systemFault", fault: &Fault{}}, "Forbidden"},
	{ledger.StateWaiting, "system", "no token", func(in *input) { in.answer = &defender.Error{Op: "token", Class: defender.System, Code: "x"} }, answered, ledger.StateWaiting, step{do: doWait, cause: "systemFault", fault: &Fault{}}, "token"},
	{ledger.StateCalled, "conflict", "", of(defender.Conflict, 400, "x"), answered, ledger.StateCalled, step{do: doAdopt, up: true}, ""},
	{ledger.StateCalled, "404", "the first", of(defender.NotFound, 404, "x"), answered, ledger.StateWaiting, step{do: doWait, after: 5100 * time.Millisecond, cause: "notFound", up: true}, ""},
	{ledger.StateCalled, "404", "again too soon", both(of(defender.NotFound, 404, "x"), func(in *input) { in.e.NotFound = tableNow.Add(-4 * time.Second) }), answered, ledger.StateWaiting, step{do: doWait, after: 5100 * time.Millisecond, cause: "notFound", up: true}, ""},
	{ledger.StateCalled, "404", "again, 5 s later", both(of(defender.NotFound, 404, "x"), func(in *input) { in.e.NotFound = tableNow.Add(-5 * time.Second) }), answered, ledger.StateFinal, step{do: doPublish, up: true}, "x"},
	{ledger.StateCalled, "404", "empty again, Defender has answered since", both(of(defender.NotFound, 404, "x"), func(in *input) { in.answer.Empty, in.e.NotFound = true, tableNow.Add(-5*time.Second) }), answered, ledger.StateFinal, step{do: doPublish}, "x"},
	{ledger.StateCalled, "404", "empty again, Defender has not answered since", both(of(defender.NotFound, 404, "x"), func(in *input) {
		in.answer.Empty, in.e.NotFound, in.f.answered = true, tableNow.Add(-5*time.Second), tableNow.Add(-6*time.Second)
	}), answered, ledger.StateUnknown, step{do: doWait, after: 5 * time.Second, cause: "unclear", mustSave: true, fault: &Fault{}}, "notDefender"},
	{ledger.StateCalled, "rejected", "", of(defender.Rejected, 400, "x"), answered, ledger.StateFinal, step{do: doPublish, up: true}, "x"},
	{ledger.StateCalled, "rejected", "403", of(defender.Rejected, 403, "x"), answered, ledger.StateFinal, step{do: doPublish}, "x"},
	{ledger.StateWaiting, "transient", "tried for at most 3 s", of(defender.Transient, 0, "x"), answered, ledger.StateWaiting, step{do: doAgain, after: time.Second, cause: "transient"}, ""},
	{ledger.StateWaiting, "transient", "longer, others were answered", both(of(defender.Transient, 0, "x"), heldLong), answered, ledger.StateWaiting, step{do: doWait, after: time.Second, cause: "transient"}, ""},
	{ledger.StateWaiting, "transient", "longer, nobody was answered", both(of(defender.Transient, 0, "x"), heldLong, func(in *input) { in.f.answered = time.Time{} }), answered, ledger.StateWaiting, step{do: doWait, cause: "unreachable", fault: &Fault{}}, faultUnreachable},
	{ledger.StateWaiting, "transient", "longer than WORKER_GIVE_UP_AFTER in all", both(of(defender.Transient, 0, "x"), heldLong, waitedLong), answered, ledger.StateFinal, step{do: doPublish}, message.CodeGaveUp},
	{ledger.StateCalled, "stale", "tried again", both(of(defender.Stale, 0, "x"), func(in *input) { in.f.tries.stale = 2 }), answered, ledger.StateCalled, step{do: doAgain}, ""},
	{ledger.StateCalled, "stale", "too often", both(of(defender.Stale, 0, "x"), func(in *input) { in.f.tries.stale = 3 }), answered, ledger.StateWaiting, step{do: doWait, after: time.Second, cause: "stale"}, ""},
	{ledger.StateCalled, "stale", "too often, slow intents", both(of(defender.Stale, 0, "x"), func(in *input) { in.f.tries.stale, in.f.tries.intent = 3, time.Second }), answered, ledger.StateWaiting, step{do: doWait, cause: faultSlow, fault: &Fault{}}, faultSlow},
	{ledger.StateCalled, "reauthenticate", "the first", both(of(defender.Reauthenticate, 401, "x"), func(in *input) { in.f.tries.reauth = 1 }), answered, ledger.StateCalled, step{do: doAgain}, ""},
	{ledger.StateCalled, "reauthenticate", "again", both(of(defender.Reauthenticate, 401, "Forbidden"), func(in *input) { in.f.tries.reauth = 2 }), answered, ledger.StateWaiting, step{do: doWait, cause: "systemFault", fault: &Fault{}}, "Forbidden"},
	{ledger.StateCalled, "holder looked up", "an unrestrict action", func(in *input) { in.action = anAction("Pending") }, adopted, ledger.StateSubmitted, step{do: doPublish, up: true, mustSave: true}, ""},
	{ledger.StateCalled, "holder looked up", "another kind", of(defender.Conflict, 400, "x"), adopted, ledger.StateWaiting, step{do: doWait, after: 5 * time.Second, cause: "conflict"}, ""},

	// Looking for a call.
	{ledger.StateUnknown, "looked", "found", func(in *input) { in.action = anAction("Pending") }, looked, ledger.StateSubmitted, step{do: doPublish, up: true, mustSave: true}, ""},
	{ledger.StateUnknown, "looked", "found, not followed", func(in *input) { in.action, in.d.Track = anAction("Pending"), false }, looked, ledger.StateFinal, step{do: doPublish, up: true, mustSave: true}, ""},
	{ledger.StateUnknown, "looked", "not there, 1st and 2nd", func(in *input) { in.e.LookFrom = tableNow }, looked, ledger.StateUnknown, step{do: doWait, after: 15 * time.Second, cause: "unclear"}, ""},
	{ledger.StateUnknown, "looked", "not there, 3rd", func(in *input) { in.e.Looks = 2 }, looked, ledger.StateWaiting, step{do: doCall}, ""},
	{ledger.StateUnknown, "looked", "not there, 3rd, waited longer than WORKER_GIVE_UP_AFTER", both(waitedLong, func(in *input) { in.e.Looks = 2 }), looked, ledger.StateFinal, step{do: doPublish}, message.CodeGaveUp},
	{ledger.StateUnknown, "look failed", "no permission", of(defender.System, 403, "x"), lookFailed, ledger.StateUnknown, step{do: doWait, after: time.Second, cause: "mayNotList"}, ""},
	{ledger.StateUnknown, "look failed", "system", of(defender.System, 401, "Forbidden"), lookFailed, ledger.StateUnknown, step{do: doWait, cause: "systemFault", fault: &Fault{}}, "Forbidden"},
	{ledger.StateUnknown, "look failed", "the API refuses every list", of(defender.Rejected, 400, "x"), lookFailed, ledger.StateUnknown, step{do: doWait, after: time.Second, cause: "listRefused"}, ""},
	{ledger.StateUnknown, "look failed", "the API refuses this list, and others' not", both(of(defender.Rejected, 400, "x"), func(in *input) { in.f.listed = tableNow.Add(-time.Second) }), lookFailed, ledger.StateUnknown, step{do: doWait, after: time.Second, cause: "lookUpFailed"}, ""},
	{ledger.StateUnknown, "look failed", "throttled", of(defender.Throttled, 429, "x"), lookFailed, ledger.StateUnknown, step{do: doWait, after: 10 * time.Second, cause: "throttled", quota: true}, ""},
	{ledger.StateUnknown, "look failed", "reauthenticate", of(defender.Reauthenticate, 401, "x"), lookFailed, ledger.StateUnknown, step{do: doWait, cause: "reauthenticate"}, ""},
	{ledger.StateUnknown, "look failed", "stopping", both(of(defender.Ambiguous, 0, "x"), func(in *input) { in.f.stopping = true }), lookFailed, ledger.StateUnknown, step{do: doWait, cause: "shutdown"}, ""},
	{ledger.StateUnknown, "look failed", "nobody was answered", both(of(defender.Transient, 0, "x"), func(in *input) { in.f.answered = time.Time{} }), lookFailed, ledger.StateUnknown, step{do: doWait, cause: "unreachable", fault: &Fault{}}, faultUnreachable},
	{ledger.StateUnknown, "look failed", "no clear answer", of(defender.Ambiguous, 503, "x"), lookFailed, ledger.StateUnknown, step{do: doWait, after: time.Second, cause: "lookUpFailed"}, ""},
	{ledger.StateUnknown, "look failed", "no clear answer, several in a row", both(of(defender.Ambiguous, 503, "x"), func(in *input) { in.f.ambiguous = true }), lookFailed, ledger.StateUnknown, step{do: doWait, after: time.Second, cause: "lookUpFailed", fault: &Fault{}}, faultAmbiguous},
	{ledger.StateUnknown, "look failed", "waited longer than WORKER_GIVE_UP_AFTER", both(of(defender.Ambiguous, 503, "x"), waitedLong), lookFailed, ledger.StateFinal, step{do: doPublish}, message.CodeFateUnknown},

	// Following.
	{ledger.StateSubmitted, "followed", "open", func(in *input) { in.seen.action = *anAction("Pending") }, sighted, ledger.StateSubmitted, step{do: doFollow}, ""},
	{ledger.StateSubmitted, "followed", "final", func(in *input) { in.seen.action = *anAction("Failed") }, sighted, ledger.StateFinal, step{do: doPublish}, ""},
	{ledger.StateSubmitted, "followed", "overdue", func(in *input) { in.seen = observation{action: *anAction("Pending"), overdue: true} }, sighted, ledger.StateFinal, step{do: doPublish}, message.CodeTrackTimeout},
	{ledger.StateSubmitted, "followed", "vanished", func(in *input) { in.seen.vanished = &defender.Error{StatusCode: 404} }, sighted, ledger.StateFinal, step{do: doPublish}, message.CodeActionVanished},
	{ledger.StateFinal, "followed", "another tracker was first", func(in *input) { in.seen.action = *anAction("Succeeded") }, sighted, ledger.StateFinal, step{do: doAck}, ""},
}

func cancels(in *input) (ledger.Entry, step) {
	return in.d.cancelAsked(in.e, in.f.ordered.cancel, in.f.now)
}

func cancelOrdered(in *input) { in.f.ordered.cancel = &ledger.Cancel{By: "ops", Order: "C:1"} }

func withAction(in *input) {
	in.f.ordered.cancel = &ledger.Cancel{By: "ops", Order: "C:1", Actions: true}
}

func askedBefore(d time.Duration, status int) func(*input) {
	return func(in *input) {
		in.e.Cancel = &ledger.Cancel{By: "ops", Order: "C:1", Actions: true, Asked: 1, AskedAt: tableNow.Add(-d), HTTPStatus: status}
	}
}

func batchPaused(in *input) { in.f.ordered.held = &message.Order{Verb: message.VerbPause, Batch: "b"} }

// theirs is a call of another process, which has its machine.
func theirs(in *input) {
	in.e.Owner, in.e.Written, in.f.isHolder = "them", tableNow.Add(-10*time.Second), true
}

func redelivered(in *input) { in.f.orphaned, in.f.delivered = true, 2 }

func notGranted(in *input) (ledger.Entry, step) {
	return in.d.lookNotGranted(in.e, 5*time.Second, in.f)
}

func beforeLook(in *input) (ledger.Entry, step) { return in.d.beforeLook(in.e, in.f) }
func heldLong(in *input)                        { in.f.tries.held = 2500 * time.Millisecond }
func waitedLong(in *input)                      { in.e.Failed = ledger.Duration(24 * time.Hour) }

// awaits has the policy ask for one of ann and ben within 4 h.
func awaits(in *input) {
	in.f.approval = approval{requirement: requirement{need: &policy.Approvals{Required: 1, By: []string{"ann", "ben"}, Within: 4 * time.Hour}, digest: "d", since: tableNow}}
}

func askedFor(ago time.Duration) func(*input) {
	return func(in *input) {
		since := tableNow.Add(-ago)
		in.e.Approval = &ledger.Approval{Required: 1, By: []string{"ann", "ben"}, Since: since, ExpiresAt: since.Add(4 * time.Hour), Digest: "d", Asked: true}
	}
}

func approvedByAnn(in *input) { in.f.approval.given = []ledger.Verdict{{By: "ann"}} }

func deniedBy(name string) func(*input) {
	return func(in *input) { in.f.approval.denied = &ledger.Verdict{By: name} }
}

func fresh(in *input) {
	in.comes = arrival{fresh: ledger.Entry{State: ledger.StateWaiting, Run: 1, Fingerprint: "print"}, message: "S:2", claimed: "r"}
}

func dryRunEnded(in *input) {
	in.e.Outcome, in.e.Error, in.e.Dead, in.e.Published = message.DryRun, nil, false, true
}

func replays(in *input) {
	fresh(in)
	in.comes.replay = replay{seq: 9, found: true, run: 1}
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
			if s.up != r.want.up || s.quota != r.want.quota || s.mustSave != r.want.mustSave || (s.fault != nil) != (r.want.fault != nil) {
				t.Errorf("%+v, want %+v", s, r.want)
			}
			code := ""
			switch {
			case s.fault != nil:
				code = s.fault.Code
			case s.invalid != nil:
				code = s.invalid.Code
			case r.from != ledger.StateFinal && e.Error != nil:
				code = e.Error.Code
			}
			if code != r.code {
				t.Errorf("code %q, want %q", code, r.code)
			}
		})
	}
}

// An early look is one that is made now, whatever was seen before.
func TestEarlyLookIsNew(t *testing.T) {
	in := ordinary(ledger.StateCalled)
	both(theirs, redelivered)(in)
	if due := in.d.lookDue(in.e, in.f); tableNow.Sub(due) != lookShared {
		t.Errorf("due at %v", due)
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

// What a call brought is written again where the ledger has vanished meanwhile.
func TestMergedIntoNothing(t *testing.T) {
	for _, state := range []ledger.State{ledger.StateWaiting, ledger.StateUnknown, ledger.StateSubmitted, ledger.StateFinal} {
		mine := ordinary(state).e
		mine.Revision = 3
		if e, over := merged(mine, ledger.Entry{Revision: 9}); !over || e.State != state || e.Revision != 9 {
			t.Errorf("%s: %t, %+v", state, over, e)
		}
	}
}

// A request that a lost ledger has forgotten is called for after three looks that reach back to before it was published, the
// last of them when a call of a moment ago would have timed out.
func TestForgottenIsLookedForFirst(t *testing.T) {
	in := ordinary("")
	both(fresh, ledgerLost)(in)
	e, _ := arrives(in)
	if asked := in.comes.fresh.AskedAt; !e.CalledAt.Before(asked) {
		t.Errorf("looked for since %v, of a request of %v", e.CalledAt, asked)
	}
	now, looks := in.f.now, 0
	for range 20 {
		in.e, in.f.now = e, now
		next, s := in.d.next(in.e, in.f)
		switch s.do {
		case doWait:
			e, now = next, now.Add(s.after)
		case doLook:
			looks++
			in.e = next
			if e, s = looked(in); s.do == doCall {
				if looks != len(lookAfter) || now.Sub(in.comes.lostBefore) < in.d.StartLimit+in.d.Timeout {
					t.Errorf("called after %d looks, %v behind the loss", looks, now.Sub(in.comes.lostBefore))
				}
				return
			}
		default:
			t.Fatalf("%v after %d looks", s.do, looks)
		}
	}
	t.Error("never called")
}

// A late answer stands above what another process has written where it has an action and the other has none.
func TestMerged(t *testing.T) {
	for _, theirs := range []ledger.State{ledger.StateWaiting, ledger.StateCalled, ledger.StateUnknown, ledger.StateSubmitted, ledger.StateFinal} {
		for _, action := range []string{"", "a1"} {
			for _, run := range []int{1, 2} {
				mine, other := ordinary(ledger.StateSubmitted).e, ordinary(theirs).e
				mine.ActionID, mine.Revision, other.Revision, other.Run = action, 3, 9, run
				e, over := merged(mine, other)
				want := action != "" && run == 1 && theirs != ledger.StateSubmitted && theirs != ledger.StateFinal
				if over != want || e.Revision != 9 || (e.State == ledger.StateSubmitted) != (want || theirs == ledger.StateSubmitted) {
					t.Errorf("over %s of run %d, with action %q: %t, %+v", theirs, run, action, over, e)
				}
			}
		}
	}
}

// What waits for people comes again in its turn, each time after less than a minute, and spread over all of it.
func TestTurns(t *testing.T) {
	const rows = 5000
	crowd := map[time.Time]int{}
	for n := range rows {
		e := ledger.Entry{ID: fmt.Sprint("monday:", n)}
		at := tableNow
		for range 20 {
			late := time.Duration(n%7) * 100 * time.Millisecond // it is seen a moment after it came
			after := untilTurn(&e, facts{brokerNow: at.Add(late)})
			if after < turnLeast || after > turnEvery+turnLeast {
				t.Fatalf("%s comes again after %v", e.ID, after)
			}
			if at = at.Add(late + after); at.Sub(tableNow) > turnEvery+turnLeast {
				crowd[at.Truncate(time.Second)]++
			}
		}
		if times := at.Sub(tableNow) / turnEvery; times < 19 || times > 20 {
			t.Fatalf("20 turns of %s take %v", e.ID, at.Sub(tableNow))
		}
	}
	for second, n := range crowd {
		if n > 2*rows/int(turnEvery/time.Second) {
			t.Errorf("%d of %d come within the second %v", n, rows, second)
		}
	}
}
