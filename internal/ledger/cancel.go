package ledger

import (
	"time"

	"example.com/unrestrict-worker/internal/message"
)

// Cancel is an order to cancel a run, stored once the run has read it.
type Cancel struct {
	By      string    `json:"by,omitempty"` // the signer's name, or the client's without one
	At      time.Time `json:"at"`           // when the order was stored, by the broker's clock
	Reason  string    `json:"reason,omitempty"`
	Order   string    `json:"order"`             // STREAM:SEQ
	Batch   string    `json:"batch,omitempty"`   // the batch that the order cancels
	Actions bool      `json:"actions,omitempty"` // whether the API is asked to cancel the action too

	Asked      int       `json:"asked,omitempty"` // how often the API was asked
	AskedAt    time.Time `json:"askedAt,omitzero"`
	HTTPStatus int       `json:"httpStatus,omitempty"` // the last answer
}

// Result returns the order as results show it; nil for nil.
func (c *Cancel) Result() *message.CancelRequested {
	if c == nil {
		return nil
	}
	return &message.CancelRequested{By: c.By, At: c.At, Reason: c.Reason, HTTPStatus: c.HTTPStatus}
}
