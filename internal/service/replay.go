package service

import (
	"time"

	"example.com/unrestrict-worker/internal/broker"
	"example.com/unrestrict-worker/internal/message"
)

// Replay is what to expect of a dead letter's replay, and what to do. The page and the commands show this text.
type Replay struct {
	Chance Chance
	Text   string // whole sentences
}

// Chance is how a replay is expected to end.
type Chance int

// The zero value is the common case.
const (
	ReplayHelps   Chance = iota // it goes on, once the cause is gone
	ReplayFails                 // rejected again, unless settings or the machine have changed, which only the worker knows
	ReplayRefused               // rejected whatever happens, so that it is not published
)

// replays has the Replay of each code of the worker's own.
var replays = map[string]Replay{
	message.CodeMalformed:       {ReplayFails, correct}, // it may be malformed as a signed request only
	message.CodeTooLarge:        {ReplayFails, "A replay is rejected again unless the broker takes larger messages by now. Leave out what need not be echoed, and publish it again."},
	message.CodeIDConflict:      {ReplayHelps, "By now the other request with its id is forgotten: a replay is judged on its own."},
	message.CodeExpired:         {ReplayFails, "A replay is rejected again: it has expired. Publish it again if it still holds."},
	message.CodeTooOld:          {ReplayHelps, "Its age does not count against a replay. See first whether it still holds."},
	message.CodeUnsigned:        {ReplayFails, "A replay is rejected again while signatures are required. Sign the request and publish it again."},
	message.CodeUnknownSigner:   {ReplayFails, "A replay is rejected again until its key is trusted. Have the key added to the trusted signers and replay it then, or sign the request with one that is."},
	message.CodeBadSignature:    {ReplayFails, "A replay is rejected again while signatures are required. Find out who changed or forged it; sign and publish again what is genuine."},
	message.CodeExpiresTooLate:  {ReplayFails, "A replay is rejected again while signatures are required. Sign it again, for 7 days at most."},
	message.CodePolicy:          {ReplayHelps, "A replay is judged by the policy as it is then: it is rejected again unless the policy, or the hour, has changed."},
	message.CodeRestrictedAgain: {ReplayFails, "A replay is rejected again: the machine was restricted after the request was published. Look at the machine, and publish a new request if it is to be released."},
	message.CodeDenied:          {ReplayHelps, "A replay asks for approval again."},
	message.CodeApprovalExpired: {ReplayHelps, "A replay asks for approval again."},
	message.CodeGaveUp:          {ReplayHelps, "Once the cause is gone a replay carries it out."},
	message.CodeFateUnknown:     {ReplayHelps, "See the machine's actions in Defender's portal. A replay looks once more for the lost call before it calls."},
}

const correct = "A replay is rejected again. Publish a corrected request."

// refusedByAPI is the Replay of the API's own codes.
var refusedByAPI = Replay{ReplayHelps, "Once the cause is gone a replay calls the API again."}

// ReplayOf returns what to expect of a dead letter's replay. It judges neither signatures nor the policy: only the worker knows
// the current signers.
func ReplayOf(n broker.Names, d message.DeadLetter, h message.Header, data []byte, now time.Time) Replay {
	refused := func(text string) Replay { return Replay{ReplayRefused, text} }
	original, _, _, err := message.OriginalDelivery(h, data)
	switch {
	case err != nil:
		return refused("It can't be replayed: " + err.Error() + ".")
	case original.Stream != n.Stream || !n.Takes(original.Subject):
		return refused("It can't be replayed here: it is of a request on " + original.Subject + " of stream " + original.Stream + ". Replay it there.")
	case d.Code == message.CodeIDConflict && now.Sub(d.Time) < message.MaxSignFor:
		return refused("A replay is rejected again: another request has its id. Publish it under an id of its own.")
	}
	r, invalid := message.Rules{Stream: n.Stream, OwnSubjects: n.OwnSubjects()}.Parse(original)
	switch {
	case invalid != nil && invalid.Code == d.Code: // its error, which is shown with it, says what is wrong
		return refused(correct)
	case invalid != nil:
		return refused("A replay is rejected: " + invalid.Error() + ". Publish a corrected request.")
	case !r.ExpiresAt.IsZero() && now.After(r.ExpiresAt):
		return refused("A replay is rejected: the request has expired. Publish it again if it still holds.")
	}
	if replay, own := replays[d.Code]; own {
		return replay
	}
	return refusedByAPI
}
