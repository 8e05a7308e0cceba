package message

import (
	"errors"

	"example.com/unrestrict-worker/internal/defender"
)

// The worker's own codes (docs/messages.md).
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

// Failure is what went wrong, in the form that results have.
type Failure struct {
	Code       string `json:"code"`
	Message    string `json:"message"`
	HTTPStatus int    `json:"httpStatus,omitempty"` // 0: no answer
	Origin     string `json:"origin"`               // request, defender or worker
}

// MaxMessage bounds error.message in characters, so that a result without its action fits into any message.
const MaxMessage = 4000

// ShortError returns the failure with a message of at most MaxMessage characters; nil for nil.
func ShortError(f *Failure) *Failure {
	if f == nil {
		return nil
	}
	short := *f
	short.Message = Shorten(short.Message, MaxMessage)
	return &short
}

// Label is the code as a metric label: codes that others choose must not create an unlimited number of time series.
func (f *Failure) Label() string {
	if f.Origin == OriginDefender {
		return defender.CodeLabel(f.Code)
	}
	return f.Code
}

// ErrTooLarge is returned for a write that can never succeed, because the broker takes no message of that size. It is a
// failure of its own request, not a fault of the system.
var ErrTooLarge = errors.New("larger than the broker takes")

// Unverified reports whether a refused message has no verified sender: its form or its signature is invalid, and it has no
// signer. Anybody who may publish can send any number of such messages, so what each of them leaves behind is bounded (ADR
// 14).
func (i *Invalid) Unverified(r Request) bool {
	switch i.Code {
	case CodeMalformed, CodeTooLarge, CodeUnsigned, CodeUnknownSigner, CodeBadSignature:
		return r.SignedBy == ""
	}
	return false
}
