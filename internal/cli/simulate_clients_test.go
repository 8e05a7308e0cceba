package cli

import (
	"context"
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"io"
	"math/big"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/cloud"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"
	"github.com/Azure/azure-sdk-for-go/sdk/azidentity"
	"go.uber.org/zap"

	"example.com/unrestrict-worker/internal/cli/demo"
	"example.com/unrestrict-worker/internal/config"
)

// playbook is a client of a simulator that runs.
type playbook struct {
	t     *testing.T
	http  *http.Client
	api   string
	token string
}

// call sends a request, with a body if there is one, and returns the status and the JSON of the answer.
func (p playbook) call(method, path, body string) (int, map[string]any) {
	p.t.Helper()
	r, err := http.NewRequestWithContext(p.t.Context(), method, p.api+path, strings.NewReader(body))
	if err != nil {
		p.t.Fatal(err)
	}
	r.Header.Set("Authorization", "Bearer "+p.token)
	if body != "" {
		r.Header.Set("Content-Type", "application/json")
	}
	resp, err := p.http.Do(r)
	if err != nil {
		p.t.Fatal(err)
	}
	defer resp.Body.Close()
	var out map[string]any
	text, err := io.ReadAll(resp.Body)
	if err != nil || len(text) > 0 && json.Unmarshal(text, &out) != nil {
		p.t.Fatalf("%s %s: %d %s %v", method, path, resp.StatusCode, text, err)
	}
	return resp.StatusCode, out
}

// trusting is a client that trusts the simulator's CA and nobody else.
func trusting(t *testing.T, caPath string) *http.Client {
	t.Helper()
	ca, err := os.ReadFile(caPath)
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(ca)
	return &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool}, DisableKeepAlives: true}}
}

// TestAzidentityAgainstSimulate: Azure's library for Go signs in with the secret and with a certificate, and a playbook
// restricts, releases, meets a duplicate, follows and cancels.
func TestAzidentityAgainstSimulate(t *testing.T) {
	t.Setenv("TMPDIR", t.TempDir())
	s := startSimulate(t, demo.SimulateCmd{Addr: "127.0.0.1:0", TLS: true, Set: map[string]string{"pending": "1m", "limits": "none"}})
	defer func() { _ = s.stop() }()
	client := trusting(t, s.env["SSL_CERT_FILE"])
	options := azcore.ClientOptions{Transport: client, Cloud: cloud.Configuration{ActiveDirectoryAuthorityHost: s.env["AZURE_AUTHORITY_HOST"]}}
	tenant, app := s.env["AZURE_TENANT_ID"], s.env["AZURE_CLIENT_ID"]
	secret, err := azidentity.NewClientSecretCredential(tenant, app, s.env["AZURE_CLIENT_SECRET"], &azidentity.ClientSecretCredentialOptions{ClientOptions: options, DisableInstanceDiscovery: true})
	if err != nil {
		t.Fatal(err)
	}
	key, chain := selfSigned(t)
	certificate, err := azidentity.NewClientCertificateCredential(tenant, app, chain, key, &azidentity.ClientCertificateCredentialOptions{ClientOptions: options, DisableInstanceDiscovery: true})
	if err != nil {
		t.Fatal(err)
	}
	for name, credential := range map[string]azcore.TokenCredential{"secret": secret, "certificate": certificate} {
		token, err := credential.GetToken(t.Context(), policy.TokenRequestOptions{Scopes: []string{"https://api.securitycenter.microsoft.com/.default"}})
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		playbook{t, client, s.env["DEFENDER_API_URL"], token.Token}.plays()
	}
}

// plays is what the clients of test/clients do too.
func (p playbook) plays() {
	p.t.Helper()
	device := "/api/machines/1e5bc9d7e413ddd7902c2932e418702b84d0cc07"
	status, restricted := p.call("POST", device+"/restrictCodeExecution", `{"Comment":"suspicious"}`)
	released, action := p.call("POST", device+"/unrestrictCodeExecution", `{"Comment":"cleaned"}`)
	again, refused := p.call("POST", device+"/unrestrictCodeExecution", `{"Comment":"cleaned"}`)
	if status != 201 || released != 201 || again != 400 || refused["error"].(map[string]any)["code"] != "ActiveRequestAlreadyExists" {
		p.t.Fatalf("%d, %d, %d: %v", status, released, again, refused)
	}
	id := action["id"].(string)
	if _, got := p.call("GET", "/api/machineactions/"+id, ""); got["status"] != "Pending" {
		p.t.Errorf("followed: %v", got)
	}
	if _, got := p.call("GET", "/api/machineactions?$filter="+url.QueryEscape("id eq "+id), ""); len(got["value"].([]any)) != 1 {
		p.t.Errorf("listed: %v", got)
	}
	for _, one := range []string{id, restricted["id"].(string)} {
		if status, got := p.call("POST", "/api/machineactions/"+one+"/cancel", `{"Comment":"not yet"}`); status != 200 || got["id"] != one || got["status"] != "Cancelled" {
			p.t.Errorf("cancelled: %d %v", status, got)
		}
	}
}

func selfSigned(t *testing.T) (*rsa.PrivateKey, []*x509.Certificate) {
	t.Helper()
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return key, []*x509.Certificate{cert}
}

// printed finds what simulate says of a name.
func (s simulated) printed(name string) string {
	for line := range strings.Lines(s.text) {
		if v, found := strings.CutPrefix(line, name+" "); found {
			return strings.TrimSpace(v)
		}
	}
	return ""
}

// signIn asks the printed token endpoint for a token.
func (s simulated) signIn(t *testing.T, client *http.Client, id, secret string) playbook {
	t.Helper()
	endpoint, _, _ := strings.Cut(s.printed("token endpoint"), " ")
	resp, err := client.PostForm(endpoint, url.Values{
		"grant_type": {"client_credentials"}, "client_id": {id}, "client_secret": {secret}, "scope": {"https://api.securitycenter.microsoft.com/.default"},
	})
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	var answer struct {
		Token string `json:"access_token"`
	}
	if err := json.NewDecoder(resp.Body).Decode(&answer); err != nil || resp.StatusCode != 200 {
		t.Fatalf("%s: %d %v", endpoint, resp.StatusCode, err)
	}
	return playbook{t, client, s.env["DEFENDER_API_URL"], answer.Token}
}

// TestSimulateTellsHowToSignIn, without TLS too: by what it prints two registrations sign in, one with the roles asked for
// and one with none.
func TestSimulateTellsHowToSignIn(t *testing.T) {
	t.Setenv("TMPDIR", t.TempDir())
	s := startSimulate(t, demo.SimulateCmd{Addr: "127.0.0.1:0", Role: []string{"Machine.Isolate", "Machine.Read.All"}})
	defer func() { _ = s.stop() }()
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	device := "/api/machines/" + strings.Repeat("ab", 20)
	able := s.signIn(t, client, s.printed("client id"), s.printed("client secret"))
	if status, _ := able.call("POST", device+"/isolate", `{"Comment":"c","IsolationType":"Full"}`); status != 201 {
		t.Errorf("isolate: %d", status)
	}
	if status, got := able.call("POST", device+"/unrestrictCodeExecution", `{"Comment":"c"}`); status != 403 {
		t.Errorf("unrestrict: %d %v", status, got)
	}
	words := strings.Fields(s.printed("without roles")) // client id ID, client secret SECRET
	bare := s.signIn(t, client, strings.TrimSuffix(words[2], ","), words[5])
	if status, _ := bare.call("GET", "/api/machineactions", ""); status != 403 {
		t.Errorf("without roles: %d", status)
	}
	none := startSimulate(t, demo.SimulateCmd{Addr: "127.0.0.1:0", Role: []string{"none"}})
	defer func() { _ = none.stop() }()
	if status, _ := none.signIn(t, client, none.printed("client id"), none.printed("client secret")).call("GET", "/api/machineactions", ""); status != 403 {
		t.Errorf("--role none: %d", status)
	}
}

// TestSimulateWithFaults from the start.
func TestSimulateWithFaults(t *testing.T) {
	t.Setenv("TMPDIR", t.TempDir())
	s := startSimulate(t, demo.SimulateCmd{Addr: "127.0.0.1:0", Fault: []string{`{"op":"unrestrict","status":503,"times":1}`, `{"op":"list","status":500}`}})
	defer func() { _ = s.stop() }()
	p := s.signIn(t, &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}, s.printed("client id"), s.printed("client secret"))
	for _, want := range []int{503, 201} {
		if status, _ := p.call("POST", "/api/machines/"+strings.Repeat("ab", 20)+"/unrestrictCodeExecution", `{"Comment":"c"}`); status != want {
			t.Errorf("answered %d, want %d", status, want)
		}
	}
	if status, _ := p.call("GET", "/api/machineactions", ""); status != 500 {
		t.Errorf("list: %d", status)
	}
}

// TestSimulateWithMachines: those of the list exist, with their outcome and names, and no other; without a list there are
// some to look up, and every id exists.
func TestSimulateWithMachines(t *testing.T) {
	t.Setenv("TMPDIR", t.TempDir())
	path := filepath.Join(t.TempDir(), "machines.csv")
	a, b, absent := strings.Repeat("ab", 20), strings.Repeat("cd", 20), strings.Repeat("ef", 20)
	text := "\ufeffMachineId, dnsName,ip,outcome,offline,pending,inProgress\n" + strings.ToUpper(a) + ",build-7,10.1.1.7,Failed,,0s,0s\n" + b + ",,,,true,,1m\n"
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	s := startSimulate(t, demo.SimulateCmd{Addr: "127.0.0.1:0", Machines: path})
	defer func() { _ = s.stop() }()
	p := s.signIn(t, client, s.printed("client id"), s.printed("client secret"))
	for machine, want := range map[string]string{a: "Failed", b: "Pending"} {
		if status, got := p.call("POST", "/api/machines/"+machine+"/unrestrictCodeExecution", `{"Comment":"c"}`); status != 201 || got["status"] != want {
			t.Errorf("%s: %d %v", machine, status, got)
		}
	}
	if status, _ := p.call("POST", "/api/machines/"+absent+"/unrestrictCodeExecution", `{"Comment":"c"}`); status != 404 {
		t.Errorf("one that is not listed: %d", status)
	}
	if _, got := p.call("GET", "/api/machines/build-7", ""); got["id"] != a || got["lastIpAddress"] != "10.1.1.7" {
		t.Errorf("by its name: %v", got)
	}
	if !strings.Contains(s.text, "The 2 machines of "+path+" exist.") {
		t.Error(s.text)
	}
	given := startSimulate(t, demo.SimulateCmd{Addr: "127.0.0.1:0"})
	defer func() { _ = given.stop() }()
	p = given.signIn(t, client, given.printed("client id"), given.printed("client secret"))
	if _, got := p.call("GET", "/api/machines?$filter="+url.QueryEscape("computerDnsName eq 'pc-2.contoso.com'"), ""); len(got["value"].([]any)) != 1 {
		t.Errorf("the sample: %v", got)
	}
	if status, _ := p.call("POST", "/api/machines/"+absent+"/unrestrictCodeExecution", `{"Comment":"c"}`); status != 201 {
		t.Errorf("without a list: %d", status)
	}
}

// TestSimulateRefusesBadInput names what is wrong, and where.
func TestSimulateRefusesBadInput(t *testing.T) {
	id, dir := strings.Repeat("ab", 20), t.TempDir()
	for text, says := range map[string]string{
		"":                              "its first line must name the columns",
		"machineId\nabc\n":              `line 2, column machineId: "abc" is not an id of 40 hexadecimal digits`,
		"dnsName\npc\n":                 "there is no column machineId",
		"machineId,colour\n" + id + ",": "line 2, column colour: it is none of machineId",
		"machineId,offline\n" + id + ",perhaps\n": "line 2, column offline",
		"machineId,pending\n" + id + ",5\n":       "line 2, column pending",
		"machineId,pending\n" + id + "\n":         "wrong number of fields",
	} {
		path := filepath.Join(dir, "machines.csv")
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		wantBadInput(t, demo.SimulateCmd{Machines: path}, says)
	}
	wantBadInput(t, demo.SimulateCmd{Machines: filepath.Join(dir, "absent.csv")}, "absent.csv")
	wantBadInput(t, demo.SimulateCmd{Set: map[string]string{"duplicates": "201"}}, `no setting "duplicates"`)
	wantBadInput(t, demo.SimulateCmd{Fault: []string{`{"statsu":503}`}}, `--fault {"statsu":503}`)
	wantBadInput(t, demo.SimulateCmd{Set: map[string]string{"listLag": "5"}}, `listLag: "5" is no value`)
}

func wantBadInput(t *testing.T, c demo.SimulateCmd, says string) {
	t.Helper()
	c.Addr = "127.0.0.1:0"
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	err := c.Serve(ctx, io.Discard, zap.NewNop())
	if bad := (*config.InputError)(nil); !errors.As(err, &bad) || !strings.Contains(err.Error(), says) {
		t.Errorf("%v, want %q as bad input", err, says)
	}
}

// TestSimulateUnderOtherNames: clients whose hosts are fixed find the names in the certificate.
func TestSimulateUnderOtherNames(t *testing.T) {
	t.Setenv("TMPDIR", t.TempDir())
	s := startSimulate(t, demo.SimulateCmd{Addr: "127.0.0.1:0", TLS: true, Name: []string{"login.microsoftonline.com", "api.securitycenter.microsoft.com"}})
	defer func() { _ = s.stop() }()
	client := trusting(t, s.env["SSL_CERT_FILE"])
	address := strings.TrimPrefix(s.env["DEFENDER_API_URL"], "https://")
	client.Transport.(*http.Transport).DialContext = func(ctx context.Context, network, _ string) (net.Conn, error) { // as a hosts file would
		return (&net.Dialer{}).DialContext(ctx, network, address)
	}
	credential, err := azidentity.NewClientSecretCredential(s.env["AZURE_TENANT_ID"], s.env["AZURE_CLIENT_ID"], s.env["AZURE_CLIENT_SECRET"],
		&azidentity.ClientSecretCredentialOptions{ClientOptions: azcore.ClientOptions{Transport: client}}) // instance discovery is on
	if err != nil {
		t.Fatal(err)
	}
	token, err := credential.GetToken(t.Context(), policy.TokenRequestOptions{Scopes: []string{"https://api.securitycenter.microsoft.com/.default"}})
	if err != nil {
		t.Fatal(err)
	}
	p := playbook{t, client, "https://api.securitycenter.microsoft.com", token.Token}
	if status, _ := p.call("GET", "/api/machines?$top=1", ""); status != 200 {
		t.Errorf("answered %d", status)
	}
}
