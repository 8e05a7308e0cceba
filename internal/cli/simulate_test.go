package cli

import (
	"bufio"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"io"
	"maps"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/zap"

	"example.com/unrestrict-worker/internal/cli/demo"
	"example.com/unrestrict-worker/internal/cli/session"
)

// simulated is a running `worker simulate`: what it printed to export, and its end.
type simulated struct {
	env  map[string]string
	text string
	stop func() error
}

func startSimulate(t *testing.T, o demo.SimulateCmd) simulated {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	out, in := io.Pipe()
	ended := make(chan error, 1)
	go func() {
		err := o.Serve(ctx, in, zap.NewNop())
		_ = in.Close()
		ended <- err
	}()
	s := simulated{env: map[string]string{}}
	for lines := bufio.NewScanner(out); lines.Scan(); {
		s.text += lines.Text() + "\n"
		if v, found := strings.CutPrefix(lines.Text(), "export "); found {
			name, value, _ := strings.Cut(v, "=")
			s.env[name] = value
		}
		if strings.HasPrefix(lines.Text(), "Interrupt") {
			break
		}
	}
	s.stop = func() error {
		cancel()
		return <-ended
	}
	return s
}

func printedNames(env map[string]string) []string { return slices.Sorted(maps.Keys(env)) }

// simulatedRelease asks for a release and returns the status.
func simulatedRelease(t *testing.T, c *http.Client, api, token string) int {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodPost,
		api+"/api/machines/"+strings.Repeat("ab", 20)+"/unrestrictCodeExecution", strings.NewReader(`{"Comment":"c"}`))
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Authorization", "Bearer "+token)
	r.Header.Set("Content-Type", "application/json")
	resp, err := c.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	return resp.StatusCode
}

func TestSimulate(t *testing.T) {
	t.Setenv("TMPDIR", t.TempDir())
	s := startSimulate(t, demo.SimulateCmd{Addr: "127.0.0.1:0"})
	if d := cmp.Diff([]string{"DEFENDER_API_URL", "DEFENDER_AUTH", "DEFENDER_TOKEN_FILE"}, printedNames(s.env)); d != "" {
		t.Error(d)
	}
	api, path := s.env["DEFENDER_API_URL"], s.env["DEFENDER_TOKEN_FILE"]
	if !strings.HasPrefix(api, "http://127.0.0.1:") || s.env["DEFENDER_AUTH"] != "token-file" {
		t.Errorf("printed %v", s.env)
	}
	info, err := os.Stat(path)
	if err != nil || info.Mode() != 0o600 {
		t.Fatalf("token file %v: %v", info, err)
	}
	token, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	if got := simulatedRelease(t, client, api, "none"); got != 401 {
		t.Errorf("without a token: %d", got)
	}
	if got := simulatedRelease(t, client, api, strings.TrimSpace(string(token))); got != 201 {
		t.Errorf("with the token: %d", got)
	}
	if strings.Contains(s.text, strings.TrimSpace(string(token))) {
		t.Error("the token was printed")
	}
	if err := s.stop(); err != nil {
		t.Errorf("ended with %v", err)
	}
	if _, err := os.Stat(filepath.Dir(path)); !os.IsNotExist(err) {
		t.Errorf("its files are still there: %v", err)
	}
}

func TestSimulateTLS(t *testing.T) {
	t.Setenv("TMPDIR", t.TempDir())
	s := startSimulate(t, demo.SimulateCmd{Addr: "localhost:0", TLS: true})
	defer func() {
		if err := s.stop(); err != nil {
			t.Errorf("ended with %v", err)
		}
		if _, err := os.Stat(s.env["SSL_CERT_FILE"]); !os.IsNotExist(err) {
			t.Errorf("the CA is still there: %v", err)
		}
	}()
	want := []string{
		"AZURE_AUTHORITY_HOST", "AZURE_CLIENT_ID", "AZURE_CLIENT_SECRET", "AZURE_TENANT_ID",
		"DEFENDER_API_URL", "DEFENDER_AUTH", "DEFENDER_DISABLE_INSTANCE_DISCOVERY", "SSL_CERT_FILE",
	}
	if d := cmp.Diff(want, printedNames(s.env)); d != "" {
		t.Fatal(d)
	}
	if s.env["DEFENDER_AUTH"] != "client-secret" || s.env["DEFENDER_DISABLE_INSTANCE_DISCOVERY"] != "true" ||
		s.env["AZURE_AUTHORITY_HOST"] != s.env["DEFENDER_API_URL"]+"/" || !strings.Contains(s.text, "Its CA: "+s.env["SSL_CERT_FILE"]+"\n") {
		t.Errorf("printed %s", s.text)
	}
	ca, err := os.ReadFile(s.env["SSL_CERT_FILE"])
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(ca)
	client := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool}, DisableKeepAlives: true}}
	form := url.Values{
		"grant_type": {"client_credentials"}, "client_id": {s.env["AZURE_CLIENT_ID"]}, "client_secret": {s.env["AZURE_CLIENT_SECRET"]},
		"scope": {"https://api.securitycenter.microsoft.com/.default"},
	}
	resp, err := client.PostForm(s.env["AZURE_AUTHORITY_HOST"]+s.env["AZURE_TENANT_ID"]+"/oauth2/v2.0/token", form)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	var answer struct {
		Token string `json:"access_token"`
	}
	if err := json.NewDecoder(resp.Body).Decode(&answer); err != nil || resp.StatusCode != 200 {
		t.Fatalf("token: %d, %v", resp.StatusCode, err)
	}
	if got := simulatedRelease(t, client, s.env["DEFENDER_API_URL"], answer.Token); got != 201 {
		t.Errorf("with the token: %d", got)
	}
}

// TestSimulateInAFolder: containers that share a folder find the files under names known beforehand.
func TestSimulateInAFolder(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "new", "folder")
	for _, o := range []demo.SimulateCmd{{Addr: "127.0.0.1:0", Dir: dir}, {Addr: "127.0.0.1:0", Dir: dir, TLS: true}} {
		s := startSimulate(t, o)
		name, file := "DEFENDER_TOKEN_FILE", "token"
		if o.TLS {
			name, file = "SSL_CERT_FILE", "ca.pem"
		}
		if s.env[name] != filepath.Join(dir, file) {
			t.Errorf("printed %v", s.env)
		}
		if err := s.stop(); err != nil {
			t.Errorf("ended with %v", err)
		}
		if info, err := os.Stat(filepath.Join(dir, file)); err != nil || info.Mode() != 0o600 {
			t.Errorf("%s: %v, %v", file, info, err)
		}
	}
}

func TestSimulateRenewsTheTokenFile(t *testing.T) {
	s := demo.NewSimulation(t.TempDir())
	var seen []string
	for range 2 {
		if err := s.Renew(); err != nil {
			t.Fatal(err)
		}
		token, err := os.ReadFile(s.TokenPath())
		if err != nil {
			t.Fatal(err)
		}
		seen = append(seen, string(token))
	}
	if seen[0] == seen[1] {
		t.Error("the same token")
	}
	if entries, err := os.ReadDir(s.Dir); err != nil || len(entries) != 1 {
		t.Errorf("left over: %v, %v", entries, err)
	}
}

func TestSimulateIsForThisMachineAlone(t *testing.T) {
	for _, addr := range []string{"0.0.0.0:8443", ":8443", "[::]:8443", "192.0.2.1:8443", "example.com:8443"} {
		err := (&demo.SimulateCmd{Addr: addr}).Serve(t.Context(), io.Discard, zap.NewNop())
		if err == nil || !strings.Contains(err.Error(), "not a loopback address") || !strings.Contains(err.Error(), addr) {
			t.Errorf("%s: %v", addr, err)
		}
	}
	if err := (&demo.SimulateCmd{Addr: "8443"}).Serve(t.Context(), io.Discard, zap.NewNop()); err == nil || !strings.Contains(err.Error(), "host:port") {
		t.Errorf("no port: %v", err)
	}
}

func TestShellQuote(t *testing.T) {
	for in, want := range map[string]string{"/tmp/a-b_c.d": "/tmp/a-b_c.d", "/tmp/a b": "'/tmp/a b'", "it's": `'it'\''s'`, "$HOME": "'$HOME'"} {
		if got := session.ShellQuote(in); got != want {
			t.Errorf("%s: %s, want %s", in, got, want)
		}
	}
}
