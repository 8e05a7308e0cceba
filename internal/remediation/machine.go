package remediation

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"time"
)

// machine is the ledger's record of one computer: who calls for it, and whose its actions are. It serves two ends:
// one call at a time per machine, so that a look-up after a lost answer is unambiguous, and never taking another
// request's action for one's own.
//
// It is taken behind the intent and before the call, and never given back: it is free as soon as its
// holder's entry says that no call is under way. In this order whoever finds a holder that is not calling may take
// the machine, for the holder would have to take it again; and an intent whose machine has another holder was never
// followed by a call. A crash anywhere between leaves nothing to clean up.
type machine struct {
	Version int           `json:"v"`
	Nonce   string        `json:"nonce"`
	Holder  string        `json:"holder"` // entry key
	Actions []actionOwner `json:"actions,omitempty"`

	revision uint64
}

type actionOwner struct {
	Action string `json:"action"`
	Entry  string `json:"entry"`
}

// mostActions bounds a machine's memory of whose its actions are; older ones are long final.
const mostActions = 32

// loadMachine reads the record and says whether it is busy with another request's call.
func loadMachine(ctx context.Context, l Ledger, stream, id, self string, orphaned time.Duration) (m machine, busy bool, err error) {
	rec, err := l.Load(ctx, machineKey(stream, id))
	if err != nil {
		return machine{}, false, fmt.Errorf("read the machine's record: %w", err)
	}
	m.revision = rec.Revision
	if rec.Value == nil {
		return m, false, nil
	}
	if err := decode(rec.Value, &m, &m.Version); err != nil {
		return machine{}, false, fmt.Errorf("the machine's record: %w", err)
	}
	if m.Holder == self {
		return m, false, nil
	}
	holder, err := load(ctx, l, m.Holder)
	if err != nil {
		return machine{}, false, err
	}
	m.remember(holder.ActionID, m.Holder)
	calling := holder.State == StateCalled || holder.State == StateUnknown
	// A holder whose message was purged would hold the machine for ever.
	return m, calling && time.Since(holder.Written) < orphaned, nil
}

func (m *machine) remember(action, entry string) {
	owner := actionOwner{action, entry}
	if action == "" || slices.Contains(m.Actions, owner) {
		return
	}
	m.Actions = append(m.Actions, owner)
	if n := len(m.Actions); n > mostActions {
		m.Actions = slices.Delete(m.Actions, 0, n-mostActions)
	}
}

// others reports whether the action is known to be another request's.
func (m *machine) others(action, self string) bool {
	return slices.ContainsFunc(m.Actions, func(o actionOwner) bool { return o.Action == action && o.Entry != self })
}

// take makes self the holder; ErrConflict when another took the machine meanwhile.
func (m *machine) take(ctx context.Context, l Ledger, stream, id, self string) error {
	w, err := m.write(stream, id, self)
	if err != nil {
		return err
	}
	rev, err := l.Save(ctx, w)
	return m.wrote(Saved{rev, err})
}

func (m *machine) write(stream, id, self string) (Write, error) {
	m.Version, m.Nonce, m.Holder = formatVersion, nonce(), self
	value, err := json.Marshal(m)
	if err != nil {
		return Write{}, fmt.Errorf("encode the machine's record: %w", err)
	}
	return Write{machineKey(stream, id), value, m.revision, keep}, nil
}

func (m *machine) wrote(s Saved) error {
	if s.Err != nil {
		return fmt.Errorf("take the machine: %w", s.Err)
	}
	m.revision = s.Revision
	return nil
}
