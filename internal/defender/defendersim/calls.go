package defendersim

import (
	"math/rand/v2"
	"net/http"
	"sync"
	"time"
)

// Call is one API request as it was received and answered.
type Call struct {
	At      time.Time `json:"at"` // our clock
	Op      string    `json:"op"` // as in Fault.Op; "": no such path
	Method  string    `json:"method"`
	Path    string    `json:"path"`
	Query   string    `json:"query,omitempty"`   // as sent
	Machine string    `json:"machine,omitempty"` // lower case; a list has none
	Status  int       `json:"status"`            // answered; 0: not yet, cut before an answer, or hanging
	Counted bool      `json:"counted"`           // in the rate windows
	// CorrelationID is the Mise-Correlation-Id of the answer.
	CorrelationID string `json:"correlationId"`
}

// gate is what each request passes: the call log, the windows and the faults, under one lock, so that everything about
// a request is decided at one time.
type gate struct {
	sync.Mutex
	window        window
	closedUntil   time.Duration // by the CPU quota
	faults        []*Fault
	calls         []*Call
	tokenRequests int
	dice          *rand.Rand
}

// admit logs the request and decides about it: it is refused (with that reply), or admitted, with the fault that
// applies to it.
func (s *Server) admit(q *request) (call *Call, f Fault, refusal reply, refused bool) {
	s.gate.Lock()
	defer s.gate.Unlock()
	now := time.Since(s.start)
	call = &Call{
		At: s.start.Add(now), Op: q.op.name, Method: q.raw.Method, Path: q.raw.URL.Path,
		Query: q.raw.URL.RawQuery, Machine: q.op.machine, CorrelationID: newGUID(rand.Uint64),
	}
	s.gate.log(call, s.conf().CallLog)
	if q.grant == nil {
		rep := failure(http.StatusUnauthorized, "Unauthorized", "Invalid or expired authorization header")
		rep.set("WWW-Authenticate", "Bearer") // [composed]
		return call, f, rep, true
	}
	if wait := s.gate.closedUntil - now; wait > 0 {
		return call, f, cpuExceeded(wait, s.tenant()), true
	}
	if l, wait := s.gate.window.full(now); wait > 0 {
		s.gate.window.refused++
		return call, f, quotaExceeded(l, wait, s.tenant()), true
	}
	f = s.gate.pick(q)
	if f.Status != http.StatusUnauthorized && f.Status != http.StatusTooManyRequests {
		s.gate.window.accept(now)
		call.Counted = true
	}
	return call, f, reply{}, false
}

func (g *gate) log(c *Call, keep int) {
	if keep < 0 {
		return
	}
	if keep > 0 && len(g.calls) >= 2*keep {
		g.calls = append([]*Call(nil), g.calls[len(g.calls)-keep+1:]...)
	}
	g.calls = append(g.calls, c)
}

// answered must be called before the answer is written, so that a client that has read the answer finds it in Calls.
func (g *gate) answered(c *Call, status int) {
	g.Lock()
	defer g.Unlock()
	c.Status = status
}

// Calls returns the API requests seen, in order of arrival; those to the
// authority are not among them.
func (s *Server) Calls() []Call {
	s.gate.Lock()
	defer s.gate.Unlock()
	from := 0
	if keep := s.conf().CallLog; keep > 0 {
		from = max(0, len(s.gate.calls)-keep)
	}
	out := make([]Call, 0, len(s.gate.calls)-from)
	for _, c := range s.gate.calls[from:] {
		out = append(out, *c)
	}
	return out
}
