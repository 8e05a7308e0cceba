package clients

import (
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/zap"

	"example.com/unrestrict-worker/internal/message"
)

func digestOf(token string) string {
	sum := sha256.Sum256([]byte(token))
	return hex.EncodeToString(sum[:])
}

func tokenLine(token string) string { return "token_sha256: [" + digestOf(token) + "]" }

func load(t *testing.T, text string) *Set {
	t.Helper()
	path := filepath.Join(t.TempDir(), "clients.yaml")
	write(t, path, text)
	s, err := Load(path, zap.NewNop())
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

func asks(authorization ...string) *http.Request {
	r := httptest.NewRequest(http.MethodGet, "/", http.NoBody)
	for _, a := range authorization {
		r.Header.Add("Authorization", a)
	}
	return r
}

func TestMistakesAreAllNamed(t *testing.T) {
	for text, want := range map[string][]string{
		"":                   {"it names no client"},
		"clients: [\n- {":    {"line "},
		"clients: {name: a}": {"line 1: clients: give a list"},
		"clients:\n- name: a\n  nme: b\n  rate: 0\n  mtls:\n    sam: x\n- name: b\n  rate: many\n  callbacks: true\n- naem: c\nclinets: []\n": {
			"line 3: unknown key nme;", "line 4: client a: rate: give how many", "line 5: client a: mtls: san: is missing", "line 6: unknown key sam; there are san",
			"line 8: give a whole number", "line 10: unknown key naem;", "line 10: client 3: name: must be", "line 11: unknown key clinets; there are clients",
		},
		"clients:\n- {name: a, token_sha256: &x [" + digestOf("x") + "]}\n- {name: b, rate: 0, token_sha256: *x}": {"line 3: client b: rate:", "line 3: client b: token_sha256: a has that token"},
		"clients:\n- {nme: a}":       {"line 2: unknown key nme; there are name, lanes, rate, token_sha256, ", "line 2: client 1: name: must be"},
		"clients:\n- {name: a b}":    {"client 1: name: must be", "client 1: there are 0 ways"},
		"clients:\n- {name: no-way}": {"client no-way: there are 0 ways to sign in"},
		"clients:\n- {name: a, token_sha256: [secret-that-is-no-digest], rate: 0, lanes: [express]}":                        {"client a: rate:", "client a: lanes:", "client a: token_sha256: one of them"},
		"clients:\n- {name: a, " + tokenLine("x") + "}\n- {name: a, " + tokenLine("y") + "}":                                {"client a: is there twice"},
		"clients:\n- {name: a, " + tokenLine("x") + "}\n- {name: b, " + tokenLine("x") + "}":                                {"client b: token_sha256: a has that token too"},
		"clients:\n- {name: a, " + tokenLine("x") + ", mtls: {san: a}}":                                                     {"client a: there are 2 ways"},
		"clients:\n- {name: a, mtls: {}}":                                                                                   {"client a: mtls: san:"},
		"clients:\n- {name: a, oidc: {issuer: 'http://x', entra_tenant: y}}":                                                {"oidc: give either", "oidc: audience:", "oidc: app_ids:"},
		"clients:\n- {name: a, oidc: {issuer: 'http://x', audience: a, app_ids: [b]}}":                                      {"oidc: issuer: give its address, https"},
		"clients:\n- {name: a, " + tokenLine("x") + ", signer: nobody, signer_seed_file: /none}":                            {"give one of signer_seed_file and signer"},
		"clients:\n- {name: a, " + tokenLine("x") + ", signer_seed_file: /none}":                                            {"client a: signer_seed_file:"},
		"clients:\n- {name: a, " + tokenLine("x") + ", signer: SUACSSL3UAHUDXKFSNVUZRF5UHPMWZ6BFDTJ7M6USDXIEDNPPQYYYCU3VY}": {"client a: signer: is no public nkey"},
	} {
		_, err := parse([]byte(text))
		for _, part := range want {
			if err == nil || !strings.Contains(err.Error(), part) {
				t.Errorf("%q: %v, want %q", text, err, part)
			}
		}
		if err != nil && (strings.Contains(err.Error(), "secret-that") || strings.Contains(err.Error(), "SUACSSL3")) {
			t.Errorf("%q repeats a value: %v", text, err)
		}
	}
}

// TestTokens: of two tokens each is good, and nothing that is like one.
func TestTokens(t *testing.T) {
	s := load(t, "clients:\n- {name: a, token_sha256: ["+digestOf("one")+", "+digestOf("two")+"]}\n- {name: b, lanes: [bulk], rate: 7, "+tokenLine("three")+"}\n")
	for token, want := range map[string]string{"one": "a", "two": "a", "three": "b"} {
		if c, err := s.SignIn(asks("bearer " + token)); err != nil || c.Name != want {
			t.Errorf("%s: %+v, %v", token, c, err)
		}
	}
	c, _ := s.SignIn(asks("Bearer three"))
	if diff := cmp.Diff([]message.Lane{message.LaneBulk}, c.Lanes); diff != "" || c.Rate != 7 {
		t.Errorf("%s, rate %d", diff, c.Rate)
	}
	for _, headers := range [][]string{nil, {""}, {"one"}, {"Bearer"}, {"Bearer "}, {"Bearer  one"}, {"Bearer one "}, {"Bearer on"}, {"Basic one"}, {"Bearer " + digestOf("one")}, {"Bearer one", "Bearer one"}} {
		if c, err := s.SignIn(asks(headers...)); !errors.Is(err, ErrUnauthenticated) {
			t.Errorf("%q: %+v, %v", headers, c, err)
		}
	}
}

// TestFileIsReadAnew: what a change says counts; one that is wrong leaves the last in force and is said; the rate that was used
// stays used.
func TestFileIsReadAnew(t *testing.T) {
	s := load(t, "clients:\n- {name: a, rate: 2, "+tokenLine("one")+"}\n")
	in := func(token string) bool { _, err := s.SignIn(asks("Bearer " + token)); return err == nil }
	c, _ := s.SignIn(asks("Bearer one"))
	s.Allow(c, false)
	write(t, s.path, "clients:\n- {name: a, rate: 2, token_sha256: ["+digestOf("one")+", "+digestOf("two")+"]}\n")
	if s.reload(); !in("one") || !in("two") || s.Err() != nil {
		t.Errorf("after a token was added: %t %t %v", in("one"), in("two"), s.Err())
	}
	write(t, s.path, "clients: [")
	if s.reload(); !in("two") || s.Err() == nil {
		t.Errorf("after a mistake: %t %v", in("two"), s.Err())
	}
	if err := os.Remove(s.path); err != nil {
		t.Fatal(err)
	}
	if s.reload(); !in("two") || s.Err() == nil {
		t.Errorf("without a file: %t %v", in("two"), s.Err())
	}
	write(t, s.path, "clients:\n- {name: a, rate: 2, "+tokenLine("two")+"}\n")
	if s.reload(); in("one") || !in("two") || s.Err() != nil {
		t.Errorf("after a token was taken out: %t %t %v", in("one"), in("two"), s.Err())
	}
	c, _ = s.SignIn(asks("Bearer two"))
	if _, ok := s.Allow(c, false); !ok {
		t.Error("the second of two is refused")
	}
	if wait, ok := s.Allow(c, false); ok || wait <= 0 || wait > time.Minute {
		t.Errorf("the third of two: %t, %s", ok, wait)
	}
	for n := range 20 {
		if _, ok := s.Allow(c, true); !ok {
			t.Fatalf("GET %d of 20 is refused", n+1)
		}
	}
	if _, ok := s.Allow(c, true); ok {
		t.Error("the 21st GET of 20 is allowed")
	}
}

func TestLocalKeepsItsToken(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "data")
	_, file, err := Local(dir, zap.NewNop())
	if err != nil {
		t.Fatal(err)
	}
	token, err := os.ReadFile(file)
	if info, _ := os.Stat(file); err != nil || info.Mode().Perm() != 0o600 {
		t.Fatalf("%v, %v", info, err)
	}
	s, _, err := Local(dir, zap.NewNop())
	if err != nil {
		t.Fatal(err)
	}
	if c, err := s.SignIn(asks("Bearer " + strings.TrimSpace(string(token)))); err != nil || c.Name != "local" || len(c.Lanes) != 3 {
		t.Errorf("%+v, %v", c, err)
	}
}

// TestCertificates go by their alternative names alone, and only where the handshake has verified them.
func TestCertificates(t *testing.T) {
	s := load(t, "clients:\n- {name: snow, mtls: {san: snow.contoso.com}}\n- {name: spiffe, mtls: {san: 'spiffe://contoso/jira'}}\n")
	id, _ := url.Parse("spiffe://contoso/jira")
	for want, cert := range map[string]*x509.Certificate{
		"snow": {DNSNames: []string{"other", "snow.contoso.com"}}, "spiffe": {URIs: []*url.URL{id}}, "": {DNSNames: []string{"x.snow.contoso.com"}},
	} {
		r := asks()
		r.TLS = &tls.ConnectionState{VerifiedChains: [][]*x509.Certificate{{cert}}, PeerCertificates: []*x509.Certificate{cert}}
		if c, err := s.SignIn(r); want != "" && (err != nil || c.Name != want) || want == "" && !errors.Is(err, ErrUnauthenticated) {
			t.Errorf("%s: %+v, %v", want, c, err)
		}
		r.TLS.VerifiedChains = nil
		if c, err := s.SignIn(r); !errors.Is(err, ErrUnauthenticated) {
			t.Errorf("not verified: %+v, %v", c, err)
		}
	}
}

func TestEntraHasTwoIssuers(t *testing.T) {
	list, err := parse([]byte("clients:\n- {name: a, oidc: {entra_tenant: 72f988bf-86f1, audience: api://x, app_ids: [y]}}"))
	if err != nil {
		t.Fatal(err)
	}
	want := []string{"https://login.microsoftonline.com/72f988bf-86f1/v2.0", "https://sts.windows.net/72f988bf-86f1/"}
	if diff := cmp.Diff(want, list[0].oidc.issuers); diff != "" || list[0].oidc.discovery != want[0] {
		t.Error(fmt.Sprint(diff, list[0].oidc.discovery))
	}
}

func TestMistakesOfCallbacks(t *testing.T) {
	for hook, want := range map[string]string{
		"{name: a b}":                           "callbacks: 1: name:",
		"{name: a, url: 'http://siem.contoso'}": "callbacks: a: url: give an address with https",
		"{name: a, url: 'https://u:p@x'}":       "callbacks: a: url:",
		"{name: a, url: 'https://x'}":           "give either secret_file",
		"{name: a, outcomes: [won]}":            "callbacks: a: outcomes:",
		"{name: a, secret_file: /none}":         "callbacks: a: secret_file:",
		"{name: a, key_file: /none}":            "callbacks: a: key_file:",
		"{name: a}, {name: a}":                  "callbacks: a: is there twice",
	} {
		_, err := parse([]byte("clients:\n- {name: c, " + tokenLine("x") + ", callbacks: [" + hook + "]}"))
		if err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "u:p") {
			t.Errorf("%s: %v, want %s", hook, err, want)
		}
	}
}
