package defender

import (
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestQuery(t *testing.T) {
	since := time.Date(2024, 10, 21, 13, 27, 58, 144730299, time.FixedZone("", 2*3600))
	for _, c := range []struct {
		q    Query
		want map[string]string
	}{
		{Query{}, map[string]string{"$orderby": "creationDateTimeUtc asc"}},
		{Query{Newest: true, Top: 10000}, map[string]string{"$orderby": "creationDateTimeUtc desc", "$top": "10000"}},
		{
			Query{MachineID: machine, Type: TypeUnrestrict, CreatedSince: since},
			map[string]string{
				"$orderby": "creationDateTimeUtc asc",
				"$filter":  "machineId eq '" + machine + "' and type eq 'UnrestrictCodeExecution' and creationDateTimeUtc ge 2024-10-21T11:27:58.1447302Z",
			},
		},
		{Query{MachineID: "it's+1 & 'x"}, map[string]string{"$orderby": "creationDateTimeUtc asc", "$filter": "machineId eq 'it''s+1 & ''x'"}},
	} {
		text := c.q.encode()
		values, err := url.ParseQuery(text)
		if err != nil {
			t.Fatal(err)
		}
		got := map[string]string{}
		for k, v := range values {
			got[k] = strings.Join(v, "|")
		}
		if diff := cmp.Diff(c.want, got); diff != "" {
			t.Errorf("%s: %s", text, diff)
		}
		if strings.ContainsAny(text, " +'") {
			t.Errorf("not all is escaped: %s", text)
		}
	}
}

func TestEndpoints(t *testing.T) {
	for cloud, want := range map[string][3]string{
		"commercial": {"https://api.security.microsoft.com", "https://api.securitycenter.microsoft.com/.default", "https://login.microsoftonline.com/"},
		"gcc":        {"https://api-gcc.securitycenter.microsoft.us", "https://api-gcc.securitycenter.microsoft.us/.default", "https://login.microsoftonline.com/"},
		"gcc-high":   {"https://api-gov.securitycenter.microsoft.us", "https://api-gov.securitycenter.microsoft.us/.default", "https://login.microsoftonline.us/"},
		"dod":        {"https://api-gov.securitycenter.microsoft.us", "https://api-gov.securitycenter.microsoft.us/.default", "https://login.microsoftonline.us/"},
	} {
		api, scope, authority, err := Endpoints(cloud)
		_, unfit := parseBaseURL(api)
		if got := [3]string{api, scope, authority}; got != want || err != nil || unfit != nil {
			t.Errorf("%s: %v (%v, %v)", cloud, got, err, unfit)
		}
	}
	if _, _, _, err := Endpoints("mars"); err == nil || !strings.Contains(err.Error(), "gcc-high") {
		t.Errorf("an unknown cloud: %v", err)
	}
}

func TestParseBaseURL(t *testing.T) {
	for _, good := range []string{
		"https://api.security.microsoft.com", "https://api.security.microsoft.com/", "HTTPS://host:8443", "https://[::1]:1", "https://10.0.0.1",
		"http://127.0.0.1:8443", "http://localhost", "http://LOCALHOST:1/", "http://[::1]:8443", "http://127.9.9.9",
	} {
		if _, err := parseBaseURL(good); err != nil {
			t.Errorf("%s: %v", good, err)
		}
	}
	for bad, says := range map[string]string{
		"":                                 "https://HOST",
		"api.security.microsoft.com":       "https://HOST",
		"https:api":                        "https://HOST",
		"https://":                         "https://HOST",
		"https://host:0":                   "https://HOST",
		"https://host:65536":               "https://HOST",
		"https://host:x-hidden-word":       "https://HOST",
		"https://host/api":                 "path",
		"https://host//":                   "path",
		"https://host?x=hidden-word":       "after host",
		"https://host?":                    "after host",
		"https://host/#":                   "after host",
		"https://user:hidden-word@host":    "password",
		"http://user:hidden-word@host:x":   "https://HOST",
		"http://api.security.microsoft.us": "plain http",
		"http://127.0.0.1.example.com":     "plain http",
		"http://10.0.0.1":                  "plain http",
		"http://0.0.0.0":                   "plain http",
		"ftp://host":                       "https://",
	} {
		_, err := parseBaseURL(bad)
		if err == nil || !strings.Contains(err.Error(), says) || strings.Contains(err.Error(), "hidden-word") {
			t.Errorf("%s: %v", bad, err)
		}
		if _, err := New(Config{BaseURL: bad}, nil, nil); err == nil {
			t.Errorf("New took %s", bad)
		}
	}
}
