package ledger

import (
	"time"

	"example.com/unrestrict-worker/internal/message"
)

// Cancel is an order to cancel a run, as far as the run has met it.
type Cancel struct {
	By      string    `json:"by,omitempty"` // the signer's name, else the client's
	At      time.Time `json:"at"`           // when the order was stored, by the broker's clock
	Reason  string    `json:"reason,omitempty"`
	Order   string    `json:"order"`             // STREAM:SEQ
	Batch   string    `json:"batch,omitempty"`   // it was about this batch
	Actions bool      `json:"actions,omitempty"` // the API is to be asked too

	Asked      int       `json:"asked,omitempty"` // how often the API was asked
	AskedAt    time.Time `json:"askedAt,omitzero"`
	HTTPStatus int       `json:"httpStatus,omitempty"` // the last answer
}

// Result is the order as results show it; nil of nil.
func (c *Cancel) Result() *message.CancelRequested {
	if c == nil {
		return nil
	}
	return &message.CancelRequested{By: c.By, At: c.At, Reason: c.Reason, HTTPStatus: c.HTTPStatus}
}
