package service

import "example.com/unrestrict-worker/internal/message"

// advice is what to do about a request that ended without a dead letter, by the code of its error, or else by its outcome. For a
// dead letter see Replay.
var advice = map[string]string{
	message.Failed:             "The machine did not carry it out: see its action centre in Defender's portal, then ask again under a new id.",
	message.TimedOut:           "The machine did not carry it out in time; it was probably off. Ask again under a new id once it is on.",
	message.Cancelled:          "If it is wanted after all, ask again under a new id.",
	message.CodeTrackTimeout:   "The machine is probably off, and may yet carry it out: see the action in Defender's portal before you ask again, under a new id.",
	message.CodeActionVanished: "See in Defender's portal whether the machine is still restricted; if so, ask again under a new id.",
	message.CodeBatchCancelled: "If it is wanted after all, ask again under the name of a new batch.",
}

// AdviceOf returns what to do about a result, in a whole sentence; "" if nothing is to be done, or if its dead letter has the
// advice.
func AdviceOf(r message.Result) string {
	if !r.Final {
		return ""
	}
	if r.Error != nil && advice[r.Error.Code] != "" {
		return advice[r.Error.Code]
	}
	return advice[r.Outcome]
}
