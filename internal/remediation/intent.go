package remediation

import (
	"errors"
	"fmt"
	"time"
)

// intend makes the call known before it is made: first the entry, then the machine. After a crash before the second
// write the machine has another holder, which proves that there was no call; after it, look-ups must tell. Where the
// entry's write fails and the machine's does not, the machine has a holder that is not calling, which is free.
//
// The signer's hour is counted right before. The call begins within StartLimit, or within another time if one is given.
func (p *passage) intend(within time.Duration) error {
	if err := p.count(); err != nil {
		return err
	}
	e, began := &p.e, time.Now()
	e.State, e.Owner, e.Attempts = StateCalled, p.Config.Owner, e.Attempts+1
	e.Looks, e.LookFrom, e.Due = 0, time.Time{}, time.Time{}
	e.LastCall, e.StartBy = began.UTC(), time.Time{}
	if within > 0 {
		e.StartBy = e.LastCall.Add(within)
	}
	e.calls(e.LastCall)
	if e.CalledAt.IsZero() {
		if e.CalledAt = p.apiTime(); !p.clockKnown() {
			e.CalledAt = e.LastCall.Add(-wideMargin) // corrected by the first look
		}
	}
	intent, err := e.write(p.key, 0)
	if err != nil {
		return err
	}
	hold, err := p.m.write(p.Rules.Stream, e.MachineID, p.key)
	if err != nil {
		return err
	}
	entry, machine := p.Ledger.SaveBoth(p.work, intent, hold)
	if err := p.saved(entry); err != nil {
		return err
	}
	err = p.m.wrote(machine)
	if errors.Is(err, ErrConflict) && p.m.revision == 0 {
		var busy bool
		if busy, err = p.readMachine(); err == nil && !busy {
			err = p.m.take(p.work, p.Ledger, p.Rules.Stream, e.MachineID, p.key)
		} else if err == nil {
			err = errMachineBusy
		}
	}
	if err == nil {
		p.intended.Store(int64(time.Since(began)))
		return nil
	}
	p.notCalled()
	return p.takeBack(err)
}

// takeBack makes known that the call of an intent is not made, because of err: else whoever comes next would look for it.
func (p *passage) takeBack(err error) error {
	p.e.State = StateWaiting
	if back := p.save(0); back != nil {
		return fmt.Errorf("%w (and taking the intent back: %w)", err, back)
	}
	return err
}

// notCalled takes back what an intent has noted of a call that was not made.
func (p *passage) notCalled() {
	p.e.Attempts--
	p.e.neverCalled()
}

// errMachineBusy is another request's call for the same machine.
var errMachineBusy = errors.New("another request's call for this machine is under way")

// busyFor is how long to wait for a machine that another request's call holds: it can be for hours.
func (p *passage) busyFor() time.Duration {
	return time.Second * time.Duration(min(1+p.d.Attempt/10, 30))
}

func (p *passage) readMachine() (busy bool, err error) {
	p.m, busy, err = loadMachine(p.work, p.Ledger, p.Rules.Stream, p.e.MachineID, p.key, p.orphaned())
	return busy, err
}

// orphaned is when a machine's holder that has not been heard of since its call holds the machine no longer: its message
// was purged. Nobody who is alive is silent for so long. By then, at the latest, the machine's record expires.
func (p *passage) orphaned() time.Duration {
	alive := earlyStart + p.Config.Timeout + 11*p.Config.ReconcileDelay // the looks take ten
	return min(max(p.Config.GiveUpAfter, alive), keep)
}
