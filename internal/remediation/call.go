package remediation

import (
	"context"
	"errors"
	"fmt"
	"time"

	"example.com/unrestrict-worker/internal/defender"
)

// holdFor is how long attempts that never left this machine are repeated while the message is held; what takes
// longer is left to the broker's redelivery.
const holdFor = 3 * time.Second

// mostStale bounds how often a call that could not leave in time is prepared again before the message is given back: each
// time costs a call of the budget.
const mostStale = 3

// slowFor is how long the intent may take to become durable before the broker is to blame for calls that are too late. The
// grant itself takes two of the broker's answers, which count too.
func (s *Submitter) slowFor() time.Duration { return s.Config.StartLimit / 4 }

// Where the last intent took longer than earlyFor the next ones are written before the call is granted, which may be waited
// for; the call then begins within earlyStart.
const (
	earlyFor   = 100 * time.Millisecond
	earlyStart = 10 * time.Second
)

// call makes the one POST of the run, as soon as it may.
func (p *passage) call() (Outcome, error) {
	if p.bar != nil {
		return p.reject(&Failure{Code: p.bar.Code, Origin: OriginRequest, Message: p.bar.Message})
	}
	if out, err := p.permitted(); out != (Outcome{}) || err != nil {
		return out, err
	}
	var held time.Duration
	var stale, refreshed, retried int
	started := time.Now()
	for {
		if err := p.watch(); err != nil {
			return p.lookFailed(err)
		}
		if err := p.clear(retried > 0); err != nil {
			return p.handBack(0, "shutdown")
		}
		if out, err := p.prepare(); out != (Outcome{}) || err != nil {
			return out, err
		}
		action, out, err := p.post()
		if out != (Outcome{}) {
			return out, nil
		}
		if err == nil {
			return p.accepted(action)
		}
		var answer *defender.Error
		if !errors.As(err, &answer) {
			return p.notReady(err)
		}
		switch answer.Class {
		case defender.Stale:
			if stale++; stale < mostStale {
				continue
			}
			took := time.Duration(p.intended.Load())
			if took < p.slowFor() {
				return p.handBack(time.Second, "stale")
			}
			p.fault(faultSlow, fmt.Sprintf("the broker takes %s to store what must be durable before a call, so that granted calls are too old by then; see its disk, its load and the way to it", took.Round(time.Millisecond)))
			return p.handBack(p.Gate.HandBack(), faultSlow)
		case defender.Reauthenticate:
			if refreshed++; refreshed < 2 {
				continue
			}
			return p.faulted(answer)
		case defender.Transient:
			delay := p.Config.Backoff.Delay(p.e.Failures + retried)
			if held += delay; held > holdFor {
				return p.unreachable(answer, started)
			}
			if retried++; retried == 1 {
				p.suspect(true)
				defer p.suspect(false)
			}
			p.Metrics.retry("transient")
			if err := sleep(p.wait, delay); err != nil {
				return p.handBack(0, "shutdown")
			}
			continue
		}
		return p.answered(answer)
	}
}

// suspect holds other calls back while this one finds out whether the API can be reached at all.
func (p *passage) suspect(on bool) {
	if p.suspecting != on {
		p.suspecting = on
		p.Gate.Suspect(on)
	}
}

// post is the one exchange, once it is permitted and made known. The guard is asked with the permit in hand: its look is
// mostly there (watch), and is made here if the permit was waited for. An outcome is what the guard has decided.
//
// On a slow broker the intent comes before the permit, which would be too old by the time that the intent is durable.
func (p *passage) post() (action defender.MachineAction, out Outcome, err error) {
	early := p.Config.Limited && time.Duration(p.intended.Load()) > earlyFor
	if early {
		if err := p.intend(earlyStart); err != nil {
			return action, Outcome{}, err
		}
		p.notCalled() // as far as this process knows: what follows may decide otherwise
		p.e.State = StateWaiting
	}
	permit, out, err := p.ready()
	if err != nil && early && p.e.State == StateWaiting { // what the guard has decided stands
		err = p.takeBack(err)
	}
	if out != (Outcome{}) || err != nil {
		return action, out, err
	}
	if early && time.Until(p.e.StartBy) > p.Config.StartLimit {
		p.e.State = StateCalled // as the ledger has it
		p.e.Attempts++
		p.e.calls(p.e.LastCall)
	} else {
		if err := p.intend(0); err != nil {
			return action, Outcome{}, err
		}
	}
	sent := time.Now()
	action, err = p.Defender.Unrestrict(p.work, permit, p.e.MachineID, p.e.Comment)
	p.e.Stages.API += Duration(time.Since(sent))
	var answer *defender.Error
	if errors.As(err, &answer) && !answer.Sent {
		p.e.Attempts--
	}
	p.e.called(action.Exchange, err)
	return action, Outcome{}, err
}

// ready gets the permit, and asks the guard.
func (p *passage) ready() (permit defender.Permit, out Outcome, err error) {
	if permit, err = p.Defender.Ready(p.wait); err != nil {
		return permit, Outcome{}, err
	}
	p.e.Stages.granted(permit.Waited())
	out, err = p.guard()
	return permit, out, err
}

// clear waits while another handler finds out whether the API is reachable; the one that does so goes on.
func (p *passage) clear(finding bool) error {
	if finding {
		return nil
	}
	return p.Gate.settled(p.wait)
}

// prepare judges what must hold right before a call. No call of the run can have taken place here: every one made
// was refused, never left, or was looked for in vain.
func (p *passage) prepare() (Outcome, error) {
	if wait, ok := p.calm(); !ok {
		return p.handBack(wait, "systemFault")
	}
	if t := p.req.ExpiresAt; !t.IsZero() && !time.Now().Before(t) {
		return p.reject(&Failure{Code: CodeExpired, Origin: OriginRequest, Message: "expiresAt: the request expired at " + t.UTC().Format(time.RFC3339) + " before it could be carried out; publish it anew if it still holds"})
	}
	// The first time the machine is nearly always free, and taking it tells. One that was found busy is asked first, so
	// that waiting for it costs no call.
	if p.d.Attempt > 1 && !p.Config.DryRun {
		if busy, err := p.readMachine(); err != nil {
			return Outcome{}, err
		} else if busy {
			return p.handBack(p.busyFor(), "machineBusy")
		}
	}
	if _, _, err := p.inRate(); err != nil {
		return p.notReady(err)
	}
	if p.Config.DryRun {
		if out, err := p.guard(); out != (Outcome{}) || err != nil {
			return out, err
		}
		p.e.decide(DryRun, nil, false)
		return p.conclude()
	}
	return Outcome{}, nil
}

// notReady is a call that was not granted: nothing was begun.
func (p *passage) notReady(err error) (Outcome, error) {
	if errors.Is(err, errMachineBusy) {
		return p.handBack(p.busyFor(), "machineBusy")
	}
	if over, ok := errors.AsType[overRate](err); ok {
		return p.reject(over.failure)
	}
	var quota interface{ Wait() time.Duration }
	if errors.As(err, &quota) {
		return p.awaitQuota(quota.Wait(), "quota")
	}
	return Outcome{}, err
}

func sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-t.C:
		return nil
	}
}
