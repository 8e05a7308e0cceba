package defendersim

import (
	"net/http"
	"slices"
	"strings"
)

// operation is what a request asks for.
type operation struct {
	name    string   // as in Fault.Op; "": no such path
	kind    string   // type of the action to create
	choice  choice   // of the body, besides Comment
	machine string   // lower case; for get and cancel the action's
	action  string   // lower case
	roles   []string // application roles; the token needs one of them
	success int
	run     func(*Server, *request) reply
}

// choice is a parameter of the body that takes one of a few values and becomes the action's scope; "": there is none.
type choice struct {
	name   string
	values []string
}

// route is a method and a path with its operation. {machine} is an id, Defender's or Entra's; {device} may be a DNS name
// too; {action} is an action's id; a part that ends in a parenthesis is a function, whatever its arguments.
type route struct {
	method, path string
	operation
}

// compiled is a route with the parts of its path.
type compiled struct {
	route
	parts []string
}

// routes is the API, as far as it is simulated. [doc]: each operation's page; the paths match in any case.
func routes() []route {
	get, post, reading := http.MethodGet, http.MethodPost, []string{"Machine.Read.All", "Machine.ReadWrite.All"}
	act := func(name, kind, role string, of ...string) operation {
		op := operation{name: name, kind: kind, roles: []string{role}, success: http.StatusCreated, run: (*Server).act}
		if len(of) > 0 {
			op.choice = choice{of[0], of[1:]}
		}
		return op
	}
	read := func(name string, run func(*Server, *request) reply) operation {
		return operation{name: name, roles: reading, success: http.StatusOK, run: run}
	}
	other := func(name string, roles ...string) operation {
		return operation{name: name, roles: roles, success: http.StatusCreated, run: (*Server).refuse}
	}
	return []route{
		{post, "machines/{machine}/unrestrictcodeexecution", act("unrestrict", "UnrestrictCodeExecution", "Machine.RestrictExecution")},
		{post, "machines/{machine}/restrictcodeexecution", act("restrict", "RestrictCodeExecution", "Machine.RestrictExecution")},
		{post, "machines/{machine}/isolate", act("isolate", "Isolate", "Machine.Isolate", "IsolationType", "Full", "Selective", "UnManagedDevice")},
		{post, "machines/{machine}/unisolate", act("unisolate", "Unisolate", "Machine.Isolate")},
		{post, "machines/{machine}/runantivirusscan", act("scan", "RunAntiVirusScan", "Machine.Scan", "ScanType", "Quick", "Full")},
		{post, "machines/{machine}/offboard", other("offboard", "Machine.Offboard")},
		{post, "machines/{machine}/collectinvestigationpackage", other("collect", "Machine.CollectForensics")},
		{post, "machines/{machine}/stopandquarantinefile", other("quarantine", "Machine.StopAndQuarantine")},
		{post, "machines/{machine}/runliveresponse", other("liveresponse", "Machine.LiveResponse")},
		{post, "machines/{machine}/startinvestigation", operation{name: "investigate", roles: []string{"Alert.ReadWrite.All"}, success: http.StatusCreated, run: (*Server).investigate}},
		{get, "machines", read("machines", (*Server).listMachines)},
		{get, "machines/findbyip(", read("findbyip", (*Server).findByIP)},
		{get, "machines/{device}", read("machine", (*Server).getMachine)},
		{get, "machineactions", read("list", (*Server).list)},
		{get, "machineactions/{action}", read("get", (*Server).getAction)},
		{post, "machineactions/{action}/cancel", operation{name: "cancel", success: http.StatusOK, run: (*Server).cancel, roles: []string{
			"Machine.CollectForensics", "Machine.Isolate", "Machine.RestrictExecution", "Machine.Scan", "Machine.Offboard",
			"Machine.StopAndQuarantine", "Machine.LiveResponse", // [doc] cancel-machine-action.md
		}}},
		{get, "alerts", operation{name: "alerts", roles: []string{"Alert.Read.All", "Alert.ReadWrite.All"}, success: http.StatusOK, run: (*Server).listAlerts}},
		{post, "indicators", operation{name: "indicator", roles: []string{"Ti.ReadWrite", "Ti.ReadWrite.All"}, success: http.StatusOK, run: (*Server).indicate}},
	}
}

// compile makes the routes ready to be matched.
func compile(table []route) (out []compiled) {
	for _, r := range table {
		out = append(out, compiled{r, strings.Split(r.path, "/")})
	}
	return out
}

// operationNames are the values of Fault.Op.
func operationNames() []string {
	names := []string{"token"}
	for _, r := range routes() {
		names = append(names, r.name)
	}
	return names
}

// route finds the operation, with or without v1.0 in the path. An unknown resource or method is answered without a body
// ([live]).
func (s *Server) route(r *http.Request) operation {
	path := strings.Trim(strings.TrimPrefix(strings.ToLower(r.URL.Path), "/api/"), "/")
	parts := strings.Split(strings.TrimPrefix(path, "v1.0/"), "/")
	var allowed []string
	for i := range s.paths {
		op, fits := s.match(&s.paths[i], parts)
		if fits && s.paths[i].method == r.Method {
			return op
		}
		if fits {
			allowed = append(allowed, s.paths[i].method)
		}
	}
	none := reply{status: http.StatusNotFound}
	if len(allowed) > 0 {
		none.status = http.StatusMethodNotAllowed
		none.set("Allow", strings.Join(slices.Compact(allowed), ", "))
	}
	return operation{success: http.StatusOK, run: func(*Server, *request) reply { return none }}
}

func (s *Server) match(r *compiled, parts []string) (op operation, fits bool) {
	want := r.parts
	if len(want) != len(parts) {
		return op, false
	}
	for i, part := range parts {
		variable := want[i][0] == '{' || strings.HasSuffix(want[i], "(") && strings.HasPrefix(part, want[i])
		if part != want[i] && !variable {
			return op, false
		}
	}
	op = r.operation
	switch {
	case len(want) == 1:
	case want[1] == "{action}":
		op.action, op.machine = parts[1], s.machineOf(parts[1])
	case want[1][0] == '{':
		op.machine = s.book.resolve(parts[1], want[1] == "{device}")
	}
	return op, true
}
