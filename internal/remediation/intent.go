package remediation

import (
	"errors"
	"fmt"
	"time"

	"example.com/unrestrict-worker/internal/ledger"
)

// writeIntent makes the call known before it is made: first the entry, then the machine. After a crash before the second
// write the machine has another holder, which proves that there was no call; after it, look-ups must tell. Where the
// entry's write fails and the machine's does not, the machine has a holder that is not calling, which is free.
//
// The signer's hour is counted right before.
func (p *attempt) writeIntent() error {
	if err := p.reserveSignerQuota(); err != nil {
		return err
	}
	now, calledAt := time.Now(), p.apiTime()
	if !p.clockKnown() {
		calledAt = now.UTC().Add(-wideMargin) // corrected by the first look
	}
	p.e = decider(p.Config).intended(p.e, now, calledAt)
	e := &p.e
	intent, err := e.Write(p.key, 0)
	if err != nil {
		return err
	}
	hold, err := p.m.Write(p.Rules.Stream, e.MachineID, p.key)
	if err != nil {
		return err
	}
	entry, machine := p.Ledger.SaveBoth(p.work, intent, hold)
	if err := p.saved(entry); err != nil {
		return err
	}
	err = p.m.Wrote(machine)
	if errors.Is(err, ledger.ErrConflict) && p.m.Revision == 0 {
		var busy bool
		if busy, err = p.readMachine(); err == nil && !busy {
			err = p.m.Take(p.work, p.Ledger, p.Rules.Stream, e.MachineID, p.key)
		} else if err == nil {
			err = errMachineBusy
		}
	}
	if err == nil {
		return nil
	}
	return p.revertIntent(err)
}

// revertIntent makes known that the call of an intent is not made, because of err: else whoever comes next would look for it.
func (p *attempt) revertIntent(err error) error {
	p.e = reverted(p.e)
	if back := p.save(0); back != nil {
		return fmt.Errorf("%w (and taking the intent back: %w)", err, back)
	}
	return err
}

// errMachineBusy is another request's call for the same machine.
var errMachineBusy = errors.New("another request's call for this machine is under way")

func (p *attempt) readMachine() (busy bool, err error) {
	p.m, busy, err = ledger.LoadMachine(p.work, p.Ledger, p.Rules.Stream, p.e.MachineID, p.key, decider(p.Config).holderTimeout())
	return busy, err
}
