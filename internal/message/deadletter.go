package message

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"
)

// The headers of a dead letter.
const (
	deadPrefix       = "Deadletter-"
	deadHeaderPrefix = "Deadletter-Header-" // prefix of an original header that must not keep its name

	HeaderDeadReason    = "Deadletter-Reason"     // Failure.Code
	HeaderDeadMessage   = "Deadletter-Message"    // Failure.Message, on one line
	HeaderDeadRequestID = "Deadletter-Request-Id" // percent-decode it if it has escapes
	HeaderDeadRun       = "Deadletter-Run"
	HeaderDeadAttempts  = "Deadletter-Attempts"
	HeaderDeadTime      = "Deadletter-Time"
	HeaderDeadSubject   = "Deadletter-Subject"
	HeaderDeadStream    = "Deadletter-Stream"
	HeaderDeadSequence  = "Deadletter-Sequence"
	HeaderDeadPublished = "Deadletter-Published" // by the broker's clock; needed to recognise a derived id
	HeaderDeadTruncated = "Deadletter-Truncated"
	HeaderDeadSignedBy  = "Deadletter-Signed-By" // absent: no signature was required, or none was valid
	HeaderDeadDigest    = "Deadletter-Digest"    // sha256:HEX of a payload that was left out
	HeaderDeadSize      = "Deadletter-Size"      // the payload's size in bytes
	// HeaderDeadUnverified marks an unverified message (Invalid.Unverified).
	HeaderDeadUnverified = "Deadletter-Unverified"
)

// maxDeadMessage bounds Deadletter-Message in characters.
const maxDeadMessage = 1000

// DeadLetter is a request that ended rejected or abandoned, with the message it came in. For a replay, Delivery may be the
// replay or what OriginalDelivery made of it: the original's headers survive any number of runs either way.
type DeadLetter struct {
	Delivery      Delivery
	Code, Message string
	RequestID     string
	SignedBy      string // the signer's name; "" if none was verified
	Run, Attempts int
	Time          time.Time
	Unverified    bool // the message is unverified: only the latest such dead letters are kept
}

// MessageID is the Nats-Msg-Id, the same for every delivery of the message. It includes the time of publication, because a
// stream that is recreated counts from 1 again.
func (d DeadLetter) MessageID() string {
	published := int64(0)
	if !d.Delivery.Published.IsZero() {
		published = d.Delivery.Published.UnixNano()
	}
	return percentEncode("deadletter:"+d.Delivery.Ref()) + ":" + strconv.Itoa(d.Run) + ":" + strconv.FormatInt(published, 10)
}

// Render makes the message: the payload byte for byte, the original headers and the worker's own. If it exceeds limit bytes
// (0: no limit), or the payload is larger than a request may be, the payload is left out and replaced by its digest and
// size. If the headers alone exceed the limit, the largest original ones are left out too.
//
// An original header must not act on the broker (Nats-...) or on a client (Status, Description: with them a message looks
// like a JetStream status), nor look like one of the worker's own (Deadletter-...), in any case. Such a header, and one
// whose name some clients can't send, becomes Deadletter-Header-NAME.
func (d DeadLetter) Render(limit int) (Header, []byte) {
	own, original := d.header(), d.original()
	whole := maps.Clone(original)
	maps.Copy(whole, own)
	size := len(d.Delivery.Data)
	if size <= MaxPayload && (limit <= 0 || whole.size()+size <= limit) {
		return whole, d.Delivery.Data
	}
	sum := sha256.Sum256(d.Delivery.Data)
	own[HeaderDeadTruncated] = []string{"true"}
	own[HeaderDeadDigest] = []string{"sha256:" + hex.EncodeToString(sum[:])}
	own[HeaderDeadSize] = []string{strconv.Itoa(size)}
	if limit <= 0 {
		limit = math.MaxInt
	}
	if own.size() > limit { // as in a stream that was made for small messages
		own[HeaderDeadMessage] = []string{d.Code}
	}
	left := limit - own.size()
	smallestFirst := slices.SortedFunc(maps.Keys(original), func(a, b string) int {
		return cmp.Or(headerSize(a, original[a])-headerSize(b, original[b]), cmp.Compare(a, b))
	})
	for _, name := range smallestFirst {
		if left -= headerSize(name, original[name]); left < 0 {
			break
		}
		own[name] = original[name]
	}
	return own, nil
}

func (d DeadLetter) header() Header {
	h := Header{
		"Nats-Msg-Id":       {d.MessageID()},
		HeaderDeadReason:    {d.Code},
		HeaderDeadMessage:   {OneLine(cmp.Or(d.Message, d.Code), maxDeadMessage)},
		HeaderDeadRequestID: {headerText(d.RequestID)},
		HeaderDeadRun:       {strconv.Itoa(d.Run)},
		HeaderDeadAttempts:  {strconv.Itoa(d.Attempts)},
		HeaderDeadTime:      {d.Time.UTC().Format(time.RFC3339Nano)},
		HeaderDeadSubject:   {d.Delivery.Subject},
		HeaderDeadStream:    {d.Delivery.Stream},
		HeaderDeadSequence:  {strconv.FormatUint(d.Delivery.Sequence, 10)},
		HeaderDeadPublished: {d.Delivery.Published.UTC().Format(time.RFC3339Nano)},
	}
	if d.SignedBy != "" {
		h[HeaderDeadSignedBy] = []string{d.SignedBy}
	}
	if d.Unverified {
		h[HeaderDeadUnverified] = []string{"true"}
	}
	return h
}

func (d DeadLetter) original() Header {
	h := Header{}
	for name, values := range withoutReplay(d.Delivery.Header) {
		plain := make([]string, len(values))
		for i, v := range values {
			plain[i] = noLineEnd(v)
		}
		h[deadName(name)] = plain
	}
	return h
}

// deadName is the name of an original header in a dead letter; liveName is its inverse.
func deadName(name string) string {
	sendable := escapeBytes(name, func(i int) bool { return !isNameByte(name[i]) })
	acts := hasPrefix(name, "Nats-") || strings.EqualFold(name, "Status") || strings.EqualFold(name, "Description")
	if sendable == name && !acts && !hasPrefix(name, deadPrefix) {
		return name
	}
	return deadHeaderPrefix + escapeBytes(name, func(i int) bool { return name[i] == '%' || !isNameByte(name[i]) })
}
