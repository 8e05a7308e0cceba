package defendersim

import (
	"encoding/json"
	"net/http"
	"reflect"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestControlFaults(t *testing.T) {
	u := newUser(t, anyMachine())
	in := `{"op":"unrestrict","machine":"` + machineID(1) + `","times":3,"probability":0.5,"status":503,"code":"C","message":"M","body":"B",
		"header":{"X-A":["1"]},"retryAfter":"1m30s","latency":"250ms","carriedOut":true,"cut":"body","hang":true}`
	u.post("/sim/faults", in).want(t, 204, "")
	want := Fault{
		Op: "unrestrict", Machine: machineID(1), Times: 3, Probability: 0.5, Status: 503, Code: "C", Message: "M", Body: []byte("B"),
		Header: http.Header{"X-A": {"1"}}, RetryAfter: 90 * time.Second, Latency: 250 * time.Millisecond, CarriedOut: true, Cut: "body", Hang: true,
	}
	if d := cmp.Diff([]*Fault{&want}, u.s.gate.faults); d != "" {
		t.Error(d)
	}
	ask(u.s, "", "DELETE", "/sim/faults", "").want(t, 204, "")
	u.unrestrict(1).want(t, 201, "")

	for body, says := range map[string]string{
		`{`:                         "unexpected EOF",
		`{"statsu":503}`:            "statsu",
		`{"op":"unrestricted"}`:     `op "unrestricted"`,
		`{"cut":"off"}`:             `cut "off"`,
		`{"status":42}`:             "status 42",
		`{"status":600}`:            "status 600",
		`{"latency":"soon"}`:        "soon",
		`{"latency":5}`:             "number",
		`{"probability":2}`:         "probability",
		`{"times":-1,"status":500}`: "times",
	} {
		a := ask(u.s, "", "POST", "/sim/faults", body)
		if a.status != 400 || !strings.Contains(a.json(t)["error"].(string), says) {
			t.Errorf("%s: %d %s", body, a.status, a.body)
		}
	}
	if n := len(u.s.gate.faults); n != 0 {
		t.Errorf("%d faults", n)
	}
}

func TestControlMachines(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		u := newUser(t, Config{})
		ask(u.s, "", "POST", "/sim/machines", `{"id":"`+strings.ToUpper(machineID(0xa))+`","outcome":"TimeOut","pending":"3s","inProgress":"4s","dnsName":"pc"}`).want(t, 204, "")
		ask(u.s, "", "POST", "/sim/machines", `{"id":"`+machineID(0xb)+`","offline":true}`).want(t, 204, "")
		for body, says := range map[string]string{`{}`: "id is missing", `{"id":"x","state":"on"}`: "state", `{"id":"x","pending":"3"}`: "3"} {
			if a := ask(u.s, "", "POST", "/sim/machines", body); a.status != 400 || !strings.Contains(a.json(t)["error"].(string), says) {
				t.Errorf("%s: %d %s", body, a.status, a.body)
			}
		}
		if got := u.unrestrict(0xa).json(t)["computerDnsName"]; got != "pc" {
			t.Errorf("name %v", got)
		}
		u.unrestrict(0xb).want(t, 201, "")
		time.Sleep(7 * time.Second)
		var actions []Action
		if err := json.Unmarshal([]byte(ask(u.s, "", "GET", "/sim/actions", "").body), &actions); err != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff(u.s.Actions(), actions); d != "" || actions[0].Status != "TimeOut" || actions[1].Status != "Pending" {
			t.Error(d, actions)
		}
	})
}

func TestControlCalls(t *testing.T) {
	u := newUser(t, anyMachine())
	if a := ask(u.s, "", "GET", "/sim/calls", ""); a.body != "[]" {
		t.Errorf("none: %s", a.body)
	}
	u.unrestrict(1)
	u.get("/api/machineactions?$top=1")
	var got []map[string]any
	if err := json.Unmarshal([]byte(ask(u.s, "", "GET", "/sim/calls", "").body), &got); err != nil {
		t.Fatal(err)
	}
	for _, c := range got {
		delete(c, "at")
		delete(c, "correlationId")
	}
	want := []map[string]any{
		{"op": "unrestrict", "method": "POST", "path": "/api/machines/" + machineID(1) + "/unrestrictCodeExecution", "machine": machineID(1), "status": 201.0, "counted": true},
		{"op": "list", "method": "GET", "path": "/api/machineactions", "query": "$top=1", "status": 200.0, "counted": true},
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
}

// TestIndexTellsOfEverything: who opens /sim/ finds each path, and every member of a fault and of a machine.
func TestIndexTellsOfEverything(t *testing.T) {
	u := newUser(t, anyMachine())
	a := ask(u.s, "", "GET", "/sim/", "")
	if a.status != 200 {
		t.Fatalf("got %d", a.status)
	}
	words := []string{"/sim/faults", "/sim/machines", "/sim/actions", "/sim/calls"}
	for field := range reflect.TypeFor[Fault]().Fields() {
		name := field.Name
		words = append(words, strings.ToLower(name[:1])+name[1:])
	}
	for _, one := range u.s.Settings() {
		words = append(words, one.Name, one.Help)
	}
	words = append(append(words, operationNames()...), "/sim/settings", "/sim/tokens")
	for _, word := range append(words, "outcome", "offline", "pending", "inProgress", "dnsName", "ip", "aadDeviceId") {
		if !strings.Contains(a.body, word) {
			t.Errorf("no %s in %s", word, a.body)
		}
	}
}
