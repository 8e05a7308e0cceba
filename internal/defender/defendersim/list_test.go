package defendersim

import (
	"encoding/json"
	"fmt"
	"net/url"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
)

// numbered has n actions, a second apart; the comment of each is its number.
func numbered(t *testing.T, cfg Config, n int) user {
	u := newUser(t, cfg)
	start := u.s.now()
	for i := range n {
		u.s.Put(Action{MachineID: machineID(i % 3), Comment: fmt.Sprint(i), Created: start.Add(time.Duration(i-n) * time.Second), Status: "Succeeded"})
	}
	return u
}

func comments(actions []map[string]any) string {
	var out []string
	for _, a := range actions {
		out = append(out, a["requestorComment"].(string))
	}
	return strings.Join(out, " ")
}

func TestListOptions(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		u := numbered(t, Config{}, 6)
		for query, want := range map[string]string{
			"":                                  "5 4 3 2 1 0", // the newest first
			"?$top=2":                           "5 4",
			"?$top=0":                           "",
			"?$top=10000":                       "5 4 3 2 1 0",
			"?$skip=4":                          "1 0",
			"?$skip=9":                          "",
			"?$top=2&$skip=1":                   "4 3",
			"?$orderby=creationDateTimeUtc":     "0 1 2 3 4 5",
			"?$orderby=creationDateTimeUtc asc": "0 1 2 3 4 5",
			"?$orderby=CreationDateTimeUtc desc&$top=1":                                                            "5",
			"?$orderby=machineId desc,creationDateTimeUtc desc":                                                    "5 2 4 1 3 0",
			"?$orderby=machineId, creationDateTimeUtc desc&$top=3":                                                 "3 0 4",
			"?$orderby=type&$top=2":                                                                                "0 1",
			"?$filter=machineId eq '" + machineID(1) + "'":                                                         "4 1",
			"?$filter=machineId+eq+'" + machineID(1) + "'&$top=1":                                                  "4",
			"?$filter=creationDateTimeUtc ge 1999-12-31T23:59:57Z":                                                 "5 4 3",
			"?$filter=creationDateTimeUtc gt 1999-12-31T23:59:57Z and creationDateTimeUtc lt 1999-12-31T23:59:59Z": "4",
			"?$filter=creationDateTimeUtc gt 1999-12-31T23:59:59Z and creationDateTimeUtc lt 1999-12-31T23:59:57Z": "",
			"?$filter=creationDateTimeUtc le 1999-12-31T23:59:55Z&$orderby=creationDateTimeUtc asc":                "0 1",
			"?api-version=1": "5 4 3 2 1 0",
		} {
			if got := comments(u.list(query)); got != want {
				t.Errorf("%s: %q, want %q", query, got, want)
			}
		}
		for query, want := range map[string]any{"?$count=true&$top=1&$filter=machineId eq '" + machineID(1) + "'": 2.0, "?$count=false": nil, "": nil} {
			got := u.get("/api/machineactions" + query).json(t)
			if got["@odata.count"] != want || got["@odata.context"] != "http://example.com/api/$metadata#MachineActions" {
				t.Errorf("%s: count %v, want %v; context %v", query, got["@odata.count"], want, got["@odata.context"])
			}
		}
	})
}

// TestSelect: only what is named comes, in that order and in the names' own case.
func TestSelect(t *testing.T) {
	u := numbered(t, Config{UnknownFields: true}, 2)
	u.s.AddMachine(machineID(7), Machine{DNSName: "pc-7", IP: "10.0.0.7"})
	for target, want := range map[string]string{
		"machines?$select=*&$top=0": `{"@odata.context":"http://example.com/api/$metadata#Machines","value":[]}`,

		"machineactions?$select=requestorComment,STATUS&$top=1":                                `{"@odata.context":"http://example.com/api/$metadata#MachineActions(requestorComment,status)","value":[{"requestorComment":"1","status":"Succeeded"}]}`,
		"machines?$select=computerDnsName, lastIpAddress&$filter=id eq '" + machineID(7) + "'": `{"@odata.context":"http://example.com/api/$metadata#Machines(computerDnsName,lastIpAddress)","value":[{"computerDnsName":"pc-7","lastIpAddress":"10.0.0.7"}]}`,
	} {
		if a := u.get("/api/" + target); a.status != 200 || a.body != want {
			t.Errorf("%s: %d %s", target, a.status, a.body)
		}
	}
}

// TestMalformedNextLink: who follows the link of a second page gets the first without a filter, for ever.
func TestMalformedNextLink(t *testing.T) {
	u := numbered(t, Config{PageSize: 2, MalformedNextLink: true}, 9)
	next := func(target string) string { link, _ := u.get(target).json(t)["@odata.nextLink"].(string); return link }
	second := next("/api/machineactions?$filter=type ne 'x'")
	if third := next(second); second == "" || third != "http://example.com/api/machineactions?=type+ne+%27x%27&$skip=2" {
		t.Errorf("%s, then %s", second, third)
	}
}

func TestBadListOptions(t *testing.T) {
	u := numbered(t, Config{}, 1)
	for query, says := range map[string]string{
		"$top=10001":              "The limit of '10000' for Top query has been exceeded",
		"$top=-1":                 "Invalid value '-1' for $top",
		"$top=":                   "Invalid value '' for $top",
		"$skip=x":                 "Invalid value 'x' for $skip",
		"$count=yes":              "Invalid value 'yes' for $count",
		"$orderby=title":          "Could not find a property named 'title'",
		"$orderby=type up":        "Syntax error",
		"$orderby=type,":          "Syntax error",
		"$filter=type eq Isolate": "Could not find a property named 'Isolate'",
		"$select=nothing":         "Could not find a property named 'nothing'",
		"$filter=":                "Syntax error",
		"$filter=" + strings.Repeat("type eq 'x' or ", 25) + "type eq 'x'": "node count limit",
	} {
		a := u.get("/api/machineactions?" + query)
		a.want(t, 400, "")
		if code, message := a.failure(t); code != "" || !strings.HasPrefix(message, "The query specified in the URI is not valid. ") || !strings.Contains(message, says) {
			t.Errorf("%s: %q, want %q in it", query, message, says)
		}
	}
	u.get("/api/machineactions?a=%zz").want(t, 400, "BadRequest")
	want := `{"error":{"code":"","message":"The query specified in the URI is not valid. Custom query option '$stop' that starts with '$' is not supported.","details":[]}}`
	if a := u.get("/api/machineactions?$stop=1&$top=1"); a.status != 400 || a.body != want {
		t.Errorf("$stop: %d %s", a.status, a.body)
	}
	u.get(`/api/machineactions?$"\=1`).json(t) // stays JSON
}

func TestPages(t *testing.T) {
	u := numbered(t, Config{PageSize: 4}, 11)
	target, got, pages := "/api/v1.0/machineactions?$orderby=creationDateTimeUtc asc&$filter=type ne 'x'", "", 0
	for target != "" {
		var page struct {
			Value []map[string]any
			Next  string `json:"@odata.nextLink"`
		}
		if err := json.Unmarshal([]byte(u.get(target).body), &page); err != nil {
			t.Fatal(err)
		}
		got += comments(page.Value) + "|"
		if next, err := url.Parse(page.Next); err != nil || page.Next != "" && (next.Host != "example.com" || next.Path != "/api/v1.0/machineactions") {
			t.Fatalf("next link %q: %v", page.Next, err)
		}
		target, pages = page.Next, pages+1
	}
	if got != "0 1 2 3|4 5 6 7|8 9 10|" || pages != 3 {
		t.Errorf("%d pages: %s", pages, got)
	}
	if _, found := u.get("/api/machineactions?$top=5").json(t)["@odata.nextLink"]; found {
		t.Error("a next link in spite of $top")
	}
	if n := len(u.list("?$top=5")); n != 5 {
		t.Errorf("$top=5 gave %d", n)
	}
}

func TestDefaultPage(t *testing.T) {
	u := newUser(t, Config{})
	start := u.s.now().Add(-time.Hour)
	for i := range maxPage + 1 {
		u.s.Put(Action{MachineID: machineID(1), Created: start.Add(time.Duration(i) * time.Microsecond), Status: "Succeeded"})
	}
	first := u.get("/api/machineactions").json(t)
	if n := len(first["value"].([]any)); n != maxPage || first["@odata.nextLink"] == nil {
		t.Errorf("%d on the first page, next %v", n, first["@odata.nextLink"])
	}
	if n := len(u.list("?$skip=10000")); n != 1 {
		t.Errorf("%d on the second page", n)
	}
}

func TestListLag(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		u := newUser(t, Config{AllowUnknownMachines: true, ListLag: 5 * time.Second, Duplicate: Duplicate201})
		id := u.unrestrict(1).json(t)["id"].(string)
		time.Sleep(5*time.Second - time.Nanosecond)
		u.get("/api/machineactions/"+id).want(t, 404, "ResourceNotFound")
		if n := len(u.list("")); n != 0 {
			t.Errorf("listed %d before the lag is over", n)
		}
		if n := len(u.s.Actions()); n != 1 {
			t.Errorf("Actions: %d", n)
		}
		time.Sleep(time.Nanosecond)
		u.get("/api/machineactions/"+id).want(t, 200, "")
		if n := len(u.list("")); n != 1 {
			t.Errorf("listed %d after the lag", n)
		}
	})
}

// TestFilterSeesWireTimes: an action is found by the very time that it bears.
func TestFilterSeesWireTimes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		u := newUser(t, anyMachine())
		time.Sleep(123456789)
		created := u.unrestrict(1).json(t)["creationDateTimeUtc"].(string)
		for operator, want := range map[string]int{"eq": 1, "ge": 1, "gt": 0} {
			if got := u.list("?$filter=creationDateTimeUtc " + operator + " " + created); len(got) != want {
				t.Errorf("%s %s: %d found, want %d", operator, created, len(got), want)
			}
		}
		if d := cmp.Diff("2000-01-01T00:00:00.1234567Z", created); d != "" {
			t.Error(d)
		}
	})
}
