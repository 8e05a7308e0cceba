package message

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"
)

// Limits of a request (docs/messages.md).
const (
	MaxPayload  = 64 << 10 // bytes of a request message
	maxComment  = 4000     // characters, that is Unicode code points
	maxID       = 256      // characters
	maxMetadata = 8 << 10  // bytes as sent
	maxSubject  = 1024     // bytes; the broker closes a connection that sends a protocol line over 4 KiB
	MaxSignFor  = 7 * 24 * time.Hour
	maxRead     = 1 << 20 // bytes; a message too large for a request is still searched for its id up to this size
)

// Codes of an Invalid.
const (
	CodeMalformed      = "malformed"
	CodeTooLarge       = "tooLarge"
	CodeUnsigned       = "unsigned"
	CodeUnknownSigner  = "unknownSigner"
	CodeBadSignature   = "badSignature"
	CodeExpiresTooLate = "expiresTooLate"
)

// Request asks for one machine's restriction to be removed. It is valid and, where signers are configured, signed.
type Request struct {
	ID          string // names the request; never empty
	Derived     bool   // ID is STREAM:SEQ, because the message has no id of its own
	MachineID   string // 40 hexadecimal digits, lower case
	Comment     string
	RequestedBy string
	Ticket      string
	Batch       string
	Metadata    json.RawMessage // an object as it was sent, or nil
	ExpiresAt   time.Time       // zero: never
	ReplyTo     string          // a subject, or ""
	SignedBy    string          // the signer's name; "" where no signers are configured
	Signer      string          // its public nkey
	Client      string          // of worker intake; "" if it came another way
	TraceParent string          // "" or valid
	TraceState  string
}

// Invalid is why a message is no request. Message names the field and the remedy.
type Invalid struct {
	Code      string
	Message   string
	ClaimedID string // the id in the message, which it has no claim on; "" if none can be read
}

func (e *Invalid) Error() string { return e.Code + ": " + e.Message }

// Rules are what a message is checked against.
type Rules struct {
	Stream      string   // the request stream; no sender may choose an id of the form STREAM:digits
	OwnSubjects []string // the worker's own subjects, wildcards allowed; replyTo must not match them
	Signers     *Signers // nil: requests need no signature
	// Fits returns why the ledger could not store a request; nil: it can store any.
	Fits func(Request) error
}

// Parse reads a request from a message, plain or a CloudEvent of either mode. It checks the payload's size first, then the
// signature over its raw bytes, and only then its content. It does not check whether the request has expired, is too old or
// is allowed.
//
// With an Invalid it returns what the message's result may echo: the id STREAM:SEQ and the trace context. If the message as
// a whole is well formed (signed, if required; one object), it also returns the fields that are valid, including ReplyTo.
func (r Rules) Parse(d Delivery) (Request, *Invalid) {
	var c Content
	var formFault error
	if len(d.Data) <= maxRead {
		c, formFault = openMessage(d)
	}
	bare := Request{ID: d.Ref(), Derived: true}
	bare.TraceParent, bare.TraceState = TraceFrom(d.Header, c)
	var clientFault error
	bare.Client, clientFault = clientOf(d.Header)
	req, fieldFault := r.readFields(c.object)
	id, idFault := r.nameOf(req.ID, c.eventID, d.Header)
	invalid := func(code, message string) *Invalid {
		return &Invalid{Code: code, Message: message, ClaimedID: claim(id)}
	}

	if n := len(d.Data); n > MaxPayload {
		return bare, invalid(CodeTooLarge, fmt.Sprintf("payload: has %d bytes, more than %d; leave out what need not be echoed", n, MaxPayload))
	}
	signer, code, err := r.Signers.verify(d)
	if err != nil {
		return bare, invalid(code, err.Error())
	}
	if bare.SignedBy = signer; r.Signers != nil {
		bare.Signer = d.Header.Get(HeaderSigner)
	}
	if formFault != nil {
		return bare, invalid(CodeMalformed, formFault.Error())
	}
	if r.Fits != nil {
		if err := r.Fits(req); err != nil {
			return bare, invalid(CodeTooLarge, err.Error()) // without its fields, so that its result fits
		}
	}
	payloadID := req.ID
	req.ID, req.Derived, req.SignedBy, req.Signer, req.Client = bare.ID, true, signer, bare.Signer, bare.Client
	req.TraceParent, req.TraceState = bare.TraceParent, bare.TraceState
	if err := joined(fieldFault, idFault, clientFault, replayFault(d.Header)); err != nil {
		return req, invalid(CodeMalformed, err.Error())
	}
	if r.Signers != nil {
		if c.inBoth {
			// Headers are not signed, so they must not choose which object of a signed payload is the request.
			return req, invalid(CodeMalformed, "CloudEvent: comes in both modes, by its headers and in the payload; send it in one")
		}
		if code, err := singleUse(payloadID, req.ExpiresAt); err != nil {
			return req, invalid(code, err.Error())
		}
	}
	if id != "" {
		req.ID, req.Derived = id, false
	}
	return req, nil
}

// nameOf is the id that the message gives itself; "" if none.
func (r Rules) nameOf(payloadID, eventID string, h Header) (id string, err error) {
	where := "id"
	if id = payloadID; id == "" {
		id, where = eventID, "CloudEvent: source#id"
	}
	if id == "" {
		id, where = messageID(h), "header Nats-Msg-Id"
	}
	if id == "" {
		return "", nil
	}
	if err := checkID(id); err != nil {
		return id, fmt.Errorf("%s: %w", where, err)
	}
	if digits, ok := strings.CutPrefix(id, r.Stream+":"); ok && isDigits(digits) {
		return id, fmt.Errorf("%s: %s and a number is kept for messages that have no id; choose another", where, r.Stream+":")
	}
	return id, nil
}

// singleUse checks that a signature can't be used again and again: the signed payload itself (of a CloudEvent its data;
// headers are not signed) must have the id, and an expiresAt before the worker forgets the id.
func singleUse(payloadID string, expiresAt time.Time) (code string, err error) {
	const why = "is required in a signed request, so that the signature can't be used again; add it and sign again"
	switch {
	case payloadID == "":
		return CodeMalformed, errors.New("id: " + why)
	case expiresAt.IsZero():
		return CodeMalformed, errors.New("expiresAt: " + why)
	case time.Until(expiresAt) > MaxSignFor:
		return CodeExpiresTooLate, errors.New("expiresAt: is more than 7 days ahead, longer than an id is remembered; sign for a shorter time")
	}
	return "", nil
}

// claim is the id to show in the result of a message that has no claim on it.
func claim(id string) string {
	if checkID(id) != nil {
		return ""
	}
	return id
}

func checkID(id string) error {
	switch {
	case id == "":
		return fmt.Errorf("is empty; give 1 to %d characters or leave it out", maxID)
	case !utf8.ValidString(id):
		return errors.New("is not UTF-8; encode it as UTF-8")
	case utf8.RuneCountInString(id) > maxID:
		return fmt.Errorf("has more than %d characters; shorten it", maxID)
	case strings.ContainsFunc(id, unicode.IsControl):
		return errors.New("has control characters; leave them out")
	}
	return nil
}

func isDigits(s string) bool {
	return s != "" && strings.Trim(s, "0123456789") == ""
}

// HeaderClient names the client of worker intake whose request the message is.
const HeaderClient = "Request-Client"

// maxName bounds the name of a signer or client in characters.
const maxName = 64

// CheckName checks the name of a signer or client. The error does not quote it.
func CheckName(name string) error {
	other := strings.ContainsFunc(name, func(r rune) bool {
		return (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9') && !strings.ContainsRune("._@-", r)
	})
	if name == "" || len(name) > maxName || other {
		return fmt.Errorf("must be 1 to %d of the characters a to z, A to Z, 0 to 9 and . _ @ -; choose another name", maxName)
	}
	return nil
}

// clientOf is the client that a message names, "" if it names none.
func clientOf(h Header) (string, error) {
	name, there := h.lookup(HeaderClient)
	if !there {
		return "", nil
	}
	if err := CheckName(name); err != nil {
		return "", fmt.Errorf("header %s: %w", HeaderClient, err)
	}
	return name, nil
}

// Owner is the name of the signer or client that owns the request; "" if it has no owner.
func (r Request) Owner() string { return cmp.Or(r.SignedBy, r.Client) }
