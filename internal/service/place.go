package service

import (
	"time"

	"example.com/unrestrict-worker/internal/admin"
	"example.com/unrestrict-worker/internal/ledger"
	"example.com/unrestrict-worker/internal/message"
)

// Place is where a request waits and when its call is expected: the object `queue` of docs/lanes.md, the same wherever a waiting
// request is shown. Either both times are there, or why they are not.
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
	WaitClosed           = "closed" // after a 429; until says for how long
	WaitSystemFault      = "systemFault"
	WaitNoLimit          = "noLimit" // it is called at once
	WaitAwaitingApproval = "awaitingApproval"
	WaitHeld             = "held"  // its batch is paused
	WaitOwn              = "own"   // a fault or a busy machine of its own; notBefore says until when at least
	WaitTaken            = "taken" // it waits no longer
)

// Own is the place of a request with that entry: what holds up this one alone comes before what holds up all.
func (p Place) Own(e *ledger.Entry, now time.Time) Place {
	why, notBefore := itself(e, now)
	if why == "" {
		return p
	}
	without := Place{Lane: p.Lane, Ahead: p.Ahead, Unavailable: why, NotBefore: notBefore}
	if why == WaitTaken {
		without.Ahead = 0
	}
	return without
}

// itself is why a request has no time whatever holds up the others. An entry says so: nil is a request that nobody has taken.
func itself(e *ledger.Entry, now time.Time) (why string, notBefore time.Time) {
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
	case e.LastError != nil && e.LastError.Origin == message.OriginWorker: // a busy machine, or what is to be stored never fits
		return WaitOwn, now
	}
	return "", time.Time{}
}

// When says it in words that follow "the request".
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
