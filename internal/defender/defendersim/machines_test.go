package defendersim

import (
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// office has three machines, two of which share a name.
func office(t *testing.T, roles ...string) user {
	u := newUser(t, Config{Limits: []Limit{}}, roles...)
	u.s.AddMachine(machineID(1), Machine{DNSName: "pc-1.contoso.com", IP: "10.0.0.1"})
	u.s.AddMachine(machineID(2), Machine{DNSName: "PC-2.contoso.com", IP: "10.0.0.2", AADDeviceID: "80FE8FF8-2624-418e-9591-41f0491218f9"})
	u.s.AddMachine(machineID(3), Machine{DNSName: "pc-1.contoso.com", Offline: true})
	return u
}

func TestMachinesAreFound(t *testing.T) {
	u := office(t)
	for query, want := range map[string]string{
		"": "1 2 3", "?$top=2": "1 2", "?$skip=2": "3", "?$orderby=computerDnsName desc&$top=1": "1", "?$orderby=id desc": "3 2 1",
		"?$filter=computerDnsName eq 'pc-1.contoso.com'":                                     "1 3",
		"?$filter=computerDnsName+eq+'pc-9'":                                                 "",
		"?$filter=id eq '" + machineID(2) + "'":                                              "2",
		"?$filter=lastIpAddress eq '10.0.0.2'":                                               "2",
		"?$filter=startswith(computerDnsName,'pc-1')":                                        "1 3",
		"?$filter=computerDnsName eq 'x' or startswith(computerDnsName,'PC') eq true":        "2",
		"?$filter=healthStatus eq 'Active' and onboardingStatus eq 'Onboarded'":              "1 2",
		"/findbyip(ip='10.0.0.1',timestamp=" + time.Now().UTC().Format(time.RFC3339) + ")":   "1",
		"/findbyip(ip='10.0.0.99',timestamp=" + time.Now().UTC().Format("2006-01-02Z") + ")": "",
	} {
		var got []string
		for _, m := range values(t, u.get("/api/machines"+query)) {
			got = append(got, strings.TrimLeft(m["id"].(string), "0"))
		}
		if strings.Join(got, " ") != want {
			t.Errorf("%s: %q, want %q", query, got, want)
		}
	}
	u.get("/api/machines?$filter=id eq 80fe8ff8-2624-418e-9591-41f0491218f9").want(t, 400, "")
	for _, call := range []string{"(ip='10.0.0.1')", "(ip='10.0.0.1',timestamp=yesterday)", "(ip='10.0.0.1',timestamp=2019-09-22T08:44:05Z)", "(ip='10.0.0.1',timestamp=2999-09-22T08:44:05Z)"} {
		u.get("/api/machines/findbyip"+call).want(t, 400, "BadRequest")
	}
}

// values are what a list that must be answered 200 has.
func values(t *testing.T, a seen) (out []map[string]any) {
	t.Helper()
	a.want(t, 200, "")
	for _, v := range a.json(t)["value"].([]any) {
		out = append(out, v.(map[string]any))
	}
	return out
}

// TestMachineByAnyName: GET takes a DNS name, calls take Entra's id beside Defender's, and no DNS name.
func TestMachineByAnyName(t *testing.T) {
	u := office(t)
	for name, want := range map[string]int{"pc-1.contoso.com": 1, "pc-2.CONTOSO.com": 2, "80fe8ff8-2624-418e-9591-41f0491218f9": 2, machineID(3): 3} {
		a := u.get("/api/v1.0/machines/" + name)
		a.want(t, 200, "")
		if a.json(t)["id"] != machineID(want) {
			t.Errorf("%s: %s", name, a.body)
		}
	}
	call := func(name string) seen {
		return u.post("/api/machines/"+name+"/unrestrictCodeExecution", `{"Comment":"c"}`)
	}
	if got := call("80fe8ff8-2624-418e-9591-41f0491218f9").json(t)["machineId"]; got != machineID(2) {
		t.Errorf("by Entra's id: %v", got)
	}
	u.unrestrict(2).want(t, 400, "ActiveRequestAlreadyExists")
	call("pc-1.contoso.com").want(t, 404, "ResourceNotFound")
	u.get("/api/machines/pc-9.contoso.com").want(t, 404, "ResourceNotFound")
	u.s.AddMachine(machineID(2), Machine{DNSName: "renamed"})
	u.get("/api/machines/pc-2.contoso.com").want(t, 404, "ResourceNotFound")
}

// TestMachineEntityIsWhole: the documented properties, with times of at most seven fraction digits.
func TestMachineEntityIsWhole(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		u := office(t)
		time.Sleep(123456789)
		got := u.get("/api/machines/" + machineID(2)).json(t)
		if got["lastSeen"] != "2000-01-01T00:00:00.1234567Z" || got["firstSeen"] != "2000-01-01T00:00:00Z" || got["computerDnsName"] != "PC-2.contoso.com" ||
			got["isAadJoined"] != true || got["@odata.context"] != "http://example.com/api/$metadata#Machines/$entity" || len(got) != len(machineSchema.names)+1 {
			t.Errorf("%v", got)
		}
	})
}

// TestScan: ScanType is required, and becomes the action's scope.
func TestScan(t *testing.T) {
	u := office(t, "Machine.Scan")
	scan := func(body string) seen { return u.post("/api/machines/"+machineID(1)+"/runAntiVirusScan", body) }
	scan(`{"Comment":"c"}`).want(t, 400, "MissingRequiredParameter")
	scan(`{"Comment":"c","ScanType":"Deep"}`).want(t, 400, "InvalidInput")
	a := scan(`{"Comment":"c","ScanType":"Full"}`)
	a.want(t, 201, "")
	if got := a.json(t); got["type"] != "RunAntiVirusScan" || got["scope"] != "Full" {
		t.Error(a.body)
	}
}

// TestWhatElseIsAsked: alerts are empty; what is not simulated is forbidden, with its role and without.
func TestWhatElseIsAsked(t *testing.T) {
	bare, able := office(t), office(t, "Machine.Offboard", "Machine.CollectForensics", "Machine.StopAndQuarantine", "Machine.LiveResponse", "Alert.Read.All", "Alert.ReadWrite.All", "Ti.ReadWrite")
	for _, path := range []string{"offboard", "collectInvestigationPackage", "StopAndQuarantineFile", "runliveresponse"} {
		target := "/api/machines/" + machineID(1) + "/" + path
		bare.post(target, `{"Comment":"c"}`).want(t, 403, "Forbidden")
		able.post(target, `{"Comment":"c"}`).want(t, 403, "DisallowedOperation")
	}
	bare.get("/api/alerts?$top=1").want(t, 403, "Forbidden")
	if a := able.get("/api/alerts?$top=1"); a.status != 200 || a.body != `{"@odata.context":"http://example.com/api/$metadata#Alerts","value":[]}` {
		t.Errorf("alerts: %d %s", a.status, a.body)
	}
	able.post("/api/machines/"+machineID(1)+"/startInvestigation", `{"Comment":"c"}`).want(t, 201, "")
	able.post("/api/machines/"+machineID(9)+"/startInvestigation", `{"Comment":"c"}`).want(t, 404, "ResourceNotFound")
	able.post("/api/machines/"+machineID(1)+"/startInvestigation", `{}`).want(t, 400, "MissingRequiredParameter")
	able.post("/api/indicators", `{"indicatorValue":"10.0.0.1","indicatorType":"IpAddress","action":"Block"}`).want(t, 200, "")
	able.post("/api/indicators", `{"indicatorValue":"10.0.0.1"}`).want(t, 400, "MissingRequiredParameter")
	able.post("/api/indicators", `[]`).want(t, 400, "InvalidRequestBody")
}

// TestRoutes: a wrong method is told the right ones, whatever the path; a call needs its content type.
func TestRoutes(t *testing.T) {
	u := office(t)
	id := "6e5b6c1e-0000-4000-8000-000000000000"
	for target, allow := range map[string]string{
		"/api/machines": "GET", "/api/machines/" + machineID(1): "GET", "/api/machineactions": "GET", "/api/machineactions/" + id: "GET",
		"/api/v1.0/machines/findbyip(ip='10.0.0.1',timestamp=x)": "GET", "/api/alerts": "GET",
		"/api/indicators": "POST", "/api/machineactions/" + id + "/cancel": "POST", "/api/machines/" + machineID(1) + "/offboard": "POST",
	} {
		for _, method := range []string{"PUT", "PATCH", "DELETE", map[string]string{"GET": "POST", "POST": "GET"}[allow]} {
			if a := ask(u.s, u.token, method, target, ""); a.status != 405 || a.header.Get("Allow") != allow || a.body != "" {
				t.Errorf("%s %s: %d %v %s", method, target, a.status, a.header, a.body)
			}
		}
	}
	u.post("/api/machineactions/no-guid/cancel", `{"Comment":"c"}`).want(t, 400, "BadRequest")
	for kind, status := range map[string]int{"": 400, "text/plain": 400, "application/x-www-form-urlencoded": 400, "application/json; charset=utf-8": 201} {
		a := send1(u, kind)
		a.want(t, status, map[int]string{400: "InvalidRequestBody"}[status])
	}
}
