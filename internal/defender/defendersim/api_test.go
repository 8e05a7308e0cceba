package defendersim

import (
	"compress/zlib"
	"encoding/json"
	"io"
	"net/http/httptest"
	"regexp"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
)

// anyMachine has no limits and knows every machine.
func anyMachine() Config {
	return Config{AllowUnknownMachines: true, UnknownFields: true, Limits: []Limit{}, Seed: 1}
}

func TestEntityIsLiveShaped(t *testing.T) {
	synctest.Test(t, func(t *testing.T) { // begins at 2000-01-01
		u := newUser(t, anyMachine())
		time.Sleep(1234567 * time.Microsecond)
		a := u.unrestrict(0xab)
		a.want(t, 201, "")
		want := `{"@odata.context":"http://example.com/api/$metadata#MachineActions/$entity","id":"ID","type":"UnrestrictCodeExecution",` +
			`"title":null,"requestor":"2f48b784-5da5-4e61-9957-012d2630f1e4","requestorComment":"release","status":"Pending",` +
			`"machineId":"` + machineID(0xab) + `","computerDnsName":null,"creationDateTimeUtc":"2000-01-01T00:00:01.234567Z",` +
			`"lastUpdateDateTimeUtc":"2000-01-01T00:00:01.234567Z","cancellationRequestor":null,"cancellationComment":null,` +
			`"cancellationDateTimeUtc":null,"errorHResult":0,"scope":null,"externalId":null,"requestSource":"PublicApi",` +
			`"relatedFileInfo":null,"commands":[],"troubleshootInfo":null,"futureField":{"big":123456789012345678901234567890,` +
			`"exp":1.50E+3,"text":"\u00e9","list":[1,{"a":null}]}}`
		id := regexp.MustCompile(`[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}`)
		if d := cmp.Diff(want, id.ReplaceAllStringFunc(a.body, func(s string) string {
			if strings.HasPrefix(s, "2f48b784") {
				return s
			}
			return "ID"
		})); d != "" {
			t.Error(d)
		}
		if got := a.header.Get("Content-Type"); !strings.HasPrefix(got, "application/json") {
			t.Errorf("Content-Type %q", got)
		}
	})
}

func TestTextSurvives(t *testing.T) {
	u := newUser(t, anyMachine())
	u.s.AddMachine(machineID(1), Machine{DNSName: `büro "1"`})
	comment := "Zeile\n\"quoted\" \\ <é&😀>"
	body, _ := json.Marshal(map[string]string{"Comment": comment})
	got := u.post("/api/machines/"+machineID(1)+"/unrestrictCodeExecution", string(body)).json(t)
	if got["requestorComment"] != comment || got["computerDnsName"] != `büro "1"` {
		t.Errorf("comment %q, name %q", got["requestorComment"], got["computerDnsName"])
	}
	if got := u.s.Actions()[0].Comment; got != comment {
		t.Errorf("Actions: comment %q", got)
	}
}

func TestActionKinds(t *testing.T) {
	u := newUser(t, anyMachine(), "Machine.RestrictExecution", "Machine.Isolate", "Machine.Read.All")
	for i, c := range []struct{ path, body, kind, scope string }{
		{"restrictCodeExecution", `{"Comment":"c"}`, "RestrictCodeExecution", ""},
		{"unrestrictCodeExecution", `{"Comment":"c"}`, "UnrestrictCodeExecution", ""},
		{"isolate", `{"Comment":"c","IsolationType":"Selective"}`, "Isolate", "Selective"},
		{"unisolate", `{"Comment":"c"}`, "Unisolate", ""},
	} {
		for _, prefix := range []string{"/api/", "/api/v1.0/"} {
			a := u.post(prefix+"machines/"+strings.ToUpper(machineID(0xa+i)+"")+"/"+c.path, c.body)
			if prefix == "/api/v1.0/" { // both prefixes name the same machine: now it has an open action
				a.want(t, 400, "ActiveRequestAlreadyExists")
				continue
			}
			a.want(t, 201, "")
			scope, _ := a.json(t)["scope"].(string)
			if got := a.json(t); got["type"] != c.kind || scope != c.scope || got["machineId"] != machineID(0xa+i) {
				t.Errorf("%s: %s", c.path, a.body)
			}
		}
	}
}

func TestRefusals(t *testing.T) {
	u := newUser(t, anyMachine())
	target := "/api/machines/" + machineID(1) + "/unrestrictCodeExecution"
	other := newUser(t, Config{}) // knows no machine
	for name, c := range map[string]struct {
		answer     seen
		status     int
		code, says string
	}{
		"no JSON":             {u.post(target, `{"Comment":`), 400, "InvalidRequestBody", "Request body is incorrect"},
		"no object":           {u.post(target, `["Comment"]`), 400, "InvalidRequestBody", "incorrect"},
		"empty body":          {u.post(target, ``), 400, "InvalidRequestBody", "incorrect"},
		"number as comment":   {u.post(target, `{"Comment":7}`), 400, "InvalidRequestBody", "incorrect"},
		"too large":           {u.post(target, `{"Comment":"`+strings.Repeat("x", maxBody)+`"}`), 400, "InvalidRequestBody", "incorrect"},
		"no comment":          {u.post(target, `{}`), 400, "MissingRequiredParameter", "Parameter Comment is missing."},
		"null comment":        {u.post(target, `{"Comment":null}`), 400, "MissingRequiredParameter", "Comment"},
		"blank comment":       {u.post(target, `{"Comment":" "}`), 400, "MissingRequiredParameter", "Comment"},
		"name in lower case":  {u.post(target, `{"comment":"c"}`), 400, "MissingRequiredParameter", "Comment"},
		"short machine id":    {u.post("/api/machines/123123123/unrestrictCodeExecution", `{"Comment":"c"}`), 404, "ResourceNotFound", "Machine 123123123 was not found"},
		"machine of no digit": {u.post("/api/machines/"+strings.Repeat("g", 40)+"/unrestrictCodeExecution", `{"Comment":"c"}`), 404, "ResourceNotFound", "was not found"},
		"unregistered":        {other.unrestrict(1), 404, "ResourceNotFound", "Machine " + machineID(1) + " was not found"},
		"no such machine":     {other.get("/api/machines/" + machineID(1)), 404, "ResourceNotFound", "was not found"},
		"no such action":      {u.get("/api/machineactions/6e5b6c1e-0000-4000-8000-000000000000"), 404, "ResourceNotFound", "was not found"},
		"cancel of none":      {u.post("/api/machineactions/6e5b6c1e-0000-4000-8000-000000000000/cancel", `{"Comment":"c"}`), 404, "ResourceNotFound", "was not found"},
	} {
		t.Run(name, func(t *testing.T) {
			if message := c.answer.want(t, c.status, c.code); !strings.Contains(message, c.says) {
				t.Errorf("message %q, want %q in it", message, c.says)
			}
			target := c.answer.json(t)["error"].(map[string]any)["target"].(string)
			if len(target) != 36 {
				t.Errorf("target %q is no GUID", target)
			}
		})
	}
	if n := len(u.s.Actions()); n != 0 {
		t.Errorf("refused calls made %d actions", n)
	}
}

// TestWithoutBody: Defender's own answers to what is no resource, or has no such method, are empty.
func TestWithoutBody(t *testing.T) {
	u := newUser(t, anyMachine())
	target := "/api/machines/" + machineID(1) + "/unrestrictCodeExecution"
	u.s.Inject(Fault{Op: "unrestrict", Status: 404, Body: []byte{}})
	for name, c := range map[string]struct {
		answer seen
		status int
		allow  string
	}{
		"no such path":  {u.get("/api/software"), 404, ""},
		"GET of a POST": {u.get(target), 405, "POST"},
		"PUT":           {ask(u.s, u.token, "PUT", target, `{"Comment":"c"}`), 405, "POST"},
		"GET of cancel": {u.get("/api/machineactions/6e5b6c1e-0000-4000-8000-000000000000/cancel"), 405, "POST"},
		"injected":      {u.post(target, `{"Comment":"c"}`), 404, ""},
	} {
		h := c.answer.header
		if c.answer.status != c.status || c.answer.body != "" || h.Get("Allow") != c.allow || h.Get("Content-Type") != "" || h.Get("Content-Length") != "0" {
			t.Errorf("%s: %d %q %v", name, c.answer.status, c.answer.body, h)
		}
	}
}

// TestHeaders: what live answers bear. Their correlation id is in the log of calls.
func TestHeaders(t *testing.T) {
	u := newUser(t, anyMachine())
	u.unrestrict(1)
	u.unrestrict(1)
	u.get("/api/machineactions/no-guid").want(t, 400, "BadRequest")
	for i, want := range []struct{ status, version, kind string }{
		{"201", "4.0", "application/json; odata.metadata=minimal; odata.streaming=true; charset=utf-8"}, {"400", "", "application/json; charset=utf-8"},
	} {
		a := []seen{u.unrestrict(2), u.unrestrict(2)}[i]
		if a.header.Get("OData-Version") != want.version || a.header.Get("Content-Type") != want.kind {
			t.Errorf("%s: %v", want.status, a.header)
		}
		calls := u.s.Calls()
		if id := a.header.Get("Mise-Correlation-Id"); len(id) != 36 || id != calls[len(calls)-2+i].CorrelationID {
			t.Errorf("%q is not in the log: %+v", id, calls)
		}
	}
}

// TestDeflate: as live, whoever accepts it gets it; the configuration sends it to all.
func TestDeflate(t *testing.T) {
	for _, always := range []bool{false, true} {
		for _, accepts := range []string{"", "gzip, deflate"} {
			cfg := anyMachine()
			cfg.Deflate = always
			s := New(cfg)
			r := httptest.NewRequest("GET", "/api/machineactions", nil)
			r.Header.Set("Authorization", "Bearer "+s.IssueToken(time.Hour))
			r.Header.Set("Accept-Encoding", accepts)
			w := httptest.NewRecorder()
			s.ServeHTTP(w, r)
			body := io.Reader(w.Body)
			if want := always || accepts != ""; (w.Header().Get("Content-Encoding") == "deflate") != want {
				t.Errorf("always %t, accepts %q: %v", always, accepts, w.Header())
			} else if want {
				z, err := zlib.NewReader(w.Body)
				if err != nil {
					t.Fatal(err)
				}
				body = z
			}
			if text, err := io.ReadAll(body); err != nil || !json.Valid(text) {
				t.Errorf("%q %v", text, err)
			}
		}
	}
}

func TestIsolationType(t *testing.T) {
	u := newUser(t, anyMachine(), "Machine.Isolate")
	target := "/api/machines/" + machineID(1) + "/isolate"
	u.post(target, `{"Comment":"c"}`).want(t, 400, "MissingRequiredParameter")
	u.post(target, `{"Comment":"c","IsolationType":"Half"}`).want(t, 400, "InvalidInput")
	u.post(target, `{"Comment":"c","IsolationType":1}`).want(t, 400, "InvalidRequestBody")
	u.post(target, `{"Comment":"c","IsolationType":"Full"}`).want(t, 201, "")
}

func TestRoles(t *testing.T) {
	s := New(anyMachine())
	post, list, act := "Machine.RestrictExecution", "Machine.Read.All", s.Put(Action{MachineID: machineID(9), Status: "Pending"})
	reading, release := "Machine.Read.All,Machine.ReadWrite.All", "/api/machines/"+machineID(1)+"/unrestrictCodeExecution"
	for _, c := range []struct {
		roles          []string
		method, target string
		status         int
		says           string
	}{
		{[]string{list}, "POST", release, 403, "Missing application roles. API required roles: Machine.RestrictExecution, application roles: Machine.Read.All."},
		{[]string{""}, "POST", release, 403, "Missing application roles. API required roles: Machine.RestrictExecution, application roles: ."},
		{[]string{post}, "POST", release, 201, ""},
		{[]string{"Machine.Isolate", "Machine.Scan"}, "GET", "/api/machineactions", 403, "API required roles: " + reading + ", application roles: Machine.Isolate,Machine.Scan."},
		{[]string{post}, "GET", "/api/machineactions/" + act.ID, 403, "API required roles: " + reading},
		{[]string{post}, "GET", "/api/machines/" + machineID(1), 403, "API required roles: " + reading},
		{[]string{list}, "GET", "/api/machineactions", 200, ""},
		{[]string{"Machine.ReadWrite.All"}, "GET", "/api/machineactions/" + act.ID, 200, ""},
		{[]string{post}, "POST", "/api/machines/" + machineID(1) + "/isolate", 403, "API required roles: Machine.Isolate"},
		{[]string{list}, "POST", "/api/machineactions/" + act.ID + "/cancel", 403, "Machine.CollectForensics,"},
		{[]string{"Machine.LiveResponse"}, "POST", "/api/machineactions/" + act.ID + "/cancel", 200, ""},
	} {
		a := ask(s, s.IssueToken(time.Hour, c.roles...), c.method, c.target, `{"Comment":"c"}`)
		if c.status != 403 {
			a.want(t, c.status, "")
		} else if message := a.want(t, 403, "Forbidden"); !strings.Contains(message, c.says) {
			t.Errorf("%s %s: message %q, want %q", c.method, c.target, message, c.says)
		}
	}
}

func TestDuplicates(t *testing.T) {
	for name, c := range map[string]struct {
		mode     DuplicateMode
		statuses []int // of the second and following calls
	}{
		"400":       {Duplicate400, []int{400, 400}},
		"201":       {Duplicate201, []int{201, 201}},
		"200":       {Duplicate200, []int{200, 200}},
		"alternate": {DuplicateAlternate, []int{400, 201, 400, 201}},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				u := newUser(t, Config{AllowUnknownMachines: true, Limits: []Limit{}, Duplicate: c.mode})
				first := u.unrestrict(1).json(t)["id"]
				for _, status := range c.statuses {
					a := u.unrestrict(1)
					if status == 400 {
						if message := a.want(t, 400, "ActiveRequestAlreadyExists"); message != "Action is already in progress" {
							t.Errorf("message %q", message)
						}
						continue
					}
					a.want(t, status, "")
					if got := a.json(t)["id"]; got != first {
						t.Errorf("answered action %v, want the open one %v", got, first)
					}
				}
				u.unrestrict(2).want(t, 201, "")
				u.post("/api/machines/"+machineID(1)+"/restrictCodeExecution", `{"Comment":"c"}`).want(t, 201, "")
				if n := len(u.s.Actions()); n != 3 {
					t.Errorf("%d actions, want 3", n)
				}
				time.Sleep(time.Minute) // all are over
				u.unrestrict(1).want(t, 201, "")
			})
		})
	}
}

func TestOneAtATime(t *testing.T) {
	u := newUser(t, Config{AllowUnknownMachines: true, OneAtATime: true, Duplicate: Duplicate201})
	u.s.Restrict(machineID(1), "by hand")
	u.unrestrict(1).want(t, 400, "ActiveRequestAlreadyExists") // never the other action
	u.unrestrict(2).want(t, 201, "")
}

func TestMachineEntity(t *testing.T) {
	u := newUser(t, anyMachine())
	u.s.AddMachine(machineID(1), Machine{Offline: true, DNSName: "pc-1"})
	for n, want := range map[int][2]any{1: {"pc-1", "Inactive"}, 2: {nil, "Active"}} {
		got := u.get("/api/machines/" + machineID(n)).json(t)
		if d := cmp.Diff(want, [2]any{got["computerDnsName"], got["healthStatus"]}); d != "" || got["id"] != machineID(n) {
			t.Error(d, got["id"])
		}
	}
}
