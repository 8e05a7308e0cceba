package defendersim

import (
	"encoding/base64"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
)

const defaultScope = "https://api.securitycenter.microsoft.com/.default"

// signIn posts a form to the token endpoint.
func signIn(s *Server, target string, form url.Values) seen {
	r := httptest.NewRequest(http.MethodPost, target, strings.NewReader(form.Encode()))
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	w := httptest.NewRecorder()
	s.ServeHTTP(w, r)
	return seen{w.Code, w.Header(), w.Body.String()}
}

func credentials(changes ...string) url.Values {
	form := url.Values{
		"grant_type": {"client_credentials"}, "client_id": {"client-1"}, "client_secret": {"secret-1"},
		"scope": {defaultScope + " openid offline_access profile"}, // as Azure's SDK sends it
	}
	for i := 0; i < len(changes); i += 2 {
		form.Set(changes[i], changes[i+1])
	}
	return form
}

func claims(t *testing.T, token string) map[string]any {
	t.Helper()
	part := strings.Split(token, ".")
	if len(part) != 3 {
		t.Fatalf("a token of %d parts", len(part))
	}
	text, err := base64.RawURLEncoding.DecodeString(part[1])
	var out map[string]any
	if err != nil || json.Unmarshal(text, &out) != nil {
		t.Fatalf("claims can't be read: %v", err)
	}
	return out
}

func TestClientCredentials(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := New(Config{TenantID: "tenant-1", ClientID: "client-1", ClientSecret: "secret-1", AllowUnknownMachines: true, TokenLifetime: 2 * time.Hour})
		a := signIn(s, "/tenant-1/oauth2/v2.0/token", credentials())
		a.want(t, 200, "")
		got := a.json(t)
		if got["token_type"] != "Bearer" || got["expires_in"] != 7200.0 {
			t.Errorf("answer %v", got)
		}
		token := got["access_token"].(string)
		c := claims(t, token)
		if c["uti"] == "" || c["uti"] == nil {
			t.Error("no uti")
		}
		delete(c, "uti")
		now := float64(time.Now().Unix())
		want := map[string]any{
			"aud": "https://api.securitycenter.microsoft.com", "iss": "https://sts.windows.net/tenant-1/", "iat": now, "nbf": now, "exp": now + 7200,
			"appid": "client-1", "appidacr": "1", "app_displayname": "simulated", "idtyp": "app", "tid": "tenant-1", "ver": "1.0",
			"roles": []any{"Machine.RestrictExecution", "Machine.Read.All"},
		}
		if d := cmp.Diff(want, c); d != "" {
			t.Error(d)
		}
		created := ask(s, token, "POST", "/api/machines/"+machineID(1)+"/unrestrictCodeExecution", `{"Comment":"c"}`)
		created.want(t, 201, "")
		if got := created.json(t)["requestor"]; got != "client-1" {
			t.Errorf("requestor %v", got)
		}
		time.Sleep(2*time.Hour - time.Nanosecond)
		ask(s, token, "GET", "/api/machineactions", "").want(t, 200, "")
		time.Sleep(time.Nanosecond)
		ask(s, token, "GET", "/api/machineactions", "").want(t, 401, "Unauthorized")
		if n := s.TokenRequests(); n != 1 {
			t.Errorf("%d token requests", n)
		}
	})
}

func TestTokenEndpointForms(t *testing.T) {
	s := New(Config{TenantID: "tenant-1", ClientID: "client-1", ClientSecret: "secret-1"})
	v2, v1 := "/tenant-1/oauth2/v2.0/token", "/tenant-1/oauth2/token"
	bearer := "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
	for name, c := range map[string]struct {
		target string
		form   url.Values
		status int
		err    string
		code   float64
	}{
		"secret":           {v2, credentials(), 200, "", 0},
		"assertion":        {v2, credentials("client_secret", "", "client_assertion", "a.b.c", "client_assertion_type", bearer), 200, "", 0},
		"v1 with resource": {v1, credentials("scope", "", "resource", "https://api.securitycenter.windows.com"), 200, "", 0},
		"other tenant":     {"/tenant-2/oauth2/v2.0/token", credentials(), 400, "invalid_request", 90002},
		"other grant":      {v2, credentials("grant_type", "password"), 400, "unsupported_grant_type", 70003},
		"no client":        {v2, credentials("client_id", ""), 400, "invalid_request", 900144},
		"other client":     {v2, credentials("client_id", "x"), 400, "unauthorized_client", 700016},
		"no secret":        {v2, credentials("client_secret", ""), 401, "invalid_client", 7000218},
		"wrong secret":     {v2, credentials("client_secret", "wrong"), 401, "invalid_client", 7000215},
		"no JWT":           {v2, credentials("client_assertion", "abc", "client_assertion_type", bearer), 401, "invalid_client", 50027},
		"assertion type":   {v2, credentials("client_assertion", "a.b.c"), 401, "invalid_client", 50027},
		"no scope":         {v2, credentials("scope", ""), 400, "invalid_request", 900144},
		"resource at v2":   {v2, credentials("scope", "", "resource", "https://api.securitycenter.windows.com"), 400, "invalid_request", 901002},
		"scope at v1":      {v1, credentials(), 400, "invalid_request", 900144},
		"no grant":         {v2, credentials("grant_type", ""), 400, "invalid_request", 900144},
		"not .default":     {v2, credentials("scope", "https://api.securitycenter.microsoft.com/Machine.Read"), 400, "invalid_scope", 1002012},
	} {
		t.Run(name, func(t *testing.T) {
			a := signIn(s, c.target, c.form)
			a.want(t, c.status, "")
			got := a.json(t)
			if c.err == "" {
				ask(s, got["access_token"].(string), "GET", "/api/machineactions", "").want(t, 200, "")
				return
			}
			description, _ := got["error_description"].(string)
			if got["error"] != c.err || got["error_codes"].([]any)[0] != c.code || !strings.HasPrefix(description, "AADSTS") {
				t.Errorf("answer %s", a.body)
			}
			if strings.Contains(a.body, "secret-1") || strings.Contains(a.body, "wrong") && c.code == 7000215 {
				t.Errorf("a secret in the answer: %s", a.body)
			}
		})
	}
}

// TestOpenIDConfiguration: what msal-node, msal for Go and for Python read, at both versions' places.
func TestOpenIDConfiguration(t *testing.T) {
	s := New(Config{TenantID: "tenant-1"})
	base := "https://127.0.0.1:8443/Tenant-1"
	for path, want := range map[string]map[string]string{
		"/v2.0/.well-known/openid-configuration?": {
			"issuer": base + "/v2.0", "authorization_endpoint": base + "/oauth2/v2.0/authorize", "token_endpoint": base + "/oauth2/v2.0/token", "jwks_uri": base + "/discovery/v2.0/keys",
		},
		"/.well-known/openid-configuration": {
			"issuer": "https://sts.windows.net/Tenant-1/", "authorization_endpoint": base + "/oauth2/authorize", "token_endpoint": base + "/oauth2/token", "jwks_uri": base + "/discovery/keys",
		},
	} {
		a := ask(s, "", "GET", base+path, "")
		a.want(t, 200, "")
		if kind := a.header.Get("Content-Type"); kind != "application/json; charset=utf-8" {
			t.Errorf("Content-Type %q", kind)
		}
		got := a.json(t)
		for name, value := range want {
			if got[name] != value {
				t.Errorf("%s: %q, want %q", name, got[name], value)
			}
		}
		if keys := ask(s, "", "GET", want["jwks_uri"], ""); keys.status != 200 || keys.body != `{"keys":[]}` {
			t.Errorf("keys: %d %s", keys.status, keys.body)
		}
	}
	if a := ask(s, "", "GET", "/tenant-2/v2.0/.well-known/openid-configuration", ""); a.status != 400 || a.json(t)["error"] != "invalid_request" {
		t.Errorf("another tenant: %d %s", a.status, a.body)
	}
	ask(s, "", "GET", "/", "").want(t, 404, "NotFound")
}

func TestAuthorization(t *testing.T) {
	s := New(anyMachine())
	good := s.IssueToken(time.Hour)
	request := func(authorization string) seen {
		r := httptest.NewRequest(http.MethodGet, "/api/machineactions", nil)
		r.Header.Set("Authorization", authorization)
		w := httptest.NewRecorder()
		s.ServeHTTP(w, r)
		return seen{w.Code, w.Header(), w.Body.String()}
	}
	for authorization, status := range map[string]int{
		"Bearer " + good: 200, "bearer " + good: 200, "": 401, "Bearer": 401, "Bearer ": 401, "Basic " + good: 401, good: 401,
		"Bearer " + good + "x": 401, "Bearer " + New(anyMachine()).IssueToken(time.Hour): 401, "Bearer " + s.IssueToken(-time.Second): 401,
	} {
		a := request(authorization)
		a.want(t, status, map[int]string{401: "Unauthorized"}[status])
		if status == 401 && a.header.Get("WWW-Authenticate") == "" {
			t.Error("401 without WWW-Authenticate")
		}
	}
	s.RevokeTokens()
	request("Bearer "+good).want(t, 401, "Unauthorized")
	request("Bearer "+s.IssueToken(time.Hour)).want(t, 200, "")
}

func TestAudience(t *testing.T) {
	s := New(anyMachine())
	for resource, status := range map[string]int{
		"https://api.securitycenter.microsoft.com": 200, "https://api-eu.securitycenter.windows.com": 200, "https://eu.api.security.microsoft.com": 200,
		"https://api-gov.securitycenter.microsoft.us": 200, "https://securitycenter.onmicrosoft.com/windowsatpservice": 200, "https://127.0.0.1:8443": 200,
		"https://graph.microsoft.com": 403, "https://security.microsoft.com/mtp/": 403, "https://evilsecuritycenter.microsoft.com.example": 403, "::": 403,
	} {
		token := signIn(s, "/t/oauth2/v2.0/token", credentials("scope", resource+"/.default")).json(t)["access_token"].(string)
		if got := claims(t, token)["aud"]; got != resource {
			t.Errorf("aud %v, want %s", got, resource)
		}
		if message := ask(s, token, "GET", "/api/machineactions", "").want(t, status, map[int]string{403: "Forbidden"}[status]); strings.Contains(message, "role") {
			t.Errorf("%s: %q", resource, message)
		}
	}
}

func TestTokenWithoutRoles(t *testing.T) {
	for name, token := range map[string]string{
		"by name": New(Config{}).IssueToken(time.Hour, ""), "by configuration": New(Config{Roles: []string{}}).IssueToken(time.Hour),
	} {
		if _, found := claims(t, token)["roles"]; found {
			t.Errorf("%s: a roles claim", name)
		}
	}
}
