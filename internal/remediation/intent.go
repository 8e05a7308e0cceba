package remediation

import (
	"errors"
	"fmt"
	"time"

	"go.uber.org/zap"

	"example.com/unrestrict-worker/internal/ledger"
)

// writeIntent is the write-ahead intent: it records the call before it is made, first in the entry, then in the machine's
// record. After a crash before the second write the machine has another holder, which proves that there was no call. After a
// crash behind it, look-ups must find out. If only the entry's write fails, the machine has a holder that is not calling, so
// the machine is free.
//
// The signer's quota is reserved right before the intent.
func (p *attempt) writeIntent() error {
	if err := p.reserveSignerQuota(); err != nil {
		return err
	}
	now, calledAt := time.Now(), p.apiTime()
	if !p.clockKnown() {
		calledAt = now.UTC().Add(-wideMargin) // corrected by the first look
	}
	p.e = decider(p.Config).intended(p.e, now, calledAt)
	p.e.Lane = p.d.Lane
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
		if busy, err = p.machineHeld(); err == nil && !busy {
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

// revertIntent records that the call of an intent was not made, because of err. Otherwise the next delivery would look for
// it.
func (p *attempt) revertIntent(err error) error {
	p.e = reverted(p.e)
	if back := p.save(); back != nil {
		return fmt.Errorf("%w (and reverting the intent: %w)", err, back)
	}
	return err
}

// errMachineBusy is returned while another request's call for the same machine is under way.
var errMachineBusy = errors.New("another request's call for this machine is under way")

// readMachine reads the machine's record. busy is the other request that may be calling for it; nil: none.
func (p *attempt) readMachine() (busy *ledger.Entry, err error) {
	p.m, busy, err = ledger.LoadMachine(p.work, p.Ledger, p.Rules.Stream, p.e.MachineID, p.key, decider(p.Config).holderTimeout())
	return busy, err
}

// machineHeld reads the machine's record, and reports whether another request holds the machine. A holder whose message is
// gone from its stream will never be delivered again, so it loses the machine long before holderTimeout. Its entry is first
// written as "unknown": if it is published again, it looks for its call, although the machine has another holder by then,
// which would otherwise prove that there was none.
func (p *attempt) machineHeld() (bool, error) {
	holder, err := p.readMachine()
	if err != nil || holder == nil {
		return false, err
	}
	d := decider(p.Config)
	if time.Since(holder.Written) < d.purgedAfter() {
		return true, nil
	}
	if waits, err := p.Publisher.Unacked(p.work, holder.Source); err != nil || waits {
		return true, err
	}
	if holder.State == ledger.StateCalled {
		unknown := d.orphanedCall(*holder, p.facts())
		if err := ledger.Save(p.work, p.Ledger, p.m.Holder, &unknown, 0); err != nil {
			return true, err
		}
	}
	p.Log.Info("a machine is taken from a request whose message is gone from its stream",
		p.about(p.e.ID, zap.String("machine_id", p.e.MachineID), zap.String("holder", holder.ID))...)
	return false, nil
}

// apiTime is a time that the API's clock has certainly passed by now, less a margin. While the API's clock was never
// measured, it is our own time less a wide margin.
func (p *attempt) apiTime() time.Time {
	earliest, _, measured := p.Defender.Clock()
	if !measured {
		return earliest.Add(-wideMargin).UTC()
	}
	return earliest.Add(-clockMargin).UTC()
}

func (p *attempt) clockKnown() bool {
	_, _, measured := p.Defender.Clock()
	return measured
}

// callByAPI is apiTime as of the latest call.
func (p *attempt) callByAPI() time.Time {
	return p.apiTime().Add(time.Until(p.e.LastCall))
}

const (
	clockMargin = 2 * time.Second
	wideMargin  = 10 * time.Minute
)
