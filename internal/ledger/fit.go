package ledger

import (
	"fmt"

	"example.com/unrestrict-worker/internal/message"
)

// The largest message stored for a request is its ledger entry. It holds the request's fields (at most twice the request's
// size, because of JSON escapes), the MachineAction, and the rest, such as exchanges with the API and two errors.
const (
	restRoom      = 32 << 10
	nonActionRoom = 2*message.MaxPayload + restRoom
	actionRoom    = 32 << 10 // ten times the usual size
)

// LeastMaxPayload is the smallest max_payload of a broker that fits everything: every request up to MaxPayload, and every
// MachineAction of usual size.
const LeastMaxPayload = nonActionRoom + actionRoom

// Room divides a broker's max_payload between the request and the MachineAction. If max_payload is small, the action gets a
// sixth of it, the same share as at LeastMaxPayload, and the rest of the entry at most half of what remains. So ordinary
// requests work with any max_payload.
func Room(maxPayload int) (request, action int) {
	other := min(nonActionRoom, maxPayload-maxPayload/6)
	return other - min(restRoom, other/2), maxPayload - other
}

// Fits returns a check that fails for a request whose fields the ledger can't store in room bytes; nil if every request
// fits.
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
