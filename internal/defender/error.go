package defender

import (
	"fmt"
	"strings"
	"time"
)

// Class is what a failed exchange means for its request.
type Class int

// The classes of the retry table. All but Ambiguous mean that the call did not take place, or that something other than
// Defender answered (Error.FromProxy).
const (
	// Transient: nothing was written; connection refused, DNS, TLS handshake, connect time-out.
	Transient Class = iota + 1
	// Throttled: 429. The budget has been closed for Error.RetryAfter already.
	Throttled
	// Ambiguous: whether the call took place is unknown; time-out after sending, connection cut, any 5xx, 408, a 2xx
	// that can't be read or has no action. Look before calling again.
	Ambiguous
	// Conflict: the machine has an action under way.
	Conflict
	// System: a fault that no request caused and that every request would meet. Error.Reason says what to fix.
	System
	// Reauthenticate: 401 with a token that was not fresh. The token has been dropped: try again at once.
	Reauthenticate
	// NotFound: 404 in Defender's envelope, or Empty. A 404 has been seen to be temporary, so the caller repeats the
	// call.
	NotFound
	// Rejected: the API refuses this request permanently.
	Rejected
	// Stale: not sent, because the permit was too old or spent, or the budget was closed meanwhile.
	Stale
)

// String is the class in a word.
func (c Class) String() string {
	names := [...]string{
		Transient: "transient", Throttled: "throttled", Ambiguous: "ambiguous", Conflict: "conflict", System: "system",
		Reauthenticate: "reauthenticate", NotFound: "notFound", Rejected: "rejected", Stale: "stale",
	}
	if c < Transient || int(c) >= len(names) {
		return fmt.Sprintf("class(%d)", int(c))
	}
	return names[c]
}

// Operations, as they stand in Error.Op and in the metrics' label.
const (
	opUnrestrict = "unrestrict"
	opList       = "list"
	opGet        = "get"
	opCancel     = "cancel"
	opToken      = "token"
)

// Codes of our own, for Error.Code where there was no answer, or none with a code of the API's.
const (
	codeRefused     = "connectionRefused"
	codeDNS         = "dns"
	codeTLS         = "tlsHandshake"
	codeProxy       = "proxy"
	codeTimeout     = "timeout"
	codeCut         = "connectionCut"
	codeConnect     = "connectionFailed"
	codeCancelled   = "cancelled"
	codeUnreadable  = "unreadableAnswer"
	codeNoAction    = "noAction"
	codeToken       = "token"
	codeRedirect    = "redirect"
	codeNotDefender = "notDefender"
	codeStale       = "stale"
	codeMachineID   = "machineId"
	codeActionID    = "actionId"
)

// NotDefender returns an Empty 404 reclassified as a proxy's, for when nothing shows any longer that Defender sent it.
func (e *Error) NotDefender() *Error {
	other := *e
	other.Empty = false
	notDefender(&other)
	return &other
}

// FromProxy reports whether a proxy or a wrong host answered in Defender's place. The call may still have reached
// Defender.
func (e *Error) FromProxy() bool { return e.Code == codeRedirect || e.Code == codeNotDefender }

// Error is the error of every failed exchange. No text in it holds a token, a secret or an Authorization header, even
// if the API repeats one.
type Error struct {
	Op         string // "unrestrict", "list", "get", "token"
	Class      Class  // what to do about it
	StatusCode int    // HTTP status, 0 if there was no answer
	Code       string // error.code; "http404" and the like if the API gives none; a code of our own if there was no answer
	Message    string // error.message, free text that may change ([doc] common-errors.md); else what went wrong
	Target     string // error.target, the API's correlation id; "" if none
	// Exchange says when the exchange began, and has the service's id of it. Zero if nothing was sent.
	Exchange Exchange
	// Empty: a 404 without a body. It is Defender's own if other calls get Defender's answers (Client.Answered), else a
	// proxy's.
	Empty      bool
	RetryAfter time.Duration // how long the answer asks to wait; 0: it names no time
	Reason     string        // for System: one sentence that names what is wrong and the fix
	Sent       bool          // bytes may have left this machine
	Err        error         // the cause, if there is one besides the answer
}

// Error formats everything in one line.
func (e *Error) Error() string {
	if e.Op == opToken && e.Code == codeToken { // the operation, the class and the code say the same
		return "no token for Defender: " + e.Message
	}
	var b strings.Builder
	fmt.Fprintf(&b, "defender %s: %s: ", e.Op, e.Class)
	if e.StatusCode != 0 {
		fmt.Fprintf(&b, "HTTP %d ", e.StatusCode)
	}
	b.WriteString(e.Code)
	if e.Message != "" {
		b.WriteString(": " + e.Message)
	}
	if e.Target != "" {
		b.WriteString(" (target " + e.Target + ")")
	}
	if e.Err != nil {
		b.WriteString(": " + e.Err.Error())
	}
	return b.String()
}

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }
