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

const (
	tenant   = "11111111-2222-3333-4444-555555555555"
	client   = "66666666-7777-8888-9999-000000000000"
	apiScope = "https://api.securitycenter.microsoft.com/.default"
	secret   = "s3cr3t~of-the-app"
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
	for k, v := range env {
		all[k] = v
	}
	return CredentialConfig{
		Mode: mode, Cloud: "commercial", DisableInstanceDiscovery: true, Getenv: func(k string) string { return all[k] }, Transport: a.srv.Client(),
	}
}

// twoRequests are all that a first token takes.
var twoRequests = []string{"GET /" + tenant + "/v2.0/.well-known/openid-configuration", "POST /" + tenant + "/oauth2/v2.0/token"}

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
	block := func(kind string, der []byte) string { return string(pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der})) }
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
		"client secret":           {"client-secret", map[string]string{"AZURE_CLIENT_SECRET": secret}, map[string]string{"client_secret": secret}},
		"client secret in a file": {"client-secret", map[string]string{"AZURE_CLIENT_SECRET": "old", "AZURE_CLIENT_SECRET_FILE": file(t, secret+"\r\n")}, map[string]string{"client_secret": secret}},
		"certificate":             {"client-certificate", map[string]string{"AZURE_CLIENT_CERTIFICATE_PATH": pemFile(t)}, map[string]string{"client_assertion": "*"}},
		"workload identity":       {"workload-identity", map[string]string{"AZURE_FEDERATED_TOKEN_FILE": file(t, assertion)}, map[string]string{"client_assertion": assertion}},
		"default, secret":         {"default", map[string]string{"AZURE_CLIENT_SECRET": secret}, map[string]string{"client_secret": secret}},
		"default, secret file":    {"default", map[string]string{"AZURE_CLIENT_SECRET_FILE": file(t, secret)}, map[string]string{"client_secret": secret}},
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
		if form.Get("client_secret") != secret {
			return 401, `{"error":"invalid_client","error_description":"AADSTS7000222: expired"}`
		}
		return 0, ""
	}
	path := file(t, "old-secret-value")
	source := a.signIn(t, "client-secret", map[string]string{"AZURE_CLIENT_SECRET_FILE": path})
	if _, err := source.Token(t.Context(), apiScope, false); err == nil || !strings.Contains(err.Error(), "secret has expired") {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(secret), 0o600); err != nil {
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
		"unknown code":     {func(url.Values) (int, string) { return 400, `{"error":"invalid_request","error_description":"AADSTS123: x"}` }, "HTTP 400 invalid_request AADSTS123"},
		"secret as a code": {func(f url.Values) (int, string) { return 400, `{"error":"` + f.Get("client_secret") + `"}` }, "HTTP 400"},
		"html":             {func(f url.Values) (int, string) { return 403, "<html>" + echo(f) }, "HTTP 403"},
		"not JSON":         {func(f url.Values) (int, string) { return 200, "token=" + echo(f) }, "ClientSecretCredential"},
		"no expiry":        {func(f url.Values) (int, string) { return 200, `{"access_token":"opaque-and-secret","x":"` + echo(f) + `"}` }, "ClientSecretCredential"},
		"no token":         {func(f url.Values) (int, string) { return 200, `{"expires_in":3600,"x":"` + echo(f) + `"}` }, "ClientSecretCredential"},
	} {
		t.Run(name, func(t *testing.T) {
			a := newAuthority(t)
			a.refuse = c.refuse
			tokens := NewTokens(a.signIn(t, "client-secret", map[string]string{"AZURE_CLIENT_SECRET": secret}), apiScope)
			t.Cleanup(tokens.Close)
			err := tokens.Check(t.Context())
			if e := expect(t, err, System, codeToken, false); !strings.Contains(e.Reason, c.says) {
				t.Errorf("reason %q does not name %q", e.Reason, c.says)
			}
			noSecret(t, err, secret, "opaque-and-secret")
		})
	}
}

// TestExpiredFromTheEndpoint: tokens that have ended when they come are none.
func TestExpiredFromTheEndpoint(t *testing.T) {
	a := newAuthority(t)
	tokens := NewTokens(a.signIn(t, "client-secret", map[string]string{"AZURE_CLIENT_SECRET": secret}), apiScope)
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
	cfg := a.config("client-secret", map[string]string{"AZURE_CLIENT_SECRET": secret})
	cfg.Transport = nil // our own does not know the authority's CA
	source := must(NewCredential(cfg)).(*azureCredential)
	source.options.Retry.MaxRetries = -1
	source.held = nil
	_, err := source.Token(t.Context(), apiScope, false)
	if err == nil || !strings.Contains(err.Error(), "certificate") {
		t.Errorf("%v", err)
	}
	source.options.Transport.(*http.Client).CloseIdleConnections()
}

// TestNoRedirectOfTheSecret: our own transport for tokens sends the secret nowhere else.
func TestNoRedirectOfTheSecret(t *testing.T) {
	elsewhere := serve(t, func(http.ResponseWriter, *http.Request) { t.Error("the redirect was followed") })
	source := must(NewCredential(newAuthority(t).config("client-secret", map[string]string{"AZURE_CLIENT_SECRET": secret}))).(*azureCredential)
	cfg := source.cfg
	cfg.Transport = nil
	own := must(NewCredential(cfg)).(*azureCredential).options.Transport.(*http.Client)
	resp, err := own.Post(serve(t, answer(307, "", "Location", elsewhere.URL)).URL, "text/plain", strings.NewReader(secret))
	if err != nil || resp.StatusCode != 307 {
		t.Fatal(err)
	}
	_ = resp.Body.Close()
	own.CloseIdleConnections()
}

// TestManagedIdentity on App Service's endpoint. Its cache is the process's; a fresh token passes it by.
func TestManagedIdentity(t *testing.T) {
	for i, mode := range []string{"managed-identity", "default"} {
		for _, id := range []string{"", client} {
			t.Run(mode+" "+id, func(t *testing.T) {
				clearEnvironment(t)
				resource := fmt.Sprintf("https://api-%d%d.example", i, len(id))
				n := 0
				srv := serve(t, func(w http.ResponseWriter, r *http.Request) {
					if q := r.URL.Query(); r.Header.Get("X-IDENTITY-HEADER") != "header-secret" || q.Get("resource") != resource || q.Get("client_id") != id {
						t.Errorf("%s %v", r.RequestURI, r.Header)
					}
					n++
					_, _ = fmt.Fprintf(w, `{"access_token":"opaque-token-%d","expires_on":"%d","resource":"x","token_type":"Bearer"}`, n, time.Now().Add(time.Hour).Unix())
				})
				t.Setenv("IDENTITY_ENDPOINT", srv.URL)
				t.Setenv("IDENTITY_HEADER", "header-secret")
				if id != "" {
					t.Setenv("AZURE_CLIENT_ID", id)
				}
				source := must(NewCredential(CredentialConfig{Mode: mode, Cloud: "commercial", Transport: srv.Client()}))
				for _, want := range []string{"opaque-token-1", "opaque-token-1"} {
					if tok, err := source.Token(t.Context(), resource+"/.default", false); err != nil || tok.Value != want {
						t.Fatalf("%+v: %v", tok, err)
					}
				}
				if tok, err := source.Token(t.Context(), resource+"/.default", true); err != nil || tok.Value != "opaque-token-2" {
					t.Fatalf("fresh: %+v: %v", tok, err)
				}
			})
		}
	}
}

func TestAzureCLI(t *testing.T) {
	clearEnvironment(t)
	dir := t.TempDir()
	script := "#!/bin/sh\necho \"$*\" >" + dir + "/args\necho '{\"accessToken\":\"opaque-token\",\"expires_on\":4102444800}'\n"
	if err := os.WriteFile(filepath.Join(dir, "az"), []byte(script), 0o700); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", dir+":"+os.Getenv("PATH"))
	source := newAuthority(t).signIn(t, "azure-cli", nil)
	tok, err := source.Token(t.Context(), apiScope, false)
	if err != nil || tok.Value != "opaque-token" || tok.Expires.Unix() != 4102444800 {
		t.Fatalf("%+v: %v", tok, err)
	}
	want := "account get-access-token -o json --resource https://api.securitycenter.microsoft.com --tenant " + tenant
	if got := strings.TrimSpace(string(must(os.ReadFile(filepath.Join(dir, "args"))))); got != want {
		t.Errorf("az %s", got)
	}
	if err := os.WriteFile(filepath.Join(dir, "az"), []byte("#!/bin/sh\necho 'Please run az login' >&2\nexit 1\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	if _, err := source.Token(t.Context(), apiScope, false); err == nil || !strings.Contains(err.Error(), "az login") {
		t.Error(err)
	}
}

func TestDeviceCode(t *testing.T) {
	a := newAuthority(t)
	pending := 1
	a.refuse = func(url.Values) (int, string) {
		if pending--; pending >= 0 {
			return 400, `{"error":"authorization_pending"}`
		}
		return 0, ""
	}
	cfg := a.config("device-code", nil)
	var shown []string
	cfg.Prompt = func(s string) { shown = append(shown, s) }
	tok, err := must(NewCredential(cfg)).Token(t.Context(), apiScope, false)
	if err != nil || tok.Value != "opaque-token-1" {
		t.Fatalf("%+v: %v", tok, err)
	}
	if diff := cmp.Diff([]string{"Enter CODE."}, shown); diff != "" {
		t.Error(diff)
	}
	cfg.Prompt = nil
	if _, err := must(NewCredential(cfg)).Token(t.Context(), apiScope, false); err == nil || !strings.Contains(err.Error(), "nobody") {
		t.Error(err)
	}
}

// TestDefaultChain: with nothing to go by, each link says why it is out.
func TestDefaultChain(t *testing.T) {
	clearEnvironment(t)
	t.Setenv("PATH", t.TempDir())
	t.Setenv("AZURE_TOKEN_CREDENTIALS", "dev")
	a := newAuthority(t)
	source := a.signIn(t, "default", map[string]string{"AZURE_TOKEN_CREDENTIALS": "dev", "AZURE_CLIENT_SECRET": secret})
	_, err := source.Token(t.Context(), apiScope, false)
	if err == nil || !strings.Contains(err.Error(), "AzureCLICredential") || !strings.Contains(err.Error(), "AzureDeveloperCLICredential") {
		t.Errorf("%v", err)
	}
	if len(a.paths) > 0 {
		t.Errorf("the environment was used although it is not selected: %v", a.paths)
	}
}

// TestCredentialConfig: every mistake at once, by the variables' names, and no secret.
func TestCredentialConfig(t *testing.T) {
	a := newAuthority(t)
	empty, noTenant := file(t, ""), map[string]string{"AZURE_TENANT_ID": "", "AZURE_CLIENT_ID": ""}
	for name, c := range map[string]struct {
		mode string
		env  map[string]string
		says []string
	}{
		"unknown mode":         {"password", nil, []string{"managed-identity"}},
		"secret":               {"client-secret", noTenant, []string{"AZURE_TENANT_ID is not set", "AZURE_CLIENT_ID is not set", "AZURE_CLIENT_SECRET_FILE"}},
		"no secret file":       {"client-secret", map[string]string{"AZURE_CLIENT_SECRET_FILE": "/does/not/exist"}, []string{"AZURE_CLIENT_SECRET_FILE", "no such file"}},
		"empty secret file":    {"client-secret", map[string]string{"AZURE_CLIENT_SECRET_FILE": empty}, []string{"AZURE_CLIENT_SECRET_FILE", "empty"}},
		"certificate":          {"client-certificate", noTenant, []string{"AZURE_TENANT_ID", "AZURE_CLIENT_ID", "AZURE_CLIENT_CERTIFICATE_PATH is not set"}},
		"no certificate file":  {"client-certificate", map[string]string{"AZURE_CLIENT_CERTIFICATE_PATH": "/does/not/exist"}, []string{"AZURE_CLIENT_CERTIFICATE_PATH", "no such file"}},
		"no certificate in it": {"client-certificate", map[string]string{"AZURE_CLIENT_CERTIFICATE_PATH": empty, "AZURE_CLIENT_CERTIFICATE_PASSWORD": secret}, []string{"AZURE_CLIENT_CERTIFICATE_PATH"}},
		"no password file":     {"client-certificate", map[string]string{"AZURE_CLIENT_CERTIFICATE_PASSWORD_FILE": "/does/not/exist"}, []string{"AZURE_CLIENT_CERTIFICATE_PASSWORD_FILE", "AZURE_CLIENT_CERTIFICATE_PATH"}},
		"workload":             {"workload-identity", noTenant, []string{"AZURE_TENANT_ID", "AZURE_CLIENT_ID", "AZURE_FEDERATED_TOKEN_FILE"}},
		"device":               {"device-code", noTenant, []string{"AZURE_TENANT_ID", "AZURE_CLIENT_ID"}},
		"file":                 {"token-file", nil, []string{"DEFENDER_TOKEN_FILE"}},
		"plain authority":      {"client-secret", map[string]string{"AZURE_AUTHORITY_HOST": "http://127.0.0.1", "AZURE_CLIENT_SECRET": secret}, []string{"https"}},
		"no tenant":            {"client-secret", map[string]string{"AZURE_TENANT_ID": "a b", "AZURE_CLIENT_SECRET": secret}, []string{"tenant"}},
	} {
		_, err := NewCredential(a.config(c.mode, c.env))
		for _, say := range c.says {
			if err == nil || !strings.Contains(err.Error(), say) {
				t.Errorf("%s: %v does not name %q", name, err, say)
			}
		}
		if err != nil {
			noSecret(t, err, secret)
		}
	}
	cfg := a.config("client-secret", nil)
	cfg.Cloud = "mars"
	if _, err := NewCredential(cfg); err == nil || !strings.Contains(err.Error(), "DEFENDER_CLOUD") {
		t.Errorf("%v", err)
	}
}

// TestAuthorityByCloud: the cloud names the authority unless AZURE_AUTHORITY_HOST does.
func TestAuthorityByCloud(t *testing.T) {
	for cloud, want := range map[string]string{
		"commercial": "https://login.microsoftonline.com/", "gcc": "https://login.microsoftonline.com/",
		"gcc-high": "https://login.microsoftonline.us/", "dod": "https://login.microsoftonline.us/",
	} {
		env := map[string]string{"AZURE_TENANT_ID": tenant, "AZURE_CLIENT_ID": client, "AZURE_CLIENT_SECRET": secret}
		cfg := CredentialConfig{Mode: "client-secret", Cloud: cloud, Getenv: func(k string) string { return env[k] }}
		if got := must(NewCredential(cfg)).(*azureCredential).options.Cloud.ActiveDirectoryAuthorityHost; got != want {
			t.Errorf("%s: %s", cloud, got)
		}
		env["AZURE_AUTHORITY_HOST"] = "https://login.example/"
		if got := must(NewCredential(cfg)).(*azureCredential).options.Cloud.ActiveDirectoryAuthorityHost; got != "https://login.example/" {
			t.Errorf("%s: %s", cloud, got)
		}
	}
}
