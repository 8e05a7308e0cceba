package defendersim

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"
)

// What follows are the requests of clients that ship, in their order and with their headers, read in their sources and
// written here anew. The tests are over HTTP, so that nothing between client and server is left out.

// client is one of a running simulator.
type client struct {
	t    *testing.T
	s    *Server
	base string
	http *http.Client
	head map[string]string // of each request
}

func newClient(t *testing.T, cfg Config) *client {
	cfg.TenantID, cfg.ClientID, cfg.ClientSecret, cfg.Limits = "tenant-1", "app-1", "secret-1", []Limit{}
	s := New(cfg)
	server := httptest.NewServer(s)
	t.Cleanup(server.Close)
	t.Cleanup(s.Close)
	s.AddMachine(machineID(1), Machine{DNSName: "pc-1.contoso.com", IP: "10.0.0.1"})
	s.AddMachine(machineID(2), Machine{DNSName: "pc-2.contoso.com", IP: "10.0.0.2", AADDeviceID: "80fe8ff8-2624-418e-9591-41f0491218f9"})
	return &client{t, s, server.URL, &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}, map[string]string{}}
}

// does sends one request and returns the JSON of the answer, which must have that status.
func (c *client) does(method, target, body string, status int) map[string]any {
	c.t.Helper()
	r, err := http.NewRequestWithContext(c.t.Context(), method, c.base+target, strings.NewReader(body))
	if err != nil {
		c.t.Fatal(err)
	}
	for name, value := range c.head {
		r.Header.Set(name, value)
	}
	resp, err := c.http.Do(r)
	if err != nil {
		c.t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	var out map[string]any
	if err != nil || json.Unmarshal(text, &out) != nil || resp.StatusCode != status {
		c.t.Fatalf("%s %s: %d, want %d: %s %v", method, target, resp.StatusCode, status, text, err)
	}
	return out
}

// signsIn takes the token of an answer for all that follows.
func (c *client) signsIn(answer map[string]any) {
	c.head["Authorization"] = "Bearer " + answer["access_token"].(string)
}

// credentialsFor is the v1 form.
func credentialsFor(resource string) string {
	return url.Values{"grant_type": {"client_credentials"}, "client_id": {"app-1"}, "client_secret": {"secret-1"}, "resource": {resource}}.Encode()
}

// TestTheHive is the responder MSDefenderEndpoints: a form by urllib, a look-up by host name or address, then what it
// found, by Entra's id where there is one; a duplicate is told by its code.
func TestTheHive(t *testing.T) {
	c := newClient(t, Config{Roles: []string{"Machine.Read.All", "Machine.RestrictExecution", "Machine.Isolate", "Machine.Scan", "Alert.ReadWrite.All", "Ti.ReadWrite"}})
	c.head["Content-Type"] = "application/x-www-form-urlencoded"
	c.signsIn(c.does("POST", "/tenant-1/oauth2/token", credentialsFor(c.base), 200))
	c.head["Content-Type"], c.head["Accept"] = "application/json", "application/json"

	find := func(query string) string {
		first := c.does("GET", "/api/v1.0/machines"+query, "", 200)["value"].([]any)[0].(map[string]any)
		if id, joined := first["aadDeviceId"].(string); joined {
			return id
		}
		return first["id"].(string)
	}
	hour := time.Now().UTC().Add(-time.Hour).Format("2006-01-02T15:04:05Z")
	byName, byIP := find("?$filter=computerDnsName+eq+'pc-1.contoso.com'"), find("/findbyip(ip='10.0.0.2',timestamp="+hour+")")
	if byName != machineID(1) || byIP != "80fe8ff8-2624-418e-9591-41f0491218f9" {
		t.Fatalf("found %s and %s", byName, byIP)
	}
	for _, machine := range []string{byName, byIP} {
		for _, call := range [][2]string{
			{"isolate", `,"IsolationType":"Full"`},
			{"unisolate", ""},
			{"runAntiVirusScan", `,"ScanType":"Full"`},
			{"restrictCodeExecution", ""},
			{"unrestrictCodeExecution", ""},
		} {
			body := `{"Comment":"due to TheHive case 7"` + call[1] + `}`
			c.does("POST", "/api/v1.0/machines/"+machine+"/"+call[0], body, 201)
			again := c.does("POST", "/api/v1.0/machines/"+machine+"/"+call[0], body, 400)
			if again["error"].(map[string]any)["code"] != "ActiveRequestAlreadyExists" {
				t.Errorf("%s again: %v", call[0], again)
			}
		}
		c.does("POST", "/api/v1.0/machines/"+machine+"/startInvestigation", `{"Comment":"c"}`, 201)
	}
	for _, mode := range []string{"Allowed", "Audit", "Warn", "Block", "BlockAndRemediate"} {
		c.does("POST", "/api/v1.0/indicators", `{"indicatorValue":"10.9.9.9","indicatorType":"IpAddress","action":"`+mode+`","title":"TheHive IOC: x","severity":"Low","generateAlert":false}`, 200)
	}
}

// TestSplunkSOAR is the connector windowsdefenderatp: a form that says nothing of its type, one alert to try the sign-in,
// an action, and its state every five seconds.
func TestSplunkSOAR(t *testing.T) {
	c := newClient(t, Config{
		Roles:     []string{"Alert.Read.All", "Machine.Read.All", "Machine.RestrictExecution", "Machine.Isolate"},
		Lifecycle: Lifecycle{Pending: -1, InProgress: -1},
	})
	c.signsIn(c.does("POST", "/tenant-1/oauth2/token", credentialsFor("https://api.securitycenter.windows.com"), 200))
	c.head["Accept"], c.head["Content-Type"] = "application/json", "application/json"
	if got := c.does("GET", "/api/alerts?%24top=1", "", 200); got["value"] == nil {
		t.Errorf("alerts: %v", got)
	}
	c.does("GET", "/api/machines?$top=100&", "", 200)
	for _, call := range []string{"restrictCodeExecution", "unrestrictCodeExecution"} {
		id, _ := c.does("POST", "/api/machines/"+machineID(1)+"/"+call, `{"Comment": "from a playbook"}`, 201)["id"].(string)
		if got := c.does("GET", "/api/machineactions/"+id, "", 200)["status"]; got != "Succeeded" {
			t.Errorf("%s ended as %v", call, got)
		}
	}
}

// TestSEKOIA is the automation module MicrosoftDefender: a form by GET, which Entra is documented to refuse; the
// setting lets it in.
func TestSEKOIA(t *testing.T) {
	c := newClient(t, Config{})
	form := credentialsFor("https://api.securitycenter.microsoft.com")
	c.head["Content-Type"] = "application/x-www-form-urlencoded"
	c.does("GET", "/tenant-1/oauth2/token", form, 400)
	if err := c.s.Set(map[string]string{"lenientSignIn": "true"}); err != nil {
		t.Fatal(err)
	}
	token := c.does("GET", "/tenant-1/oauth2/token", form, 200)
	var seconds int
	if _, err := fmt.Sscan(token["expires_in"].(string), &seconds); err != nil || token["token_type"] != "Bearer" || seconds != 3600 {
		t.Errorf("%v: %v", token, err)
	}
	c.signsIn(token)
	c.does("GET", "/api/machines?$top=1", "", 200)
	c.head["Content-Type"] = "application/json"
	id := c.does("POST", "/api/machines/"+machineID(1)+"/unrestrictCodeExecution", `{"Comment": "c"}`, 201)["id"].(string)
	c.does("GET", "/api/machineactions/"+id, "", 200)
	refused := c.does("POST", "/api/machines/"+machineID(1)+"/unrestrictCodeExecution", `{"Comment": "c"}`, 400)["error"].(map[string]any)
	if refused["message"] == nil || refused["code"] == nil || refused["target"] == nil {
		t.Errorf("it logs all three: %v", refused)
	}
}

// TestKibana is the connector of Elastic Security: its own test acts on a machine that can't be there, and its follower
// asks for many actions by their ids, in quotes.
func TestKibana(t *testing.T) {
	c := newClient(t, Config{Roles: []string{"Machine.Read.All", "Machine.Isolate", "Machine.LiveResponse"}})
	c.head["Content-Type"] = "application/x-www-form-urlencoded"
	c.signsIn(c.does("POST", "/tenant-1/oauth2/v2.0/token", credentials("client_id", "app-1").Encode(), 200))
	c.head["Content-Type"] = "application/json"
	absent := "/api/machines/elastic-connector-test"
	for _, call := range [][3]string{
		{"GET", absent, ""},
		{"POST", absent + "/isolate", `{"Comment":"connector test","IsolationType":"Full"}`},
		{"POST", absent + "/unisolate", `{"Comment":"connector test"}`},
		{"POST", absent + "/runliveresponse", `{"Comment":"connector test","Commands":[{"type":"RunScript","params":[]}]}`},
	} {
		if got := c.does(call[0], call[1], call[2], 404)["error"].(map[string]any)["code"]; got != "ResourceNotFound" {
			t.Errorf("%v: %v", call, got)
		}
	}
	var ids []string
	for n := 1; n <= 2; n++ {
		ids = append(ids, "'"+c.does("POST", "/api/machines/"+machineID(n)+"/isolate", `{"Comment":"c","IsolationType":"Full"}`, 201)["id"].(string)+"'")
	}
	query := url.Values{"$count": {"true"}, "$top": {"1000"}, "$orderby": {"creationDateTimeUtc desc"}, "$filter": {"id in (" + strings.Join(ids, ",") + ") AND type eq 'Isolate'"}}
	if got := c.does("GET", "/api/machineactions?"+query.Encode(), "", 200); got["@odata.count"] != 2.0 || len(got["value"].([]any)) != 2 {
		t.Errorf("%v", got)
	}
}
