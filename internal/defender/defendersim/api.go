package defendersim

import (
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"mime"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"time"
)

const maxBody = 1 << 20

type request struct {
	op    operation
	raw   *http.Request
	body  []byte
	grant *grant // nil: not signed in
}

func (q *request) context(of string) string { return baseURL(q.raw) + "/api/$metadata#" + of }

// serveAPI answers one API request: 401, then 429, then faults, then 403, then
// the operation's own errors.
func (s *Server) serveAPI(w http.ResponseWriter, r *http.Request) {
	// The body is read before anything else: only then does net/http notice that the client went away.
	body, err := io.ReadAll(io.LimitReader(r.Body, maxBody+1))
	if err != nil {
		panic(http.ErrAbortHandler)
	}
	q := &request{op: s.route(r), raw: r, body: body, grant: s.bearer(r)}
	call, fault, rep, refused := s.admit(q)
	if !refused {
		var ok bool
		if rep, ok = s.applyFault(fault, q, s.conf().Latency, func() reply { return s.perform(q) }); !ok {
			panic(http.ErrAbortHandler)
		}
	}
	if fault.Cut != "before" {
		s.gate.answered(call, rep.status)
	}
	w.Header().Set("Date", s.now().Format(http.TimeFormat))
	w.Header().Set("Mise-Correlation-Id", call.CorrelationID)
	if rep.status < 300 {
		w.Header().Set("OData-Version", "4.0")
		if s.conf().Deflate || strings.Contains(r.Header.Get("Accept-Encoding"), "deflate") {
			rep.deflate()
		}
	}
	write(w, rep, fault.Cut)
}

// perform carries the operation out, if the token allows it.
func (s *Server) perform(q *request) reply {
	if q.grant.wrongAudience { // the status is reported, the text [composed]
		return failure(http.StatusForbidden, "Forbidden", "The token's audience is not accepted by this API")
	}
	if len(q.op.roles) > 0 && !slices.ContainsFunc(q.op.roles, func(role string) bool { return slices.Contains(q.grant.roles, role) }) {
		return failure(http.StatusForbidden, "Forbidden", fmt.Sprintf( // [live]
			"Missing application roles. API required roles: %s, application roles: %s.",
			strings.Join(q.op.roles, ","), strings.Join(q.grant.roles, ",")))
	}
	if q.op.action != "" && !guid.MatchString(q.op.action) { // [live]
		return failureFor(fmt.Sprintf("|%08x-%016x.", rand.Uint32(), rand.Uint64()), http.StatusBadRequest, "BadRequest", fmt.Sprintf(
			"The key value (%s) from request is not valid. The key value should be format of type 'Edm.Guid'.", q.op.action))
	}
	if q.raw.Method == http.MethodPost && q.op.name != "" && !isJSONType(q.raw.Header.Get("Content-Type")) { // [doc]: required; the answer is [composed]
		return failure(http.StatusBadRequest, "InvalidRequestBody", "Request body is incorrect")
	}
	return q.op.run(s, q)
}

// isJSONType ignores parameters of the type, such as a charset.
func isJSONType(contentType string) bool {
	kind, _, err := mime.ParseMediaType(contentType)
	return err == nil && kind == "application/json"
}

func (s *Server) machineOf(actionID string) string {
	if a := s.find(actionID); a != nil {
		return a.machineID
	}
	return ""
}

func (s *Server) find(actionID string) *action {
	s.book.RLock()
	defer s.book.RUnlock()
	return s.book.byID[actionID]
}

// act creates an action.
func (s *Server) act(q *request) reply {
	comment, scope, bad := q.parameters()
	if bad != nil {
		return *bad
	}
	s.book.Lock()
	defer s.book.Unlock()
	if !s.exists(q.op.machine) {
		return machineNotFound(q)
	}
	now, m := s.now(), s.book.machine(q.op.machine)
	for _, open := range m.stillOpen(now) {
		if open.kind == q.op.kind || s.conf().OneAtATime {
			return s.duplicate(q, m, open, now)
		}
	}
	a := &action{kind: q.op.kind, requestor: q.grant.appID, source: "PublicApi", comment: comment, created: now}
	if scope != "" {
		a.scopeJSON = `"` + scope + `"`
	}
	s.book.add(a, m, q.op.machine, s.plan(m, now))
	return reply{status: http.StatusCreated, body: a.appendEntity(nil, q.context("MachineActions/$entity"), now, s.conf().UnknownFields)}
}

// duplicate answers a call for a machine with an open action. The code is from clients and [doc] run-live-response.md,
// the message from unrestrict-code-execution.md; the answer does not have the open action's id.
func (s *Server) duplicate(q *request, m *machine, open *action, now time.Time) reply {
	m.duplicates++
	status := 0
	switch s.conf().Duplicate {
	case Duplicate201:
		status = http.StatusCreated
	case Duplicate200:
		status = http.StatusOK
	case DuplicateAlternate:
		if m.duplicates%2 == 0 {
			status = http.StatusCreated
		}
	}
	if status == 0 || open.kind != q.op.kind {
		return failure(http.StatusBadRequest, "ActiveRequestAlreadyExists", "Action is already in progress")
	}
	return reply{status: status, body: open.appendEntity(nil, q.context("MachineActions/$entity"), now, s.conf().UnknownFields)}
}

// parameters reads the body. Names are case-sensitive ([doc] common-errors.md).
func (q *request) parameters() (comment, scope string, bad *reply) {
	refuse := func(code, message string) (string, string, *reply) {
		rep := failure(http.StatusBadRequest, code, message)
		return "", "", &rep
	}
	var body map[string]json.RawMessage
	if len(q.body) > maxBody || json.Unmarshal(q.body, &body) != nil ||
		!text(body["Comment"], &comment) || !text(body[q.op.choice.name], &scope) {
		return refuse("InvalidRequestBody", "Request body is incorrect")
	}
	if strings.TrimSpace(comment) == "" { // empty or blank: [composed]
		return refuse("MissingRequiredParameter", "Parameter Comment is missing.")
	}
	switch of := q.op.choice; {
	case of.name == "":
		return comment, "", nil
	case scope == "":
		return refuse("MissingRequiredParameter", "Parameter "+of.name+" is missing.")
	case !slices.Contains(of.values, scope):
		return refuse("InvalidInput", of.name+" is none of "+strings.Join(of.values, ", ")) // [composed]
	}
	return comment, scope, nil
}

// text decodes an optional string; false: the value has another type.
func text(raw json.RawMessage, into *string) bool {
	return raw == nil || json.Unmarshal(raw, into) == nil
}

// exists reports whether calls may name the machine. Caller holds the lock.
func (s *Server) exists(id string) bool {
	if m := s.book.machines[id]; m != nil && m.known {
		return true
	}
	return s.conf().AllowUnknownMachines && len(id) == 40 && strings.Trim(id, "0123456789abcdef") == ""
}

func (s *Server) getAction(q *request) reply {
	a, now := s.find(q.op.action), s.now()
	if a == nil || a.created.Add(s.conf().ListLag).After(now) {
		return actionNotFound(q)
	}
	return reply{status: http.StatusOK, body: a.appendEntity(nil, q.context("MachineActions/$entity"), now, s.conf().UnknownFields)}
}

var guid = regexp.MustCompile(`^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$`)

func actionNotFound(q *request) reply {
	return failure(http.StatusNotFound, "ResourceNotFound", "Machine action "+q.op.action+" was not found")
}

// cancel ends an open action; the reply has the same id. The answer for a finished one is [composed].
func (s *Server) cancel(q *request) reply {
	comment, _, bad := q.parameters()
	if bad != nil {
		return *bad
	}
	s.book.Lock()
	defer s.book.Unlock()
	a, now := s.book.byID[q.op.action], s.now()
	if a == nil {
		return actionNotFound(q)
	}
	old := a.fate.Load()
	if old.finished(now) {
		return failure(http.StatusBadRequest, "BadRequest", "Machine action is already in its final status "+old.final)
	}
	begins := old.begins
	if begins.After(now) {
		begins = time.Time{}
	}
	cancelled := fate{begins: begins, ends: now, final: "Cancelled", cancelledBy: q.grant.appID, comment: comment}
	a.fate.Store(&cancelled)
	switch rep := (reply{status: http.StatusOK, body: a.appendEntity(nil, q.context("MachineActions/$entity"), now, s.conf().UnknownFields)}); s.conf().Cancel {
	case CancelIgnored:
		a.fate.Store(old)
		return rep
	case CancelLate:
		late := cancelled
		late.begins, late.ends = old.begins, old.ends // the machine carries it out, though the status is Cancelled
		a.fate.Store(&late)
		return rep
	default:
		return rep
	}
}
