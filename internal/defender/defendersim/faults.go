package defendersim

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"
)

// Fault is one misbehaviour. The first of the injected faults that fits a request applies to it, and no other. Faults
// come after the token (401) and the rate windows (429) and before everything else.
//
// With none of Status, Body, Cut and Hang the API's own answer is sent, late (Latency) or with other headers. With one
// of them the call is refused, unless CarriedOut.
type Fault struct {
	Op          string  // a name in the table of routes, or token (the token endpoint); "": every API call
	Machine     string  // only this machine (a list: one whose query names it); "": any
	Times       int     // how often; 0: until cleared
	Probability float64 // 0: always

	Status        int // 0: as the API would have answered in case of success
	Code, Message string
	Body          []byte // instead of an error made of Code and Message, at the token endpoint too. Empty but not nil: no body
	Header        http.Header
	RetryAfter    time.Duration // as a Retry-After header; with 429 in the message too

	// Latency delays the answer. The call takes effect after it, and not at all if the client disconnects meanwhile;
	// with CarriedOut it takes effect before it.
	Latency time.Duration
	// CarriedOut: the call takes effect although the answer is the fault. With a 2xx Status and no Body the real body
	// is sent.
	CarriedOut bool
	// Cut closes the connection: "before" an answer, after the status line ("headers"), or amid the "body". With "stall" half
	// of the body is sent, and nothing more until the client disconnects or the Server is closed.
	Cut string
	// Hang: no answer until the client disconnects or the Server is closed.
	Hang bool
}

// Inject adds a fault after the existing ones.
func (s *Server) Inject(f Fault) {
	f.Machine = strings.ToLower(f.Machine)
	s.gate.Lock()
	defer s.gate.Unlock()
	s.gate.faults = append(s.gate.faults, &f)
}

// ClearFaults removes all faults; requests that one already applies to are not affected.
func (s *Server) ClearFaults() {
	s.gate.Lock()
	defer s.gate.Unlock()
	s.gate.faults = nil
}

// check returns what is invalid in a fault that came over the control API.
func (f Fault) check() error {
	if f.Op != "" && !slices.Contains(operationNames(), f.Op) {
		return fmt.Errorf("op %q is unknown", f.Op)
	}
	switch f.Cut {
	case "", "before", "headers", "body", "stall":
	default:
		return fmt.Errorf("cut %q is none of before, headers, body, stall", f.Cut)
	}
	if f.Status != 0 && (f.Status < 200 || f.Status > 599) {
		return fmt.Errorf("status %d is not one from 200 to 599", f.Status)
	}
	if f.Probability < 0 || f.Probability > 1 || f.Times < 0 {
		return fmt.Errorf("probability must be 0 to 1, times not negative")
	}
	return nil
}

func (f Fault) fits(q *request) bool {
	switch {
	case f.Op != q.op.name && (f.Op != "" || q.op.name == "token"):
		return false
	case f.Machine == "":
		return true
	case q.op.name == "list":
		return strings.Contains(strings.ToLower(q.raw.URL.RawQuery), f.Machine)
	}
	return f.Machine == q.op.machine
}

// pick returns the first fault that fits, and counts its Times down. The zero Fault is none.
func (g *gate) pick(q *request) Fault {
	for i, f := range g.faults {
		if !f.fits(q) || f.Probability > 0 && g.dice.Float64() >= f.Probability {
			continue
		}
		if f.Times > 0 {
			if f.Times--; f.Times == 0 {
				g.faults = slices.Delete(g.faults, i, i+1)
			}
		}
		return *f
	}
	return Fault{}
}

// refuses reports whether the call has no effect, because the answer is not the API's own.
func (f Fault) refuses() bool {
	return !f.CarriedOut && (f.Status != 0 || f.Body != nil || f.Cut != "" || f.Hang)
}

// applyFault waits, calls perform when the call is to take effect, and returns the answer; false: there is no client
// left to answer.
func (s *Server) applyFault(f Fault, q *request, base time.Duration, perform func() reply) (reply, bool) {
	var rep reply
	if f.CarriedOut {
		rep = perform()
	}
	if !s.sleep(q.raw, base+f.Latency) {
		return rep, false
	}
	switch {
	case f.Hang:
		s.hang(q.raw)
		return rep, false
	case f.refuses():
		rep = reply{status: q.op.success}
	case !f.CarriedOut:
		rep = perform()
	}
	return s.disguise(f, q, rep), true
}

// hang waits until the client disconnects or the Server is closed.
func (s *Server) hang(r *http.Request) {
	select {
	case <-r.Context().Done():
	case <-s.done:
	}
}

// disguise turns the API's own answer into the fault's.
func (s *Server) disguise(f Fault, q *request, rep reply) reply {
	if f.Status >= 300 {
		rep = s.faultError(f, q)
	} else if f.Status != 0 {
		rep.status = f.Status
	}
	if f.Body != nil {
		rep.body = f.Body
		if len(f.Body) > 0 && !isJSON(f.Body) {
			rep.set("Content-Type", "text/html; charset=utf-8")
		}
	}
	rep.retryAfter(f.RetryAfter)
	rep.hang = func() { s.hang(q.raw) }
	for name, values := range f.Header {
		rep.set(name, strings.Join(values, ", "))
	}
	return rep
}

func (s *Server) faultError(f Fault, q *request) reply {
	if q.op.name == "token" && f.Status < 500 {
		return oauthFailure(f.Status, or(f.Code, "invalid_client"), 7000215, or(f.Message, "Invalid client secret provided."))
	}
	if q.op.name == "token" {
		return oauthFailure(f.Status, or(f.Code, "temporarily_unavailable"), 90033, or(f.Message, "A transient error has occurred. Please try again."))
	}
	code := strings.ReplaceAll(http.StatusText(f.Status), " ", "")
	message := or(f.Message, http.StatusText(f.Status))
	switch f.Status {
	case http.StatusTooManyRequests:
		if f.Message == "" && f.Code == "" {
			return quotaExceeded(Limit{100, time.Minute}, f.RetryAfter, s.tenant())
		}
		code = "429"
	case http.StatusNotFound:
		code, message = "ResourceNotFound", or(f.Message, "Machine "+q.op.machine+" was not found")
	}
	return failure(f.Status, or(f.Code, code), message)
}
