package defendersim

import (
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestFaultAnswers(t *testing.T) {
	u := newUser(t, anyMachine())
	for name, c := range map[string]struct {
		fault         Fault
		code, message string
		header        map[string]string
	}{
		"429":              {Fault{Status: 429, RetryAfter: 7500 * time.Millisecond}, "429", "API calls quota exceeded! Maximum allowed 100 per 00:01:00 for the key Destination+TenantID+AppID. You can send requests again in 8 seconds.", map[string]string{"Retry-After": "8"}},
		"429 without wait": {Fault{Status: 429}, "429", "API calls quota exceeded! Maximum allowed 100 per 00:01:00 for the key Destination+TenantID+AppID.", map[string]string{"Retry-After": ""}},
		"429 by CPU":       {Fault{Status: 429, Message: "too much CPU", Code: "TooManyRequests"}, "TooManyRequests", "too much CPU", nil},
		"429 in own words": {Fault{Status: 429, Message: "wait"}, "429", "wait", nil},
		"404":              {Fault{Status: 404}, "ResourceNotFound", "Machine " + machineID(1) + " was not found", nil},
		"500":              {Fault{Status: 500}, "InternalServerError", "Internal Server Error", nil},
		"503 with a date":  {Fault{Status: 503, Header: http.Header{"Retry-After": {"Sat, 01 Jan 2000 00:00:00 GMT"}}}, "ServiceUnavailable", "Service Unavailable", map[string]string{"Retry-After": "Sat, 01 Jan 2000 00:00:00 GMT"}},
		"401":              {Fault{Status: 401}, "Unauthorized", "Unauthorized", nil},
		"403":              {Fault{Status: 403, Code: "DisabledFeature", Message: `Tenant feature isn't "enabled".`}, "DisabledFeature", `Tenant feature isn't "enabled".`, nil},
		"own JSON":         {Fault{Status: 400, Body: []byte(`{"error":{"code":"a","message":"b"}}`)}, "a", "b", map[string]string{"Content-Type": "application/json; charset=utf-8"}},
	} {
		t.Run(name, func(t *testing.T) {
			c.fault.Times = 1
			u.s.Inject(c.fault)
			a := u.unrestrict(1)
			if message := a.want(t, c.fault.Status, c.code); message != c.message {
				t.Errorf("message %q, want %q", message, c.message)
			}
			for k, v := range c.header {
				if got := a.header.Get(k); got != v {
					t.Errorf("%s: %q, want %q", k, got, v)
				}
			}
		})
	}
	u.s.Inject(Fault{Status: 502, Times: 1, Body: []byte("<html>Bad gateway</html>")})
	if a := u.unrestrict(1); a.status != 502 || a.body != "<html>Bad gateway</html>" || !strings.HasPrefix(a.header.Get("Content-Type"), "text/html") {
		t.Errorf("%d %s %v", a.status, a.body, a.header)
	}
	u.s.Inject(Fault{Status: 201, Times: 1})
	if a := u.unrestrict(1); a.status != 201 || a.body != "" || len(u.s.Actions()) != 0 {
		t.Errorf("an empty 201: %d %q", a.status, a.body)
	}
	u.s.Inject(Fault{Status: 204, Times: 1, Body: []byte{}, CarriedOut: true})
	if a := u.unrestrict(2); a.status != 204 || a.body != "" || len(u.s.Actions()) != 1 {
		t.Errorf("204: %d %q", a.status, a.body)
	}
	u.s.Inject(Fault{Status: 200, Times: 1, CarriedOut: true})
	if a := u.unrestrict(1); a.status != 200 || a.json(t)["status"] != "Pending" {
		t.Errorf("200 with the action: %d %s", a.status, a.body)
	}
}

func TestWhichCallsAFaultStrikes(t *testing.T) {
	u := newUser(t, Config{AllowUnknownMachines: true, Limits: []Limit{}, Duplicate: Duplicate201}, "Machine.RestrictExecution", "Machine.Isolate", "Machine.Read.All")
	id := u.unrestrict(0xa).json(t)["id"].(string)
	form := credentials()
	all := []struct {
		op  string
		ask func() seen
	}{
		{"unrestrict", func() seen { return u.unrestrict(0xa) }},
		{"restrict", func() seen {
			return u.post("/api/machines/"+strings.ToUpper(machineID(0xa))+"/restrictCodeExecution", `{"Comment":"c"}`)
		}},
		{"isolate", func() seen {
			return u.post("/api/machines/"+machineID(0xa)+"/isolate", `{"Comment":"c","IsolationType":"Full"}`)
		}},
		{"unisolate", func() seen { return u.post("/api/machines/"+machineID(0xa)+"/unisolate", `{"Comment":"c"}`) }},
		{"list", func() seen { return u.get("/api/machineactions?$filter=machineId eq '" + machineID(0xa) + "'") }},
		{"get", func() seen { return u.get("/api/machineactions/" + id) }},
		{"machine", func() seen { return u.get("/api/machines/" + machineID(0xa)) }},
		{"cancel", func() seen { return u.post("/api/machineactions/"+id+"/cancel", `{}`) }},
		{"token", func() seen { return signIn(u.s, "/t/oauth2/v2.0/token", form) }},
	}
	struck := func(f Fault) (out []string) {
		f.Status = 599
		u.s.Inject(f)
		defer u.s.ClearFaults()
		for _, c := range all {
			if c.ask().status == 599 {
				out = append(out, c.op)
			}
		}
		return out
	}
	every := []string{"unrestrict", "restrict", "isolate", "unisolate", "list", "get", "machine", "cancel"}
	for name, c := range map[string]struct {
		fault Fault
		want  []string
	}{
		"any":           {Fault{}, every},
		"the machine":   {Fault{Machine: strings.ToUpper(machineID(0xa))}, every},
		"other machine": {Fault{Machine: machineID(0xb)}, nil},
		"two":           {Fault{Times: 2}, every[:2]},
		"never":         {Fault{Probability: 1e-300}, nil},
		"surely":        {Fault{Probability: 1}, every},
	} {
		if d := cmp.Diff(c.want, struck(c.fault)); d != "" {
			t.Errorf("%s: %s", name, d)
		}
	}
	for _, c := range all {
		if d := cmp.Diff([]string{c.op}, struck(Fault{Op: c.op})); d != "" {
			t.Errorf("op %s: %s", c.op, d)
		}
	}
}

func TestFaultsInOrder(t *testing.T) {
	u := newUser(t, anyMachine())
	u.s.Inject(Fault{Status: 502, Times: 2})
	u.s.Inject(Fault{Status: 503, Op: "get"})
	u.s.Inject(Fault{Status: 504, Times: 1})
	var got []int
	for n := range 4 {
		got = append(got, u.unrestrict(n).status)
	}
	if d := cmp.Diff([]int{502, 502, 504, 201}, got); d != "" {
		t.Error(d)
	}
	u.get("/api/machineactions/6e5b6c1e-0000-4000-8000-000000000000").want(t, 503, "")
	u.s.ClearFaults()
	u.get("/api/machineactions/6e5b6c1e-0000-4000-8000-000000000000").want(t, 404, "")
}

func TestProbability(t *testing.T) {
	strikes := func(seed uint64) (out []bool) {
		u := newUser(t, Config{AllowUnknownMachines: true, Limits: []Limit{}, Seed: seed})
		u.s.Inject(Fault{Status: 503, Probability: 0.25})
		for n := range 400 {
			out = append(out, u.unrestrict(n).status == 503)
		}
		return out
	}
	n := 0
	for _, struck := range strikes(3) {
		if struck {
			n++
		}
	}
	if n < 60 || n > 140 {
		t.Errorf("%d of 400 struck at 0.25", n)
	}
	if d := cmp.Diff(strikes(3), strikes(3)); d != "" {
		t.Error("the same seed, other dice")
	}
}

func TestTokenFaults(t *testing.T) {
	s := New(Config{})
	for _, c := range []struct {
		fault Fault
		err   string
	}{
		{Fault{Status: 401}, "invalid_client"},
		{Fault{Status: 503}, "temporarily_unavailable"},
		{Fault{Status: 400, Code: "unauthorized_client", Message: "no"}, "unauthorized_client"},
	} {
		c.fault.Op, c.fault.Times = "token", 1
		s.Inject(c.fault)
		if a := signIn(s, "/t/oauth2/v2.0/token", credentials()); a.status != c.fault.Status || a.json(t)["error"] != c.err {
			t.Errorf("%d %s", a.status, a.body)
		}
	}
	s.Inject(Fault{Status: 503}) // of the API alone
	signIn(s, "/t/oauth2/v2.0/token", credentials()).want(t, 200, "")
}
