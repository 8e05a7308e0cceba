package intake

import (
	"encoding/json"
	"math"
	"net/http"
	"strconv"
	"time"

	"example.com/unrestrict-worker/internal/message"
)

// problem is an error answer in the form of RFC 9457. It repeats nothing of what was sent.
type problem struct {
	Type   string `json:"type"`
	Title  string `json:"title"`
	Status int    `json:"status"`
	Code   string `json:"code"`
	Field  string `json:"field,omitempty"`
	Row    int    `json:"row,omitempty"`    // the first line of the batch's row that it is about
	Stored *int   `json:"stored,omitempty"` // rows of a batch that are stored
	Detail string `json:"detail,omitempty"`

	retry  time.Duration // Retry-After; 0: none
	header [2]string     // another header, "" for none
}

// Codes that are the intake's own; the other codes of problems are those of message.Invalid.
const (
	codeUnauthenticated = "unauthenticated"
	codeForbidden       = "forbidden"
	codeUnknownRequest  = "unknownRequest"
	codeUnknownBatch    = "unknownBatch"
	codeNotFound        = "notFound"
	codeMethod          = "methodNotAllowed"
	codeMediaType       = "mediaType"
	codeTooMany         = "tooMany"
	codeNotQueued       = "notQueued"
	codeUnknown         = "unknown"
	codeIssuer          = "issuer"
	codeUnavailable     = "unavailable"
)

// runbook is where each code has its anchor.
const runbook = "https://example.com/unrestrict-worker/docs/runbook.md#intake-"

// problems has the status of each code, and its meaning in general.
func problems() map[string]problem {
	return map[string]problem{
		message.CodeMalformed:      {Status: http.StatusBadRequest, Title: "The request is malformed"},
		codeUnauthenticated:        {Status: http.StatusUnauthorized, Title: "It is not known who asks"},
		codeForbidden:              {Status: http.StatusForbidden, Title: "The client may not do this"},
		codeUnknownRequest:         {Status: http.StatusNotFound, Title: "The client has no request of this id"},
		codeUnknownBatch:           {Status: http.StatusNotFound, Title: "The client has no batch of this name"},
		codeNotFound:               {Status: http.StatusNotFound, Title: "There is nothing here"},
		codeMethod:                 {Status: http.StatusMethodNotAllowed, Title: "This can't be done here"},
		message.CodeTooLarge:       {Status: http.StatusRequestEntityTooLarge, Title: "The body is too large"},
		codeMediaType:              {Status: http.StatusUnsupportedMediaType, Title: "The body is of a type that is not taken"},
		message.CodeIDConflict:     {Status: http.StatusUnprocessableEntity, Title: "The id names another request"},
		message.CodeExpired:        {Status: http.StatusUnprocessableEntity, Title: "The request has expired"},
		message.CodeExpiresTooLate: {Status: http.StatusUnprocessableEntity, Title: "The request ends too late"},
		message.CodeUnsigned:       {Status: http.StatusUnprocessableEntity, Title: "The request is not signed"},
		message.CodeUnknownSigner:  {Status: http.StatusUnprocessableEntity, Title: "The signer is not trusted"},
		message.CodeBadSignature:   {Status: http.StatusUnprocessableEntity, Title: "The signature is wrong"},
		codeTooMany:                {Status: http.StatusTooManyRequests, Title: "The client asks too often"},
		codeNotQueued:              {Status: http.StatusServiceUnavailable, Title: "The request was not stored", retry: retryBroker},
		codeUnknown:                {Status: http.StatusServiceUnavailable, Title: "It is not known whether the request was stored", retry: retryBroker},
		codeIssuer:                 {Status: http.StatusServiceUnavailable, Title: "The token can't be checked now", retry: retryBroker},
		codeUnavailable:            {Status: http.StatusServiceUnavailable, Title: "The broker can't be asked now", retry: retryBroker},
	}
}

// retryBroker is when to try again after a fault that may pass.
const retryBroker = 5 * time.Second

// fault makes the problem of a code.
func fault(code, detail string) *problem {
	p := problems()[code]
	p.Code, p.Type, p.Detail = code, runbook+code, detail
	return &p
}

func (p *problem) with(header, value string) *problem {
	p.header = [2]string{header, value}
	return p
}

func (p *problem) write(w http.ResponseWriter) {
	h := w.Header()
	h.Set("Content-Type", "application/problem+json")
	if p.retry > 0 {
		h.Set("Retry-After", strconv.Itoa(int(math.Ceil(p.retry.Seconds()))))
	}
	if p.header[0] != "" {
		h.Set(p.header[0], p.header[1])
	}
	w.WriteHeader(p.Status)
	_ = json.NewEncoder(w).Encode(p)
}
