package defender

import (
	"crypto/rand"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

const (
	tenant    = "11111111-2222-3333-4444-555555555555"
	client    = "66666666-7777-8888-9999-000000000000"
	apiScope  = "https://api.securitycenter.microsoft.com/.default"
	appSecret = "s3cr3t~of-the-app"
)

// twoRequests are all that a first token takes.
var twoRequests = []string{"GET /" + tenant + "/v2.0/.well-known/openid-configuration", "POST /" + tenant + "/oauth2/v2.0/token"}

// TestManagedIdentity on App Service's endpoint. Its cache is the process's; a fresh token passes it by.
func TestManagedIdentity(t *testing.T) {
	for _, mode := range []string{"managed-identity", "default"} {
		for _, id := range []string{"", client} {
			t.Run(mode+" "+id, func(t *testing.T) {
				clearEnvironment(t)
				resource := "https://" + strings.ToLower(rand.Text()) + ".example" // one that no earlier run has in the cache
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
	if _, err := must(NewCredential(cfg)).Token(t.Context(), apiScope, false); err == nil || !strings.Contains(err.Error(), "no terminal") {
		t.Error(err)
	}
}

// TestDefaultChain: with nothing to go by, each link says why it is out.
func TestDefaultChain(t *testing.T) {
	clearEnvironment(t)
	t.Setenv("PATH", t.TempDir())
	t.Setenv("AZURE_TOKEN_CREDENTIALS", "dev")
	a := newAuthority(t)
	source := a.signIn(t, "default", map[string]string{"AZURE_TOKEN_CREDENTIALS": "dev", "AZURE_CLIENT_SECRET": appSecret})
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
		"no certificate in it": {"client-certificate", map[string]string{"AZURE_CLIENT_CERTIFICATE_PATH": empty, "AZURE_CLIENT_CERTIFICATE_PASSWORD": appSecret}, []string{"AZURE_CLIENT_CERTIFICATE_PATH"}},
		"no password file":     {"client-certificate", map[string]string{"AZURE_CLIENT_CERTIFICATE_PASSWORD_FILE": "/does/not/exist"}, []string{"AZURE_CLIENT_CERTIFICATE_PASSWORD_FILE", "AZURE_CLIENT_CERTIFICATE_PATH"}},
		"workload":             {"workload-identity", noTenant, []string{"AZURE_TENANT_ID", "AZURE_CLIENT_ID", "AZURE_FEDERATED_TOKEN_FILE"}},
		"device":               {"device-code", noTenant, []string{"AZURE_TENANT_ID", "AZURE_CLIENT_ID"}},
		"file":                 {"token-file", nil, []string{"DEFENDER_TOKEN_FILE"}},
		"plain authority":      {"client-secret", map[string]string{"AZURE_AUTHORITY_HOST": "http://127.0.0.1", "AZURE_CLIENT_SECRET": appSecret}, []string{"https"}},
		"no tenant":            {"client-secret", map[string]string{"AZURE_TENANT_ID": "a b", "AZURE_CLIENT_SECRET": appSecret}, []string{"tenant"}},
	} {
		_, err := NewCredential(a.config(c.mode, c.env))
		for _, say := range c.says {
			if err == nil || !strings.Contains(err.Error(), say) {
				t.Errorf("%s: %v does not name %q", name, err, say)
			}
		}
		if err != nil {
			noSecret(t, err, appSecret)
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
		env := map[string]string{"AZURE_TENANT_ID": tenant, "AZURE_CLIENT_ID": client, "AZURE_CLIENT_SECRET": appSecret}
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
