package defender

import (
	"cmp"
	"fmt"
	"net/http"
	"regexp"
	"strings"
	"time"

	"github.com/go-json-experiment/json"
)

// Envelope is Defender's own error body, {"error":{"code","message","target"}} ([doc] common-errors.md). Its code may
// be empty (an OData error). OAuth's {"error":"invalid_client"} is not an envelope.
type Envelope struct {
	Code, Message, Target string // as they may be shown
	raw                   string // the message as received, which classification uses; "": Message is
}

// parseEnvelope returns nil for anything other than Defender's error body.
func parseEnvelope(body []byte, token *secret) *Envelope {
	var outer struct {
		Error struct {
			Code    text `json:"code"`
			Message text `json:"message"`
			Target  text `json:"target"`
		} `json:"error"`
	}
	if json.Unmarshal(body, &outer, lenient) != nil || outer.Error.Code == "" && outer.Error.Message == "" {
		return nil
	}
	e := &Envelope{Code: token.asCode(string(outer.Error.Code)), Message: token.asMessage(string(outer.Error.Message)), raw: string(outer.Error.Message)}
	if target := string(outer.Error.Target); !token.in([]byte(target)) {
		e.Target = printable(target)
	}
	return e
}

// wording is the message in one line.
func (e *Envelope) wording() string {
	return strings.Join(strings.Fields(cmp.Or(e.raw, e.Message)), " ")
}

// Answer is everything that Classify decides by.
type Answer struct {
	Op            string // "unrestrict", "list", "get", "cancel"
	StatusCode    int
	Header        http.Header
	Envelope      *Envelope // nil: the body is not Defender's error
	Empty         bool      // there is no body
	Known         bool      // Defender has recently answered other calls at this address
	Truncated     bool      // the body broke off or took too long, so that its sender is unknown
	TokenFresh    bool      // bearer.fresh: a 401 is the system's fault
	TokenAccepted bool      // a POST with this very token was accepted before
	Now           time.Time // this machine's clock, for a Retry-After date without a Date header
}

// Classify is the retry table: what an answer means that is not an acceptance. A 2xx comes here only if it has no
// action, which makes it ambiguous. The result depends on nothing but the argument.
func Classify(a Answer) *Error {
	e := &Error{Op: a.Op, StatusCode: a.StatusCode, Code: fmt.Sprintf("http%d", a.StatusCode), Sent: true}
	if a.Envelope != nil {
		e.Message, e.Target = a.Envelope.Message, a.Envelope.Target
		if a.Envelope.Code != "" {
			e.Code = a.Envelope.Code
		}
	}
	hintIn := ""
	if a.StatusCode == http.StatusTooManyRequests && a.Envelope != nil {
		hintIn = a.Envelope.wording()
	}
	e.RetryAfter = retryAfter(a.Header, hintIn, a.Now)

	switch status := a.StatusCode; {
	case status == http.StatusTooManyRequests:
		e.Class = Throttled
	case status == http.StatusRequestTimeout, status < 200, status >= 500:
		e.Class = Ambiguous
	case status < 300:
		e.Class, e.Code = Ambiguous, codeNoAction
	case status < 400:
		e.Class, e.Code = System, codeRedirect
		e.Reason = fmt.Sprintf("The API answers with a redirect (HTTP %d), which is never followed: correct DEFENDER_API_URL or the proxy.", status)
	default:
		refused(a, e)
	}
	return e
}

// refused classifies the remaining 4xx.
func refused(a Answer, e *Error) {
	switch {
	case a.Envelope != nil && a.Envelope.Code == "DisabledFeature":
		e.Class = System
		e.Reason = "Defender says that a feature is not enabled in this tenant; enable it or check the licence: " + e.Message
	case a.StatusCode == http.StatusUnauthorized:
		unauthorized(a, e)
	case a.Truncated:
		e.Class, e.Code = Ambiguous, codeUnreadable
	case a.Empty && a.Known && a.Op != opList && a.StatusCode == http.StatusNotFound: // Defender itself answers so, too ([live])
		e.Class, e.Empty, e.Message = NotFound, true, "HTTP 404 without a body"
	case a.Envelope == nil:
		notDefender(e)
	case a.StatusCode == http.StatusForbidden:
		forbidden(a, e)
	case a.StatusCode == http.StatusNotFound:
		e.Class = NotFound
	case a.Op == opUnrestrict && underWay(a):
		e.Class = Conflict
	default:
		e.Class = Rejected
	}
}

func notDefender(e *Error) {
	e.Class, e.Code = System, codeNotDefender
	e.Message = fmt.Sprintf("HTTP %d without Defender's error body", e.StatusCode)
	e.Reason = fmt.Sprintf("Something other than Defender answers (HTTP %d without its error body): check DEFENDER_API_URL and the proxy.", e.StatusCode)
}

// unauthorized applies without the envelope too: gateways refuse tokens with an empty body.
func unauthorized(a Answer, e *Error) {
	e.Class = System
	if !a.TokenFresh {
		e.Class = Reauthenticate
		return
	}
	e.Reason = "The API refuses a fresh token (HTTP 401): check DEFENDER_SCOPE, DEFENDER_CLOUD and the tenant that the token is from."
}

// lacksPermission matches the known wordings ("Missing application roles. API required roles: ...", "does not have any
// of the required application permissions") and likely variants: the text is free and can change.
var lacksPermission = regexp.MustCompile(`(?i)` +
	`\b(missing|required?|requires|lacks?|lacking|insufficient|not have|n't have|not granted|not assigned|no)\b.*\b(roles?|permissions?|scopes?|privileges?)\b|` +
	`\b(roles?|permissions?|scopes?|privileges?)\b.*\b(missing|required|insufficient|not granted|not assigned)\b`)

func forbidden(a Answer, e *Error) {
	named := lacksPermission.MatchString(a.Envelope.wording())
	switch {
	case a.Op != opUnrestrict:
		e.Class = System
		e.Reason = "Looking up machine actions is refused (HTTP 403): grant the app Machine.Read.All or Machine.ReadWrite.All and consent to it. " + e.Message
	case named:
		e.Class = System
		e.Reason = "The token lacks a permission (HTTP 403): grant the app Machine.RestrictExecution and consent to it. " + e.Message
	case !a.TokenAccepted:
		e.Class = System
		e.Reason = "The API refuses the call (HTTP 403) and has accepted none with this token yet: " +
			"check that the app has Machine.RestrictExecution and that the token's audience (DEFENDER_SCOPE) fits. " + e.Message
	default:
		e.Class = Rejected
	}
}

// underWay reports whether the answer says that the machine has such an action already ([doc]
// unrestrict-code-execution.md, run-live-response.md).
func underWay(a Answer) bool {
	if a.StatusCode != http.StatusBadRequest && a.StatusCode != http.StatusConflict {
		return false
	}
	return a.Envelope.Code == "ActiveRequestAlreadyExists" ||
		strings.Contains(strings.ToLower(a.Envelope.wording()), "already in progress")
}
