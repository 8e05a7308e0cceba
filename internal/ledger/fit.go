package ledger

import (
	"fmt"

	"example.com/unrestrict-worker/internal/message"
)

// What a ledger entry holds, the largest of all that is written about a request: what the request says (twice its
// size at most, for JSON escapes), the MachineAction, and the rest, such as exchanges with the API and two errors.
const (
	restRoom   = 32 << 10
	besideRoom = 2*message.MaxPayload + restRoom
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

// Fits makes an error for a request of which the ledger could not keep what it says, in room bytes; nil: it always can.
func Fits(room int) func(message.Request) error {
	if room >= 2*message.MaxPayload {
		return nil
	}
	return func(req message.Request) error {
		kept, err := message.EncodeJSON(NewEntry(req, message.Delivery{}, req.ExpiresAt, req.ExpiresAt))
		if n := len(kept); err == nil && n > room {
			err = fmt.Errorf("request: what must be kept of it has %d bytes, more than the %d that the broker's max_payload leaves room for; leave out what need not be echoed, or raise max_payload to %d", n, room, LeastMaxPayload)
		}
		return err
	}
}
