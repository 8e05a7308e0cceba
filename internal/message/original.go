package message

import (
	"errors"
	"fmt"
	"maps"
	"strconv"
	"strings"
	"time"
)

// HeaderReplay marks a message that replays a dead letter; its value is the dead letter's sequence in its stream.
const HeaderReplay = "Unrestrict-Replay"

// replayMessageID is the Nats-Msg-Id of the message that replays a dead letter, so that each is replayed once.
func replayMessageID(seq uint64) string { return "replay:" + strconv.FormatUint(seq, 10) }

// ReplayHeader returns the headers with which a dead letter's payload is published as a replay. It includes the dead
// letter's own headers, so that the replay can be understood when the dead letter is gone.
func ReplayHeader(seq uint64, dead Header) Header {
	h := maps.Clone(dead)
	maps.DeleteFunc(h, func(name string, _ []string) bool {
		return hasPrefix(name, "Nats-") || strings.EqualFold(name, HeaderReplay)
	})
	h["Nats-Msg-Id"] = []string{replayMessageID(seq)}
	h[HeaderReplay] = []string{strconv.FormatUint(seq, 10)}
	return h
}

// ParseReplay reads the mark of a replay; ok is false for a message that is no replay.
func ParseReplay(h Header) (seq uint64, ok bool, invalid *Invalid) {
	mark := h.Get(HeaderReplay)
	if mark == "" {
		return 0, false, nil
	}
	seq, err := strconv.ParseUint(mark, 10, 64)
	if err != nil || seq == 0 || mark != strconv.FormatUint(seq, 10) {
		return 0, false, &Invalid{
			Code:    CodeMalformed,
			Message: "header " + HeaderReplay + ": is no sequence of a dead letter; replay with worker deadletter replay",
		}
	}
	return seq, true, nil
}

func replayFault(h Header) error {
	if _, _, invalid := ParseReplay(h); invalid != nil {
		return errors.New(invalid.Message)
	}
	return nil
}

// isReplay distinguishes a message made by ReplayHeader from one that merely has the header. The message id of a replay that
// was published again, because its id had been used already, has a suffix.
func isReplay(h Header) bool {
	seq, ok, _ := ParseReplay(h)
	return ok && strings.HasPrefix(h.Get("Nats-Msg-Id")+":", replayMessageID(seq)+":")
}

// messageID is the Nats-Msg-Id that the sender gave the message. A replay has an id of its own, and keeps the original's in
// another header.
func messageID(h Header) string {
	if isReplay(h) {
		return h.Get(deadHeaderPrefix + "Nats-Msg-Id")
	}
	return h.Get("Nats-Msg-Id")
}

// withoutReplay returns the headers of the replayed message if h are those of a replay, otherwise h.
func withoutReplay(h Header) Header {
	if !isReplay(h) {
		return h
	}
	return originalHeader(h)
}

// OriginalDelivery undoes DeadLetter.Render: it returns the delivery as it came, with its headers under their own names, and
// its run and request id. Stream and sequence are those of the message that first carried the request. A payload that was
// left out is an error. The mark of a replay is removed, so that the message reads as the original.
func OriginalDelivery(dead Header, body []byte) (d Delivery, run int, requestID string, err error) {
	if dead.Get(HeaderDeadTruncated) != "" {
		return Delivery{}, 0, "", errors.New("the payload was left out of the dead letter, because it did not fit; publish the request again")
	}
	d = Delivery{Stream: dead.Get(HeaderDeadStream), Subject: dead.Get(HeaderDeadSubject), Data: body, Header: originalHeader(dead), Attempt: 1}
	requestID = percentDecode(dead.Get(HeaderDeadRequestID))
	var errs [3]error
	d.Sequence, errs[0] = strconv.ParseUint(dead.Get(HeaderDeadSequence), 10, 64)
	run, errs[1] = strconv.Atoi(dead.Get(HeaderDeadRun))
	d.Published, errs[2] = time.Parse(time.RFC3339Nano, dead.Get(HeaderDeadPublished))
	if err := errors.Join(errs[:]...); err != nil || d.Stream == "" || d.Subject == "" || requestID == "" || run < 1 {
		return Delivery{}, 0, "", fmt.Errorf("not a dead letter of the worker: a %s... header is missing or wrong", deadPrefix)
	}
	// No sender can choose an id of this form, so it was derived, perhaps from an earlier message than the last run's.
	if digits, ok := strings.CutPrefix(requestID, d.Stream+":"); ok && isDigits(digits) {
		if d.Sequence, err = strconv.ParseUint(digits, 10, 64); err != nil {
			return Delivery{}, 0, "", fmt.Errorf("%s: %w", HeaderDeadRequestID, err)
		}
	}
	return d, run, requestID, nil
}

func originalHeader(dead Header) Header {
	h := Header{}
	for name, values := range dead {
		if live, ok := liveName(name); ok {
			h[live] = values
		}
	}
	return h
}

// liveName is the original name of a header of a dead letter; ok is false for the dead letter's own headers.
func liveName(name string) (live string, ok bool) {
	switch {
	case hasPrefix(name, deadHeaderPrefix):
		return percentDecode(name[len(deadHeaderPrefix):]), true
	case hasPrefix(name, deadPrefix), hasPrefix(name, "Nats-"), strings.EqualFold(name, HeaderReplay):
		return "", false
	}
	return name, true
}

// ReadDeadLetter reads a dead letter as far as possible. Delivery is what OriginalDelivery returns, with the payload as it
// is stored.
func ReadDeadLetter(h Header, body []byte) DeadLetter {
	d := DeadLetter{
		Unverified: h.Get(HeaderDeadUnverified) != "",
		Code:       h.Get(HeaderDeadReason), Message: h.Get(HeaderDeadMessage), RequestID: percentDecode(h.Get(HeaderDeadRequestID)),
		SignedBy: h.Get(HeaderDeadSignedBy),
		Delivery: Delivery{Data: body, Header: Header{}, Stream: h.Get(HeaderDeadStream), Subject: h.Get(HeaderDeadSubject)},
	}
	d.Run, _ = strconv.Atoi(h.Get(HeaderDeadRun))
	d.Attempts, _ = strconv.Atoi(h.Get(HeaderDeadAttempts))
	d.Time, _ = time.Parse(time.RFC3339Nano, h.Get(HeaderDeadTime))
	if original, _, _, err := OriginalDelivery(h, body); err == nil {
		d.Delivery = original
	}
	return d
}
