package remediation

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
)

// ErrTooLarge is a write that can never succeed: the broker takes no message of that size, however often it is tried. It is
// its request's own failure, and no fault of the system.
var ErrTooLarge = errors.New("larger than the broker takes")

// What a ledger entry holds, the largest of all that is written about a request: what the request says (twice its
// size at most, for JSON escapes), the MachineAction, and the rest, such as exchanges with the API and two errors.
const (
	restRoom   = 32 << 10
	besideRoom = 2*MaxPayload + restRoom
	actionRoom = 32 << 10 // ten times what they usually have
)

// LeastMaxPayload is the least max_payload of a broker that holds everything: every request that is no larger than it may
// be, and every MachineAction of usual size.
const LeastMaxPayload = besideRoom + actionRoom

// Room is how a broker's max_payload is divided: what a request may have, and what a MachineAction. Of a small one the
// action gets a sixth, as of the least that holds everything, and the rest at most half of what is left, so that ordinary
// requests are carried out at any.
func Room(maxPayload int) (request, action int) {
	beside := min(besideRoom, maxPayload-maxPayload/6)
	return beside - min(restRoom, beside/2), maxPayload - beside
}

// fits is an error for a request of which the ledger could not keep what it says.
func (r Rules) fits(req Request) error {
	if r.Room == 0 {
		return nil
	}
	var size bytes.Buffer
	plain := json.NewEncoder(&size)
	plain.SetEscapeHTML(false)
	if err := plain.Encode(newEntry(req, Delivery{}, req.ExpiresAt, req.ExpiresAt)); err != nil {
		return err
	}
	if n := size.Len(); n > r.Room {
		return fmt.Errorf("request: what must be kept of it has %d bytes, more than the %d that the broker's max_payload leaves room for; leave out what need not be echoed, or raise max_payload to %d", n, r.Room, LeastMaxPayload)
	}
	return nil
}
