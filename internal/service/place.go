package service

import (
	"time"

	"example.com/unrestrict-worker/internal/admin"
	"example.com/unrestrict-worker/internal/ledger"
	"example.com/unrestrict-worker/internal/message"
)

// Place is where a request waits and when its call is expected: the object `queue` of docs/lanes.md, the same wherever a waiting
// request is shown. It has either both times, or the reason why not.
type Place struct {
	Lane        message.Lane `json:"lane"`
	Ahead       int          `json:"ahead"` // calls made before this one, as of now
	Before      int          `json:"-"`     // of its lane
	ExpectedAt  time.Time    `json:"expectedAt,omitzero"`
	LatestAt    time.Time    `json:"latestAt,omitzero"`
	AsOf        time.Time    `json:"asOf,omitzero"`
	Unavailable string       `json:"unavailable,omitempty"`
	Until       time.Time    `json:"until,omitzero"`
	NotBefore   time.Time    `json:"notBefore,omitzero"`
}

// Why a Place has no times.
const (
	WaitPaused           = "paused"
	WaitClosed           = "closed" // after a 429; until is its end
	WaitSystemFault      = "systemFault"
	WaitNoLimit          = "noLimit" // it is called at once
	WaitAwaitingApproval = "awaitingApproval"
	WaitHeld             = "held"  // its batch is paused
	WaitOwn              = "own"   // a fault or a busy machine of its own; notBefore is the earliest next attempt
	WaitTaken            = "taken" // it no longer waits
)

// Own returns the place of a request with that entry. What holds up this request alone takes precedence over what holds up all.
func (p Place) Own(e *ledger.Entry, now time.Time) Place {
	why, notBefore := ownReason(e, now)
	if why == "" {
		return p
	}
	without := Place{Lane: p.Lane, Ahead: p.Ahead, Unavailable: why, NotBefore: notBefore}
	if why == WaitTaken {
		without.Ahead = 0
	}
	return without
}

// ownReason returns why this request has no expected time, whatever holds up the others. It reads that from the entry; nil is a
// request that no worker has taken.
func ownReason(e *ledger.Entry, now time.Time) (why string, notBefore time.Time) {
	switch {
	case e == nil:
		return "", time.Time{}
	case e.State != ledger.StateWaiting:
		return WaitTaken, time.Time{}
	case e.Awaits():
		return WaitAwaitingApproval, time.Time{}
	case e.LastError != nil && e.LastError.Origin == message.OriginWorker && e.LastError.Code == WaitHeld:
		return WaitHeld, time.Time{}
	case e.NotBefore.After(now):
		return WaitOwn, e.NotBefore
	case e.LastError != nil && e.LastError.Origin == message.OriginWorker: // a busy machine, or a message about it that fits into no stream
		return WaitOwn, now
	}
	return "", time.Time{}
}

// When describes the place in words that follow "the request".
func (p Place) When() string {
	switch p.Unavailable {
	case "":
	case WaitNoLimit:
		return "is called as soon as a worker has a slot: there is no limit of calls"
	case WaitClosed:
		return "waits, for the API throttles" + upTo(p.Until)
	case WaitPaused:
		return "waits, for the worker is paused" + upTo(p.Until)
	case WaitAwaitingApproval:
		return "waits for approval"
	case WaitHeld:
		return "waits, for its batch is paused"
	case WaitOwn:
		return "waits for a fault or a busy machine of its own, and is not tried again before " + admin.Clock(p.NotBefore)
	case WaitTaken:
		return "waits no longer: it is taken"
	default:
		return "waits for a fault of the system to end; `worker status` names it"
	}
	text := "is expected to be called at " + admin.Clock(p.ExpectedAt)
	if !p.ExpectedAt.After(p.AsOf) {
		text = "is called now"
	}
	if p.LatestAt.Sub(p.ExpectedAt) >= time.Second {
		text += " (" + admin.Clock(p.LatestAt) + " at the latest)"
	}
	return text
}

func upTo(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return " until " + admin.Clock(t)
}
