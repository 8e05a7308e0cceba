package defendersim

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
)

// send1 calls for machine 1 with a body of that type.
func send1(u user, kind string) seen {
	r := httptest.NewRequest(http.MethodPost, "/api/machines/"+machineID(1)+"/unrestrictCodeExecution", strings.NewReader(`{"Comment":"c"}`))
	r.Header.Set("Authorization", "Bearer "+u.token)
	r.Header.Set("Content-Type", kind)
	w := httptest.NewRecorder()
	u.s.ServeHTTP(w, r)
	return seen{w.Code, w.Header(), w.Body.String()}
}

// TestSettings: each switch is shown in the form in which it is set, and every change comes back so.
func TestSettings(t *testing.T) {
	changes := map[string]string{
		"duplicate": "alternate", "cancel": "late", "oneAtATime": "true", "outcome": "Failed", "pending": "0s", "inProgress": "5s", "listLag": "3s", "latency": "1ms",
		"limits": "7/1m0s,9/1h0m0s", "cpuQuota": "1ns", "unknownMachines": "true", "unknownFields": "true", "pageSize": "7", "malformedNextLink": "true",
		"deflate": "true", "clockOffset": "-1m0s", "roles": "Machine.Isolate,Machine.Scan", "tokenLifetime": "2h0m0s", "revokeTokensAfter": "9m0s", "lenientSignIn": "true",
	}
	s := New(Config{})
	for _, one := range s.Settings() {
		value, known := changes[one.Name]
		if !known || one.Value() == value {
			t.Errorf("%s is not tried: %q", one.Name, one.Value())
		}
		ask(s, "", "PATCH", "/sim/settings", `{"`+one.Name+`":"`+value+`"}`).want(t, 200, "")
	}
	got := map[string]string{}
	for name, value := range ask(s, "", "GET", "/sim/settings", "").json(t) {
		got[name] = value.(string)
	}
	if d := cmp.Diff(changes, got); d != "" {
		t.Error(d)
	}
	ask(s, "", "PATCH", "/sim/settings", `{"PageSize":8,"deflate":false,"limits":"none","roles":"none"}`).want(t, 200, "")
	if c := s.conf(); c.PageSize != 8 || c.Deflate || len(c.Limits) != 0 || c.Roles == nil || len(c.Roles) != 0 {
		t.Errorf("%+v", c)
	}
	for body, says := range map[string]string{
		`{`: "EOF", `{"pagesize":0}`: "1 or more", `{"pageSise":1}`: `no setting "pageSise"`, `{"deflate":"perhaps"}`: "perhaps", `{"listLag":5}`: "listLag",
		`{"latency":"-1s"}`: "negative", `{"limits":"100"}`: "CALLS/TIME", `{"limits":"0/1m"}`: "CALLS/TIME", `{"duplicate":"409"}`: "400, 201, 200, alternate", `{"cancel":"never"}`: "ends, ignored, late",
		`{"outcome":{}}`: "", `{"pageSize":9,"latency":"x"}`: "latency",
	} {
		if a := ask(s, "", "PATCH", "/sim/settings", body); says != "" && (a.status != 400 || !strings.Contains(a.json(t)["error"].(string), says)) {
			t.Errorf("%s: %d %s", body, a.status, a.body)
		}
	}
	if s.conf().PageSize != 8 {
		t.Error("half of a change was made")
	}
}

// TestSettingsTakeEffect while the server runs: those that are copied when it is made.
func TestSettingsTakeEffect(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		u := newUser(t, anyMachine())
		set := func(body string) { ask(u.s, "", "PATCH", "/sim/settings", body).want(t, 200, "") }
		set(`{"limits":"1/1m","outcome":"TimeOut","pending":"0s","inProgress":"0s"}`)
		a := u.unrestrict(1)
		a.want(t, 201, "")
		if got := a.json(t)["status"]; got != "TimeOut" {
			t.Errorf("status %v", got)
		}
		u.unrestrict(2).want(t, 429, "429")
		set(`{"limits":"none","cpuQuota":"30s"}`)
		b := u.unrestrict(2)
		if message := b.want(t, 429, "429"); !strings.Contains(message, "CPU") || b.header.Get("Retry-After") != "30" {
			t.Errorf("%v %s", b.header, b.body)
		}
		time.Sleep(30 * time.Second)
		u.unrestrict(2).want(t, 201, "")
		ask(u.s, "", "DELETE", "/sim/tokens", "").want(t, 204, "")
		u.unrestrict(3).want(t, 401, "Unauthorized")
	})
}

// TestCPUQuotaFromTheStart: what the command sets is in force at once.
func TestCPUQuotaFromTheStart(t *testing.T) {
	u := newUser(t, Config{CPUQuota: time.Hour})
	u.unrestrict(1).want(t, 429, "429")
}
