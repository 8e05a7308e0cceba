package defendersim

import (
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/base64"
	"math/big"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// form sends a form to the token endpoint in any way that a client may.
func form(s *Server, method, target, contentType string, values url.Values) seen {
	r := httptest.NewRequest(method, target, strings.NewReader(values.Encode()))
	if contentType != "" {
		r.Header.Set("Content-Type", contentType)
	}
	w := httptest.NewRecorder()
	s.ServeHTTP(w, r)
	return seen{w.Code, w.Header(), w.Body.String()}
}

// TestTokenFormAsItIsSent: a form is a form without a Content-Type too; what comes by GET is refused unless asked for.
func TestTokenFormAsItIsSent(t *testing.T) {
	const v1, urlencoded = "/tenant-1/oauth2/token", "application/x-www-form-urlencoded; charset=utf-8"
	values := credentials("scope", "", "resource", "https://api.securitycenter.windows.com")
	for _, c := range []struct {
		method, contentType string
		lenient             bool
		status              int
		code                float64
	}{
		{"POST", urlencoded, false, 200, 0},
		{"POST", "", false, 200, 0},
		{"POST", "application/json", false, 400, 900144},
		{"POST", "multipart/form-data; boundary=x", true, 400, 900144},
		{"GET", urlencoded, false, 400, 900561},
		{"GET", urlencoded, true, 200, 0},
		{"PUT", urlencoded, false, 400, 900561},
	} {
		s := New(Config{TenantID: "tenant-1", ClientID: "client-1", ClientSecret: "secret-1", LenientSignIn: c.lenient})
		a := form(s, c.method, v1, c.contentType, values)
		a.want(t, c.status, "")
		if got := a.json(t); c.code != 0 && got["error_codes"].([]any)[0] != c.code {
			t.Errorf("%s as %q: %s", c.method, c.contentType, a.body)
		}
	}
	s := New(Config{TenantID: "tenant-1"})
	if got := form(s, "GET", "/tenant-1/oauth2/v2.0/token", "", nil).json(t)["error_description"].(string); !strings.HasPrefix(got, "AADSTS900561: The endpoint only accepts POST requests. Received a GET request. Trace ID: ") {
		t.Error(got)
	}
}

// TestSecretInTheHeader: OAuth libraries try client_secret_basic first.
func TestSecretInTheHeader(t *testing.T) {
	s := New(Config{ClientID: "client 1", ClientSecret: "secret+1"})
	for password, status := range map[string]int{"secret%2B1": 200, "other": 401} {
		r := httptest.NewRequest(http.MethodPost, "/t/oauth2/v2.0/token", strings.NewReader("grant_type=client_credentials&scope="+url.QueryEscape(defaultScope)))
		r.SetBasicAuth("client+1", password)
		w := httptest.NewRecorder()
		if s.ServeHTTP(w, r); w.Code != status {
			t.Errorf("%s: %d %s", password, w.Code, w.Body)
		}
	}
}

// TestTokenReplies: v1 has numbers as text and names the resource, v2 does not; neither has the API's headers.
func TestTokenReplies(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := New(Config{})
		v1 := signIn(s, "/t/oauth2/token", credentials("scope", "", "resource", "https://api.securitycenter.windows.com"))
		got := v1.json(t)
		if got["expires_in"] != "3600" || got["resource"] != "https://api.securitycenter.windows.com" || got["expires_on"] != strconv.FormatInt(time.Now().Unix()+3600, 10) ||
			got["not_before"] == nil || v1.header.Get("OData-Version") != "" || v1.header.Get("Content-Type") != "application/json; charset=utf-8" {
			t.Errorf("v1: %v %s", v1.header, v1.body)
		}
		if got := signIn(s, "/t/oauth2/v2.0/token", credentials()).json(t); got["expires_in"] != 3600.0 || got["resource"] != nil {
			t.Errorf("v2: %v", got)
		}
	})
}

// TestRegistrations: each has its own secret and roles.
func TestRegistrations(t *testing.T) {
	s := New(Config{ClientID: "client-1", ClientSecret: "secret-1", Others: []Registration{{"bare", "secret-2", nil}, {"isolator", "secret-3", []string{"Machine.Isolate"}}}})
	for client, want := range map[string]struct {
		secret, role string
		status       int
	}{"client-1": {"secret-1", "Machine.Read.All", 200}, "bare": {"secret-2", "application roles: .", 403}, "isolator": {"secret-3", "application roles: Machine.Isolate.", 403}} {
		a := signIn(s, "/t/oauth2/v2.0/token", credentials("client_id", client, "client_secret", want.secret))
		a.want(t, 200, "")
		if got := ask(s, a.json(t)["access_token"].(string), "GET", "/api/machineactions", ""); got.status != want.status || want.status == 403 && !strings.Contains(got.body, want.role) {
			t.Errorf("%s: %d %s", client, got.status, got.body)
		}
		signIn(s, "/t/oauth2/v2.0/token", credentials("client_id", client, "client_secret", "secret-9")).want(t, 401, "")
	}
}

// TestInstanceDiscovery: the server knows itself, and nobody else.
func TestInstanceDiscovery(t *testing.T) {
	s := New(Config{})
	at := "https://login.microsoftonline.com/common/discovery/instance?api-version=1.1&authorization_endpoint="
	a := ask(s, "", "GET", at+url.QueryEscape("https://login.microsoftonline.com/tenant-1/oauth2/v2.0/authorize"), "")
	a.want(t, 200, "")
	if got := a.json(t); got["tenant_discovery_endpoint"] != "https://login.microsoftonline.com/tenant-1/v2.0/.well-known/openid-configuration" ||
		!strings.Contains(a.body, `"aliases":["login.microsoftonline.com"]`) {
		t.Error(a.body)
	}
	if b := ask(s, "", "GET", at+url.QueryEscape("https://example.org/tenant-1/oauth2/v2.0/authorize"), ""); b.status != 400 || b.json(t)["error"] != "invalid_instance" {
		t.Errorf("another host: %d %s", b.status, b.body)
	}
}

// TestKeys: a token can be verified with the key that the authority shows.
func TestKeys(t *testing.T) {
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	s := New(Config{SigningKey: key})
	token := strings.Split(s.IssueToken(time.Hour), ".")
	shown := ask(s, "", "GET", "/t/discovery/v2.0/keys", "").json(t)["keys"].([]any)[0].(map[string]any)
	header, _ := base64.RawURLEncoding.DecodeString(token[0])
	if !strings.Contains(string(header), `"kid":"`+shown["kid"].(string)+`"`) || !strings.Contains(string(header), "RS256") {
		t.Errorf("%s is not signed with %v", header, shown)
	}
	n, _ := base64.RawURLEncoding.DecodeString(shown["n"].(string))
	e, _ := base64.RawURLEncoding.DecodeString(shown["e"].(string))
	signature, _ := base64.RawURLEncoding.DecodeString(token[2])
	digest := sha256.Sum256([]byte(token[0] + "." + token[1]))
	public := &rsa.PublicKey{N: new(big.Int).SetBytes(n), E: int(new(big.Int).SetBytes(e).Int64())}
	if err := rsa.VerifyPKCS1v15(public, crypto.SHA256, digest[:], signature); err != nil {
		t.Error(err)
	}
}

// TestRevokedBeforeItsTime: a token is refused although it says that it is good.
func TestRevokedBeforeItsTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		u := newUser(t, Config{RevokeTokensAfter: time.Minute})
		time.Sleep(time.Minute - time.Nanosecond)
		u.get("/api/machineactions").want(t, 200, "")
		time.Sleep(time.Nanosecond)
		u.get("/api/machineactions").want(t, 401, "Unauthorized")
	})
}
