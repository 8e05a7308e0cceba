package defender

import (
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"maps"
	"math/big"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// authority is Entra's part: the discovery of endpoints and the token endpoint, over TLS.
type authority struct {
	srv *httptest.Server

	mu     sync.Mutex
	paths  []string
	forms  []url.Values
	tokens int
	// refuse answers a token request instead of a token, if it returns a status.
	refuse func(form url.Values) (int, string)
	life   int
}

func newAuthority(t *testing.T) *authority {
	a := &authority{life: 3599}
	a.srv = httptest.NewUnstartedServer(a)
	a.srv.Config.ErrorLog = silent
	a.srv.StartTLS()
	t.Cleanup(a.srv.Close)
	return a
}

func (a *authority) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	_ = r.ParseForm()
	a.mu.Lock()
	defer a.mu.Unlock()
	a.paths = append(a.paths, r.Method+" "+r.URL.Path)
	base := a.srv.URL + "/" + tenant
	w.Header().Set("Content-Type", "application/json")
	switch {
	case strings.HasSuffix(r.URL.Path, "/.well-known/openid-configuration"):
		_, _ = fmt.Fprintf(w, `{"issuer":"%[1]s/v2.0","authorization_endpoint":"%[1]s/oauth2/v2.0/authorize","token_endpoint":"%[1]s/oauth2/v2.0/token"}`, base)
	case strings.HasSuffix(r.URL.Path, "/oauth2/v2.0/devicecode"):
		_, _ = io.WriteString(w, `{"user_code":"CODE","device_code":"device","verification_uri":"https://microsoft.com/devicelogin","expires_in":900,"interval":1,"message":"Enter CODE."}`)
	case strings.HasSuffix(r.URL.Path, "/oauth2/v2.0/token"):
		a.forms = append(a.forms, r.PostForm)
		if a.refuse != nil {
			if status, body := a.refuse(r.PostForm); status != 0 {
				w.WriteHeader(status)
				_, _ = io.WriteString(w, body)
				return
			}
		}
		a.tokens++
		_ = json.NewEncoder(w).Encode(a.token(r.PostForm.Get("device_code") != ""))
	default:
		w.WriteHeader(404)
	}
}

func (a *authority) token(ofUser bool) map[string]any {
	out := map[string]any{"token_type": "Bearer", "expires_in": a.life, "access_token": fmt.Sprint("opaque-token-", a.tokens)}
	if ofUser {
		out["client_info"] = base64.RawURLEncoding.EncodeToString([]byte(`{"uid":"u","utid":"` + tenant + `"}`))
		out["id_token"] = jwt(map[string]any{"aud": client, "tid": tenant, "preferred_username": "user", "exp": 4102444800})
	}
	return out
}

func (a *authority) set(f func()) {
	a.mu.Lock()
	defer a.mu.Unlock()
	f()
}

// signIn makes the source of one mode, on variables that stand in no environment but this.
func (a *authority) signIn(t *testing.T, mode string, env map[string]string) CredentialSource {
	t.Helper()
	source, err := NewCredential(a.config(mode, env))
	if err != nil {
		t.Fatal(err)
	}
	return source
}

func (a *authority) config(mode string, env map[string]string) CredentialConfig {
	all := map[string]string{"AZURE_AUTHORITY_HOST": a.srv.URL + "/", "AZURE_TENANT_ID": tenant, "AZURE_CLIENT_ID": client}
	maps.Copy(all, env)
	return CredentialConfig{
		Mode: mode, Cloud: "commercial", DisableInstanceDiscovery: true, Getenv: func(k string) string { return all[k] }, Transport: a.srv.Client(),
	}
}

func file(t *testing.T, content string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// pemFile is a key and a certificate as client-certificate reads them.
func pemFile(t *testing.T) string {
	t.Helper()
	key := must(rsa.GenerateKey(rand.Reader, 2048))
	cert := &x509.Certificate{SerialNumber: big.NewInt(1), NotBefore: time.Now(), NotAfter: time.Now().Add(time.Hour)}
	block := func(kind string, der []byte) string {
		return string(pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}))
	}
	return file(t, block("PRIVATE KEY", must(x509.MarshalPKCS8PrivateKey(key)))+
		block("CERTIFICATE", must(x509.CreateCertificate(rand.Reader, cert, cert, &key.PublicKey, key))))
}

// TestSignIn: each mode with an authority asks twice for the first token, and not again for the next; a fresh token is
// asked for anew.
func TestSignIn(t *testing.T) {
	clearEnvironment(t)
	assertion := "eyJhbGciOiJSUzI1NiJ9.eyJzdWIiOiJ3b3JrZXIifQ.federated-signature"
	for name, c := range map[string]struct {
		mode string
		env  map[string]string
		form map[string]string // "*": any
	}{
		"client secret":           {"client-secret", map[string]string{"AZURE_CLIENT_SECRET": appSecret}, map[string]string{"client_secret": appSecret}},
		"client secret in a file": {"client-secret", map[string]string{"AZURE_CLIENT_SECRET": "old", "AZURE_CLIENT_SECRET_FILE": file(t, appSecret+"\r\n")}, map[string]string{"client_secret": appSecret}},
		"certificate":             {"client-certificate", map[string]string{"AZURE_CLIENT_CERTIFICATE_PATH": pemFile(t)}, map[string]string{"client_assertion": "*"}},
		"workload identity":       {"workload-identity", map[string]string{"AZURE_FEDERATED_TOKEN_FILE": file(t, assertion)}, map[string]string{"client_assertion": assertion}},
		"default, secret":         {"default", map[string]string{"AZURE_CLIENT_SECRET": appSecret}, map[string]string{"client_secret": appSecret}},
		"default, secret file":    {"default", map[string]string{"AZURE_CLIENT_SECRET_FILE": file(t, appSecret)}, map[string]string{"client_secret": appSecret}},
		"default, certificate":    {"default", map[string]string{"AZURE_CLIENT_CERTIFICATE_PATH": pemFile(t)}, map[string]string{"client_assertion": "*"}},
	} {
		t.Run(name, func(t *testing.T) {
			a := newAuthority(t)
			source := a.signIn(t, c.mode, c.env)
			for range 2 {
				tok, err := source.Token(t.Context(), apiScope, false)
				if err != nil || tok.Value != "opaque-token-1" || time.Until(tok.Expires).Round(time.Minute) != time.Hour {
					t.Fatalf("%+v: %v", tok, err)
				}
			}
			if diff := cmp.Diff(twoRequests, a.paths); diff != "" {
				t.Fatal(diff)
			}
			c.form["client_id"], c.form["grant_type"] = client, "client_credentials"
			c.form["scope"] = apiScope + " openid offline_access profile"
			for k, want := range c.form {
				if got := a.forms[0].Get(k); got != want && (want != "*" || got == "") {
					t.Errorf("%s=%q, want %q", k, got, want)
				}
			}
			if tok, err := source.Token(t.Context(), apiScope, true); err != nil || tok.Value != "opaque-token-2" {
				t.Errorf("fresh: %+v: %v", tok, err)
			}
		})
	}
}

// clearEnvironment takes from the tests what azidentity reads for itself.
func clearEnvironment(t *testing.T) {
	for _, v := range os.Environ() {
		name, _, _ := strings.Cut(v, "=")
		if strings.HasPrefix(name, "AZURE_") || strings.HasPrefix(name, "IDENTITY_") || strings.HasPrefix(name, "MSI_") || name == "IMDS_ENDPOINT" {
			t.Setenv(name, "")
			_ = os.Unsetenv(name)
		}
	}
}

// TestSecretFileReplaced: after a failure the file is read anew.
func TestSecretFileReplaced(t *testing.T) {
	a := newAuthority(t)
	a.refuse = func(form url.Values) (int, string) {
		if form.Get("client_secret") != appSecret {
			return 401, `{"error":"invalid_client","error_description":"AADSTS7000222: expired"}`
		}
		return 0, ""
	}
	path := file(t, "old-secret-value")
	source := a.signIn(t, "client-secret", map[string]string{"AZURE_CLIENT_SECRET_FILE": path})
	if _, err := source.Token(t.Context(), apiScope, false); err == nil || !strings.Contains(err.Error(), "secret has expired") {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(appSecret), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := source.Token(t.Context(), apiScope, false); err != nil {
		t.Fatal(err)
	}
	_ = os.Remove(path)
	if _, err := source.Token(t.Context(), apiScope, true); err == nil || !strings.Contains(err.Error(), "AZURE_CLIENT_SECRET_FILE") {
		t.Fatal(err)
	}
}

// TestSecretFileRotated: the next token is asked for with what the file holds by then, before the old secret is refused.
func TestSecretFileRotated(t *testing.T) {
	a := newAuthority(t)
	a.life = 1 // each token is a new one
	var asked []string
	a.refuse = func(form url.Values) (int, string) {
		asked = append(asked, form.Get("client_secret"))
		return 0, ""
	}
	path := file(t, "old-secret-value")
	source := a.signIn(t, "client-secret", map[string]string{"AZURE_CLIENT_SECRET_FILE": path})
	for _, secret := range []string{"old-secret-value", appSecret} {
		if err := os.WriteFile(path, []byte(secret), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := source.Token(t.Context(), apiScope, false); err != nil {
			t.Fatal(err)
		}
	}
	if diff := cmp.Diff([]string{"old-secret-value", appSecret}, asked); diff != "" {
		t.Error(diff)
	}
}

// TestSignInErrors name the fault and the fix, and repeat no secret, whatever the answer repeats.
func TestSignInErrors(t *testing.T) {
	echo := func(form url.Values) string { return strings.ReplaceAll(form.Encode(), "%7E", "~") }
	for name, c := range map[string]struct {
		refuse func(url.Values) (int, string)
		says   string
	}{
		"wrong secret": {func(f url.Values) (int, string) {
			return 401, `{"error":"invalid_client","error_description":"AADSTS7000215: Invalid client secret provided. Got ` + echo(f) + `","error_codes":[7000215]}`
		}, "HTTP 401 invalid_client AADSTS7000215: the client secret is wrong"},
		"unknown code": {func(url.Values) (int, string) {
			return 400, `{"error":"invalid_request","error_description":"AADSTS123: x"}`
		}, "HTTP 400 invalid_request AADSTS123"},
		"secret as a code": {func(f url.Values) (int, string) { return 400, `{"error":"` + f.Get("client_secret") + `"}` }, "HTTP 400"},
		"html":             {func(f url.Values) (int, string) { return 403, "<html>" + echo(f) }, "HTTP 403"},
		"not JSON":         {func(f url.Values) (int, string) { return 200, "token=" + echo(f) }, "ClientSecretCredential"},
		"no expiry": {func(f url.Values) (int, string) {
			return 200, `{"access_token":"opaque-and-secret","x":"` + echo(f) + `"}`
		}, "ClientSecretCredential"},
		"no token": {func(f url.Values) (int, string) { return 200, `{"expires_in":3600,"x":"` + echo(f) + `"}` }, "ClientSecretCredential"},
	} {
		t.Run(name, func(t *testing.T) {
			a := newAuthority(t)
			a.refuse = c.refuse
			tokens := NewTokens(a.signIn(t, "client-secret", map[string]string{"AZURE_CLIENT_SECRET": appSecret}), apiScope)
			t.Cleanup(tokens.Close)
			err := tokens.Check(t.Context())
			if e := expect(t, err, System, codeToken, false); !strings.Contains(e.Reason, c.says) {
				t.Errorf("reason %q does not name %q", e.Reason, c.says)
			} else if host := strings.TrimPrefix(a.srv.URL, "https://"); strings.HasPrefix(c.says, "HTTP") && !strings.Contains(e.Reason, "the sign-in endpoint "+host+" answers "+c.says) {
				t.Errorf("reason %q does not say which endpoint: %s", e.Reason, host)
			}
			noSecret(t, err, appSecret, "opaque-and-secret")
		})
	}
}

// TestExpiredFromTheEndpoint: tokens that have ended when they come are none.
func TestExpiredFromTheEndpoint(t *testing.T) {
	a := newAuthority(t)
	tokens := NewTokens(a.signIn(t, "client-secret", map[string]string{"AZURE_CLIENT_SECRET": appSecret}), apiScope)
	t.Cleanup(tokens.Close)
	for _, life := range []int{0, -60} {
		a.set(func() { a.life = life })
		tokens.mu.Lock()
		tokens.retryAt = time.Time{}
		tokens.mu.Unlock()
		expect(t, tokens.Check(t.Context()), System, codeToken, false)
	}
}

func TestAuthorityUnreachable(t *testing.T) {
	a := newAuthority(t)
	cfg := a.config("client-secret", map[string]string{"AZURE_CLIENT_SECRET": appSecret})
	cfg.Transport = nil // our own does not know the authority's CA
	source := must(NewCredential(cfg)).(*azureCredential)
	source.options.Retry.MaxRetries = -1
	source.held = nil
	_, err := source.Token(t.Context(), apiScope, false)
	if err == nil || !strings.Contains(err.Error(), "certificate") {
		t.Errorf("%v", err)
	}
	source.options.Transport.(boundedTransport).Transporter.(*http.Client).CloseIdleConnections()
}

// TestNoRedirectOfTheSecret: our own transport for tokens sends the secret nowhere else.
func TestNoRedirectOfTheSecret(t *testing.T) {
	elsewhere := serve(t, func(http.ResponseWriter, *http.Request) { t.Error("the redirect was followed") })
	source := must(NewCredential(newAuthority(t).config("client-secret", map[string]string{"AZURE_CLIENT_SECRET": appSecret}))).(*azureCredential)
	cfg := source.cfg
	cfg.Transport = nil
	own := must(NewCredential(cfg)).(*azureCredential).options.Transport.(boundedTransport).Transporter.(*http.Client)
	resp, err := own.Post(serve(t, answer(307, "", "Location", elsewhere.URL)).URL, "text/plain", strings.NewReader(appSecret))
	if err != nil || resp.StatusCode != 307 {
		t.Fatal(err)
	}
	_ = resp.Body.Close()
	own.CloseIdleConnections()
}

// TestSignInRefused: of a refusal only registered words are shown, and Entra's numbers.
func TestSignInRefused(t *testing.T) {
	for body, want := range map[string]string{
		`{"error":"invalid_client","error_description":"AADSTS7000215: Invalid secret ` + appSecret + `"}`: "HTTP 400 invalid_client AADSTS7000215: the client secret is wrong",
		`{"error":"temporarily_unavailable"}`:                             "HTTP 400 temporarily_unavailable",
		`{"error":"s_cret_of_the_app","error_description":"x"}`:           "HTTP 400",
		`{"error":"invalid_client ","error_description":"y"}`:             "HTTP 400",
		`{"error":{"code":"invalid_client"}}`:                             "HTTP 400",
		`{"error_description":"AADSTS` + strings.Repeat("1", 1000) + `"}`: "HTTP 400 AADSTS1111111111",
		`<html>` + appSecret:                                              "HTTP 400",
	} {
		got := signInRefused("", 400, []byte(body))
		rest, ok := strings.CutPrefix(got, "the sign-in endpoint answers "+want)
		if !ok || rest != "" && !strings.HasPrefix(rest, ": set AZURE_CLIENT_SECRET") {
			t.Errorf("%.80s: %q", body, got)
		}
	}
}
