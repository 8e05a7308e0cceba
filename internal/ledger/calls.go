package ledger

import (
	"errors"
	"slices"
	"time"

	"example.com/unrestrict-worker/internal/defender"
)

// Call is one exchange with the API for a run, as the audit trail records it.
type Call struct {
	Time          time.Time `json:"time"`                    // when it began, by this machine's clock
	Operation     string    `json:"operation"`               // unrestrict, list, get, cancel
	Class         string    `json:"class,omitempty"`         // answered, or a defender.Class; "": its end is unknown
	HTTPStatus    int       `json:"httpStatus,omitempty"`    // 0: no answer
	Code          string    `json:"code,omitempty"`          // of the error
	CorrelationID string    `json:"correlationId,omitempty"` // the service's own
}

// maxCalls bounds the exchanges that an entry stores, because a run that waits for long makes many. The latest are kept, and
// POSTs rather than look-ups.
const maxCalls = 16

// Operations of a Call, as defender names them.
const (
	OpUnrestrict = "unrestrict"
	OpList       = "list"
)

// classAnswered is the class of a Call that succeeded.
const classAnswered = "answered"

// Answered reports whether the exchange succeeded.
func (c Call) Answered() bool { return c.Class == classAnswered }

// AppendExchange records a POST together with the intent, before it is sent. So the entry shows the POST even if the process
// dies or the answer is lost.
func (e *Entry) AppendExchange(at time.Time) {
	e.addCall(Call{Time: at, Operation: OpUnrestrict})
}

// DropExchange removes the record of a POST that did not leave this machine.
func (e *Entry) DropExchange() {
	if n := len(e.Calls); n > 0 && e.Calls[n-1].Class == "" {
		e.Calls = e.Calls[:n-1]
	}
}

// CompleteExchange records how the POST of AppendExchange ended.
func (e *Entry) CompleteExchange(x defender.Exchange, err error) {
	e.DropExchange()
	e.AddLook(x, err)
}

// AddLook records a finished exchange.
func (e *Entry) AddLook(x defender.Exchange, err error) {
	c := Call{Class: classAnswered}
	if answer, ok := errors.AsType[*defender.Error](err); ok {
		x, c.Class, c.Code = answer.Exchange, answer.Class.String(), answer.Code
	}
	if x.At.IsZero() {
		return // nothing was sent
	}
	c.Time, c.Operation, c.HTTPStatus, c.CorrelationID = x.At.UTC(), x.Op, x.StatusCode, x.CorrelationID
	e.addCall(c)
}

// LastLook is the latest exchange.
func (e *Entry) LastLook() Call {
	if n := len(e.Calls); n > 0 {
		return e.Calls[n-1]
	}
	return Call{}
}

// AddSharedLook records a look that another run made and whose answer covers this run too.
func (e *Entry) AddSharedLook(c Call) {
	if !slices.Contains(e.Calls, c) {
		e.addCall(c)
	}
}

func (e *Entry) addCall(c Call) {
	for len(e.Calls) >= maxCalls {
		oldest := max(0, slices.IndexFunc(e.Calls, func(c Call) bool { return c.Operation != OpUnrestrict }))
		e.Calls = slices.Delete(slices.Clone(e.Calls), oldest, oldest+1)
		e.CallsOmitted++
	}
	e.Calls = append(e.Calls, c)
}

// CorrelationID is that of the last exchange that has one. Microsoft's support asks for it.
func (e *Entry) CorrelationID() string {
	for _, c := range slices.Backward(e.Calls) {
		if c.CorrelationID != "" {
			return c.CorrelationID
		}
	}
	return ""
}
