package ledger

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"time"
)

// Machine is the ledger's record of one computer: the request that may call for it (the holder), and the request that each
// of its actions belongs to. It ensures that a machine has one call at a time, so that a look-up after a lost answer is
// unambiguous, and that no request adopts another's action.
//
// A request becomes the holder after it has written its intent and before it calls. It never releases the machine: the
// machine is free as soon as the holder's entry shows that no call is under way. Because of this order, any request that
// finds a holder which is not calling may take the machine: the holder would have to take it again before a call. And an
// intent whose machine has another holder was never followed by a call. A crash between the two writes leaves nothing to
// clean up.
type Machine struct {
	Version int           `json:"v"`
	Nonce   string        `json:"nonce"`
	Holder  string        `json:"holder"` // entry key
	Actions []actionOwner `json:"actions,omitempty"`

	Revision uint64 `json:"-"`
}

type actionOwner struct {
	Action string `json:"action"`
	Entry  string `json:"entry"`
}

// maxActions bounds the actions whose owner a machine's record keeps; older ones are final long since.
const maxActions = 32

// UnreadError is returned when a request waits for a value other than its own entry that can't be read.
type UnreadError struct {
	Key string
	Err error
}

func (e *UnreadError) Error() string { return fmt.Sprintf("%s: %v", e.Key, e.Err) }

func (e *UnreadError) Unwrap() error { return e.Err }

// LoadMachine reads the record. busy is the entry of another request whose call for the machine may be under way; nil: the
// machine is free.
func LoadMachine(ctx context.Context, l Ledger, stream, id, self string, orphaned time.Duration) (m Machine, busy *Entry, err error) {
	key := machineKey(stream, id)
	rec, err := l.Load(ctx, key)
	if err != nil {
		return Machine{}, nil, fmt.Errorf("read the machine's record: %w", err)
	}
	m.Revision = rec.Revision
	if rec.Value == nil {
		return m, nil, nil
	}
	if err := decode(rec.Value, &m, &m.Version); err != nil {
		return Machine{}, nil, &UnreadError{key, err}
	}
	if m.Holder == self {
		return m, nil, nil
	}
	if rec, err = l.Load(ctx, m.Holder); err != nil {
		return Machine{}, nil, fmt.Errorf("read the machine's holder: %w", err)
	}
	holder, err := DecodeEntry(rec)
	if err != nil {
		return Machine{}, nil, &UnreadError{m.Holder, err}
	}
	m.remember(holder.ActionID, m.Holder)
	// The time limit frees a machine whose holder's message was purged.
	if (holder.State == StateCalled || holder.State == StateUnknown) && time.Since(holder.Written) < orphaned {
		busy = &holder
	}
	return m, busy, nil
}

func (m *Machine) remember(action, entry string) {
	owner := actionOwner{action, entry}
	if action == "" || slices.Contains(m.Actions, owner) {
		return
	}
	m.Actions = append(m.Actions, owner)
	if n := len(m.Actions); n > maxActions {
		m.Actions = slices.Delete(m.Actions, 0, n-maxActions)
	}
}

// BelongsToOther reports whether the action is known to belong to another request.
func (m *Machine) BelongsToOther(action, self string) bool {
	return slices.ContainsFunc(m.Actions, func(o actionOwner) bool { return o.Action == action && o.Entry != self })
}

// Take makes self the holder. It returns ErrConflict if another request took the machine meanwhile.
func (m *Machine) Take(ctx context.Context, l Ledger, stream, id, self string) error {
	w, err := m.Write(stream, id, self)
	if err != nil {
		return err
	}
	rev, err := l.Save(ctx, w)
	return m.Wrote(Saved{rev, err})
}

// Write returns the compare-and-swap that makes self the holder.
func (m *Machine) Write(stream, id, self string) (Write, error) {
	m.Version, m.Nonce, m.Holder = FormatVersion, Nonce(), self
	value, err := json.Marshal(m)
	if err != nil {
		return Write{}, fmt.Errorf("encode the machine's record: %w", err)
	}
	return Write{machineKey(stream, id), value, m.Revision, Retention}, nil
}

// Wrote applies the outcome of Write.
func (m *Machine) Wrote(s Saved) error {
	if s.Err != nil {
		return fmt.Errorf("take the machine: %w", s.Err)
	}
	m.Revision = s.Revision
	return nil
}
