package remediation

import (
	"fmt"
	"time"

	"example.com/unrestrict-worker/internal/health"
	"example.com/unrestrict-worker/internal/message"
)

// The breaker trips when several machines in a row get no clear answer. With fewer it may never trip: a queue of two requests, or
// one machine that the API always fails for. Such a request is reported once that repeats, for as long as it lasts.

// unclearRequest is a request that has had only unclear answers to its calls or looks.
type unclearRequest struct {
	id, why string
	since   time.Time
	until   time.Time // without a new try by then another replica has it
}

// unclearAgain bounds the time between two tries, besides the delay of the first: one exchange, and the redelivery.
const unclearAgain = 15 * time.Second

// noteUnclear records whether a step shows clear or unclear answers of the API to this request.
func (p *attempt) noteUnclear(s step) {
	switch {
	case s.do == doWait && (s.cause == "unclear" || s.cause == "lookUpFailed"):
		if p.e.Failures > 0 {
			p.Shared.noteUnclear(p.key, p.e.ID, p.e.LastError, s.after+p.Config.Timeout+unclearAgain)
		}
	case s.up, s.do == doPublish, s.do == doAck:
		p.Shared.noteClear(p.key, s.up)
	}
}

func (n *SharedState) noteUnclear(key, id string, why *message.Failure, d time.Duration) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.unclear == nil {
		n.unclear = map[string]unclearRequest{}
	}
	now := time.Now()
	u := n.unclear[key]
	if u.id == "" || now.After(u.until) {
		u = unclearRequest{id: id, since: now}
	}
	if why != nil {
		u.why = why.Code + ": " + why.Message
	}
	u.until = now.Add(d)
	n.unclear[key] = u
}

// noteClear removes the request. served: the answer shows that the API takes calls.
func (n *SharedState) noteClear(key string, served bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	delete(n.unclear, key)
	if served {
		n.served = time.Now()
	}
}

// Unclear is the condition for those requests. If the API has served no request since the first of them, the fault is the
// API's, and holds up all requests alike.
func (n *SharedState) Unclear() (all []health.Condition) {
	n.mu.Lock()
	defer n.mu.Unlock()
	var first unclearRequest
	for key, u := range n.unclear {
		if time.Now().After(u.until) {
			delete(n.unclear, key)
		} else if first.id == "" || u.since.Before(first.since) {
			first = u
		}
	}
	if first.id == "" {
		return nil
	}
	c := health.New(health.StillUnclear, "")
	whose := "others are served"
	if !n.served.After(first.since) {
		c = health.New(health.UnclearAnswers, "")
		whose = "no request was served since"
	}
	c.Message = fmt.Sprintf("%d requests get no clear answer to their calls, or to the look-ups for them, again and again (%s), as of %s: %s", len(n.unclear), whose, first.id, first.why)
	c.Since, c.Stops = first.since.UTC(), false
	return []health.Condition{c}
}
