package remediation

import (
	"errors"
	"fmt"
	"time"

	"go.uber.org/zap"

	"example.com/unrestrict-worker/internal/ledger"
	"example.com/unrestrict-worker/internal/message"
)

// carry takes the run from its present state to the step that ends the delivery. It is the only loop: gather facts, decide,
// write the decision, take the step, repeat. A crash anywhere leaves an entry from which next continues.
func (p *attempt) carry() (message.Outcome, error) {
	t := tries{began: time.Now()}
	holding := false // true while this handler delays the calls of others (Breaker.HoldOthers)
	hold := func(on bool) {
		if holding != on {
			holding = on
			p.Breaker.HoldOthers(on)
		}
	}
	defer hold(false)
	e, s, err := p.next()
	for err == nil {
		hold(s.do == doAgain && t.unsent > 0)
		p.e = e
		p.updateBreaker(s)
		p.noteUnclear(s)
		won, failed := p.write(s)
		switch {
		case failed != nil:
			return message.Outcome{}, failed
		case !won:
			e, s, err = p.next() // usually the conflict is with our own write, whose acknowledgement was lost
			continue
		}
		switch s.do {
		case doPublish:
			return message.Done(), p.publish()
		case doAck:
			return message.Done(), nil
		case doWait:
			return p.nak(s), nil
		case doAsk:
			return p.nak(s), p.ask()
		case doLook:
			e, s, err = p.look()
		case doAdopt:
			e, s, err = p.adopt(s.conflict)
		default:
			e, s, err = p.call(&t, s)
		}
	}
	return message.Outcome{}, err
}

// facts gathers the facts that cost nothing.
func (p *attempt) facts() facts {
	_, tripped := p.Breaker.Current()
	return facts{
		now: time.Now(), brokerNow: p.BrokerNow(), message: p.d.Ref(), delivered: p.d.Attempt, orphaned: p.d.Attempt > 1 && p.isSource(p.e), stopping: p.wait.Err() != nil,
		backoff: p.Config.Backoff.Delay(p.e.Failures), deliveryBackoff: p.Config.Backoff.Delay(p.d.Attempt),
		served: p.Breaker.lastServed(), answered: p.Defender.Answered(), tripped: tripped, contended: p.Shared.QuotaAwaited() && p.lane() != message.LaneUrgent,
		ordered: p.Orders.about(targetOf(&p.e)), ordersStale: !p.Orders.Current(p.Config.StartLimit),
		approval: p.approval(&p.e),
	}
}

// next decides how the run continues.
func (p *attempt) next() (ledger.Entry, step, error) {
	if p.e.State == ledger.StateCalled || p.e.State == ledger.StateUnknown {
		if _, err := p.readMachine(); err != nil {
			return p.e, step{}, err
		}
	}
	f := p.facts()
	f.isHolder = p.m.Holder == p.key
	e, s := decider(p.Config).next(p.e, f)
	return e, s, nil
}

// updateBreaker trips or resets the breaker as the step requires.
func (p *attempt) updateBreaker(s step) {
	if s.up {
		p.Breaker.Reset()
	}
	if s.fault != nil {
		p.Breaker.Trip(s.fault.Code, s.fault.Reason)
		p.Breaker.recordMet(p.key)
	}
	if s.quota {
		p.Shared.noteQuotaWait(p.key, s.after)
	}
}

// nak naks the message. One that met a fault is redelivered only after the breaker's next probe.
func (p *attempt) nak(s step) message.Outcome {
	if s.fault != nil && s.after == 0 {
		s.after = p.Breaker.NakDelay()
	}
	if s.quota { // back in its lane at once, so that later messages don't overtake it; nothing is pulled while no call is available
		s.after = 0
	}
	return message.Later(s.after, s.cause)
}

// write makes the decision durable before a step that acknowledges the message or publishes. Nothing is written before a
// look, which changes nothing, or before a call, whose intent includes the decision. won is false if another process wrote
// first: then the run continues from that entry.
func (p *attempt) write(s step) (won bool, err error) {
	if !s.ends() || essenceOf(&p.e) == p.stored {
		return true, nil
	}
	if won = true; s.mustSave {
		won, err = p.saveOutcome()
	} else {
		err = p.save()
	}
	if won && err == nil {
		p.count(s)
	}
	return won, err
}

// save makes the entry durable as it is now.
func (p *attempt) save() error {
	w, err := p.e.Write(p.key, 0)
	if err != nil {
		return err
	}
	rev, err := p.Ledger.Save(p.work, w)
	return p.saved(ledger.Saved{Revision: rev, Err: err})
}

func (p *attempt) saved(s ledger.Saved) error {
	if err := p.e.Wrote(s); err != nil {
		return err
	}
	p.stored = essenceOf(&p.e)
	p.Breaker.ResetFrom(faultStore)
	return nil
}

// saveOutcome writes the outcome of a call that took place. It retries for as long as the store is unavailable. Only the end
// of the process loses the outcome, and then the look-ups find it again. won is false if another process's entry prevails.
func (p *attempt) saveOutcome() (won bool, err error) {
	for n := 0; ; n++ {
		err := p.save()
		if err == nil {
			return true, nil
		}
		if errors.Is(err, ledger.ErrConflict) {
			var overrules bool
			if overrules, err = p.merge(); err == nil && !overrules {
				return false, nil
			} else if err == nil {
				continue
			}
		}
		if errors.Is(err, ledger.ErrRecreated) {
			p.Ledger = ledger.Pin(p.Submitter.Ledger) // write it to the new ledger
		}
		if p.work.Err() == nil {
			p.Breaker.Trip(faultStore, "what became of a call could not be recorded: "+err.Error()+"; check the broker's connection, its disk and the limits of its streams")
		}
		if stopped := sleep(p.work, min(p.Config.Backoff.Delay(n), 5*time.Second)); stopped != nil {
			return false, fmt.Errorf("the fate of a call stays unrecorded: %w", err)
		}
	}
}

// merge loads the entry that another process has written. overrules is true if this process has an action that must replace
// it.
func (p *attempt) merge() (overrules bool, err error) {
	now, err := ledger.Load(p.work, p.Ledger, p.key)
	if err != nil {
		return false, err
	}
	mine := p.e
	if p.e, overrules = merged(mine, now); overrules {
		return true, nil
	}
	p.stored = essenceOf(&now)
	if mine.ActionID != "" && now.ActionID != mine.ActionID {
		p.Log.Error("an action was accepted for a run that another replica has ended or given another action; see the machine in the portal",
			p.about(mine.ID, zap.String("machine_id", mine.MachineID), zap.String("action_id", mine.ActionID),
				zap.String("recorded_action_id", now.ActionID), zap.String("state", string(now.State)))...)
	}
	return false, nil
}

// count reports what has just become durable in metrics and log, once a run.
func (p *attempt) count(s step) {
	if s.do != doPublish {
		return
	}
	if p.e.ActionID != "" {
		p.Metrics.accepted(&p.e)
		if line := p.Log.Check(zap.InfoLevel, "call accepted"); line != nil {
			line.Write(p.about(p.e.ID, zap.String("machine_id", p.e.MachineID), zap.String("lane", string(p.e.Lane)),
				zap.String("action_id", p.e.ActionID), zap.Bool("adopted", p.e.Adopted), zap.Int("attempts", p.e.Attempts),
				zap.String("correlation_id", p.e.CorrelationID()))...)
		}
	}
	if p.e.State == ledger.StateFinal {
		p.Metrics.decided(&p.e)
		if p.e.ActionID == "" {
			p.Log.Info("request decided", p.about(p.e.ID, ledger.Decision(&p.e)...)...)
		}
	}
}
