package remediation

import (
	"time"

	"example.com/unrestrict-worker/internal/defender"
	"example.com/unrestrict-worker/internal/health"
	"example.com/unrestrict-worker/internal/ledger"
	"example.com/unrestrict-worker/internal/message"
)

// Every decision about a run is in the decide*.go files, as pure functions from an entry and facts to the next entry and
// the step to take. They read no clock, no store and no settings besides their arguments, and log nothing. carry.go gathers
// the facts, writes the entry and takes the step. Each row of the table in decide_test.go is one case here. To add a rule, add
// a fact and a case.

// do is a kind of step.
type do int

const (
	doPublish do = iota + 1 // publish the decision, mark it as published, acknowledge
	doAck                   // everything is published: acknowledge
	doWait                  // nak: the message is redelivered after step.after
	doLook                  // ask the API whether the call took place
	doAdopt                 // ask the API which action blocks the machine
	doCall                  // permit, guard, intent, POST
	doAgain                 // call again after step.after, without a nak
	doFollow                // the tracker continues to follow
)

// step is what to do next. Before doPublish, doAck and doWait the entry is written if it has changed in a part that later
// decisions depend on (essenceOf).
type step struct {
	do    do
	after time.Duration // doWait, doAgain; with a fault: 0 means longer than until the breaker's next probe
	cause string        // doWait, doAgain: the label of unrestrict_retries_total
	fault *Fault        // trip the breaker
	up    bool          // the answer shows that the API takes calls: reset the breaker
	quota bool          // doWait: waits for a call of the budget

	conflict *defender.Error  // doAdopt: the answer to the call
	invalid  *message.Invalid // doRefuse

	// mustSave: a call took place or may have. The write is repeated until the store takes it or the process ends, and
	// merged with what another process has written meanwhile.
	mustSave bool
}

// ends reports whether the step ends a delivery.
func (s step) ends() bool {
	return s.do == doPublish || s.do == doAck || s.do == doWait || s.do == doAsk
}

// decider has the settings that decisions depend on.
type decider SubmitConfig

// facts is what a decision depends on besides the entry. Each function lists the facts that it reads.
type facts struct {
	now, brokerNow time.Time // this machine's clock, and its estimate of the broker's
	message        string    // STREAM:SEQ of the delivery
	delivered      int       // number of deliveries, this one included
	orphaned       bool      // the message opened this run and is redelivered: its last handler no longer keeps it alive
	stopping       bool      // the process was asked to stop

	isHolder        bool             // the machine's record names this run as its holder
	busy            bool             // the machine's record names another run, whose call may be under way
	refusal         *message.Failure // why the request must not be called for: signature, policy, age, expiry, the signer's rate
	unrecordable    string           // why the run's audit record can't be stored, however short; "": it can
	allowed         bool             // the policy was applied, and allows the run
	approval        approval         // the required approval and the verdicts so far
	paused          time.Duration    // the delay of the nak while the breaker is open and this is not its probe
	backoff         time.Duration    // delay after the entry's failures
	retry           time.Duration    // delay after those and this delivery's tries
	deliveryBackoff time.Duration    // delay after the deliveries so far
	tries           tries

	served    time.Time // when an answer last showed that the API takes calls; zero: never
	answered  time.Time // when the API last answered anything
	listed    time.Time // when the API last listed actions for this replica; zero: never
	tripped   bool      // the breaker is open, whether or not this is the probe
	contended bool      // requests of this process wait for quota
	ambiguous bool      // several answers in a row, for different machines, were unclear
	notOurs   bool      // the call did not create the action that answered it

	ordered     ordered // the orders about the run
	ordersStale bool    // the orders are out of sync: recent ones may be missing
}

// tries counts the tries of one delivery to make its call.
type tries struct {
	began                 time.Time
	stale, reauth, unsent int
	held                  time.Duration // total wait between them
	intent                time.Duration // duration of the last write-ahead intent
}

// slack keeps a delivery from being nakked for being a few milliseconds early.
const slack = 50 * time.Millisecond

// next decides how a run continues from its state. Facts: now, brokerNow, message, isHolder, contended, orphaned, ordered.
func (d decider) next(e ledger.Entry, f facts) (ledger.Entry, step) {
	switch e.State {
	case ledger.StateSubmitted:
		return e, step{do: doPublish}
	case ledger.StateFinal:
		switch {
		case e.Published:
			return e, step{do: doAck}
		case e.Dead && e.Source != f.message: // only its own message can become the dead letter
			return e, wait(2*time.Second, "unpublished")
		}
		return e, step{do: doPublish}
	case ledger.StateCalled:
		if d.leaseRemaining(e, f) > 0 {
			if f.orphaned && f.isHolder {
				return e, step{do: doLook} // an early look: e stays as it is
			}
			return e, d.awaitOwner(e, f)
		}
		if !f.isHolder && f.brokerNow.Sub(e.Written) < d.holderTimeout()-time.Minute {
			// The machine was never taken for this run, so there was no call: no other request can have taken it over since,
			// and its record has not expired.
			return reverted(e), step{do: doCall}
		}
		e.State, e.LookFrom = ledger.StateUnknown, d.lastPossibleEnd(e, f)
	}
	if e.State == ledger.StateUnknown {
		if rest := d.nextLook(e, f).Sub(f.now); rest > slack {
			return e, wait(rest, "unclear")
		}
		return e, step{do: doLook}
	}
	if f.ordered.cancel != nil {
		return endCancelled(e, f)
	}
	if rest := e.NotBefore.Sub(f.now); rest > slack {
		return e, wait(rest, "notDue")
	}
	return e, step{do: doCall}
}

// beforeCall decides whether the call may be made now. No earlier call of the run can have taken place: each was refused,
// never left, or was not found by its looks. So the entry becomes "waiting" if the call is put off. Facts: ordered,
// ordersStale, refusal, allowed, approval, paused, unrecordable, busy, delivered, deliveryBackoff, message, now.
func (d decider) beforeCall(e ledger.Entry, f facts) (ledger.Entry, step) {
	e.Allowed = e.Allowed || f.allowed
	switch {
	case f.ordered.cancel != nil:
		return endCancelled(e, f)
	case f.refusal != nil:
		return reject(e, f, f.refusal)
	}
	e, s := awaitApproval(e, f)
	switch {
	case s.do != doCall:
		return e, s
	case f.ordered.held != nil:
		return putOffRow(e, f)
	case f.ordersStale:
		return putOff(e, wait(time.Second, health.ControlUnreadable))
	case f.paused > 0:
		return putOff(e, wait(f.paused, "systemFault"))
	case f.unrecordable != "":
		e.LastError = &message.Failure{Code: health.Unpublishable, Origin: message.OriginWorker, Message: f.unrecordable}
		return putOff(e, wait(min(f.deliveryBackoff, longestRetry), health.Unpublishable))
	case f.busy:
		return machineBusy(e, f)
	case ownCause(&e) != "":
		e.LastError = nil // its cause is gone
	}
	return e, step{do: doCall}
}

// intended is the entry while its call is under way: the write-ahead intent. calledAt is now in the API's time, less a
// margin.
func (d decider) intended(e ledger.Entry, now, calledAt time.Time) ledger.Entry {
	e.State, e.Owner, e.Attempts = ledger.StateCalled, d.Owner, e.Attempts+1
	e.Looks, e.LookFrom, e.NotBefore = 0, time.Time{}, time.Time{}
	e.LastCall, e.StartBy = now.UTC(), time.Time{}
	e.AppendExchange(e.LastCall)
	if e.CalledAt.IsZero() {
		e.CalledAt = calledAt
	}
	return e
}

// reverted is the entry of an intent whose call was not made, and will not be.
func reverted(e ledger.Entry) ledger.Entry {
	e.State, e.Attempts = ledger.StateWaiting, e.Attempts-1
	e.DropExchange()
	return e
}

// putOff makes the entry of a run without a call under way "waiting", and naks its message. A nak for any other reason must
// leave "called" as it is.
func putOff(e ledger.Entry, s step) (ledger.Entry, step) {
	e.State = ledger.StateWaiting
	return e, s
}

func wait(d time.Duration, cause string) step {
	return step{do: doWait, after: max(d, 0), cause: cause}
}

// machineBusy waits for a machine that another request's call holds, which may take hours. The entry records that, for
// `worker why`.
func machineBusy(e ledger.Entry, f facts) (ledger.Entry, step) {
	e.LastError = &message.Failure{Code: causeBusy, Origin: message.OriginWorker, Message: "another request's call for this machine is under way, or whether it took place is not known yet"}
	return putOff(e, wait(time.Second*time.Duration(min(1+f.delivered/10, 30)), causeBusy))
}

// machineUnread waits until somebody repairs the ledger's record of the machine.
func machineUnread(e ledger.Entry, why string) (ledger.Entry, step) {
	e.LastError = &message.Failure{Code: causeGarbled, Origin: message.OriginWorker, Message: "what the ledger has of the machine makes no sense: " + why}
	return putOff(e, wait(time.Minute, causeGarbled))
}

const (
	causeBusy    = "machineBusy"
	causeGarbled = "garbled"
)

// maxQuotaDelay bounds the redelivery delay of a message that waits for quota. A short delay costs nothing, because nothing
// is pulled while no call is available. And once the limits are raised, the waiting messages continue at once, before newer
// ones.
const maxQuotaDelay = 30 * time.Second

// awaitQuota naks the message until a call may be available. The wait is measured from here to the grant, over all
// redeliveries.
func awaitQuota(e ledger.Entry, d time.Duration, cause string, f facts) (ledger.Entry, step) {
	if e.Stages.QuotaSince.IsZero() {
		e.Stages.QuotaSince = f.now.UTC()
	}
	s := wait(min(d, maxQuotaDelay), cause)
	s.quota = true
	return e, s
}

// essence is the part of an entry that later decisions depend on. If it differs from the stored one, the entry is written
// before a step that ends the delivery.
type essence struct {
	state                          ledger.State
	published, allowed, counted    bool
	approval                       approvalEssence
	own                            string // code of the cause of the wait, if the worker itself found it; for `worker why`
	run, attempts, looks, failures int
	failed                         ledger.Duration
	quotaSince                     time.Time
	notBefore, lookFrom, notFound  time.Time
}

func essenceOf(e *ledger.Entry) essence {
	return essence{
		state: e.State, published: e.Published, allowed: e.Allowed, counted: e.Counted, approval: approvalEssenceOf(e.Approval), own: ownCause(e),
		run: e.Run, attempts: e.Attempts, looks: e.Looks, failures: e.Failures, failed: e.Failed,
		quotaSince: e.Stages.QuotaSince, notBefore: e.NotBefore, lookFrom: e.LookFrom, notFound: e.NotFound,
	}
}

func ownCause(e *ledger.Entry) string {
	if e.LastError == nil || e.LastError.Origin != message.OriginWorker {
		return ""
	}
	return e.LastError.Code
}
