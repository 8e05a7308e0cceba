package message

import (
	"errors"

	"example.com/unrestrict-worker/internal/defender"
)

// Codes of the worker's own (docs/messages.md).
const (
	CodeIDConflict      = "idConflict"
	CodeExpired         = "expired"
	CodeTooOld          = "tooOld"
	CodeGaveUp          = "gaveUp"
	CodeFateUnknown     = "fateUnknown"
	CodeTrackTimeout    = "trackTimeout"
	CodeActionVanished  = "actionVanished"
	CodeRestrictedAgain = "restrictedAgain"
	CodePolicy          = "policy"
	CodeCancelled       = "cancelledByRequest"
	CodeBatchCancelled  = "batchCancelled"
	CodeDenied          = "denied"
	CodeApprovalExpired = "approvalExpired"
)

// Origins of a Failure.
const (
	OriginRequest  = "request"
	OriginDefender = "defender"
	OriginWorker   = "worker"
)

// Failure is what went wrong, in the form that results show.
type Failure struct {
	Code       string `json:"code"`
	Message    string `json:"message"`
	HTTPStatus int    `json:"httpStatus,omitempty"` // 0: there was no answer
	Origin     string `json:"origin"`               // request, defender or worker
}

// MaxMessage bounds error.message in characters, so that a result without its action fits into any message.
const MaxMessage = 4000

// ShortError is the failure with a message of at most MaxMessage characters; nil of nil.
func ShortError(f *Failure) *Failure {
	if f == nil {
		return nil
	}
	short := *f
	short.Message = Shorten(short.Message, MaxMessage)
	return &short
}

// Label is the code as a metric has it: what others choose must not become time series without end.
func (f *Failure) Label() string {
	if f.Origin == OriginDefender {
		return defender.CodeLabel(f.Code)
	}
	return f.Code
}

// ErrTooLarge is a write that can never succeed: the broker takes no message of that size, however often it is tried. It is
// its request's own failure, and no fault of the system.
var ErrTooLarge = errors.New("larger than the broker takes")

// Unverified says whether nobody vouches for a message that is refused: it has no valid form or no valid signature, and
// no signer. Whoever may publish can send any number of them, so what each leaves behind is bounded (ADR 14).
func (i *Invalid) Unverified(r Request) bool {
	switch i.Code {
	case CodeMalformed, CodeTooLarge, CodeUnsigned, CodeUnknownSigner, CodeBadSignature:
		return r.SignedBy == ""
	}
	return false
}
