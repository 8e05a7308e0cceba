package config

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// homeWith is a home folder with contexts of the nats command.
func homeWith(t *testing.T, contexts map[string]string) string {
	t.Helper()
	home := t.TempDir()
	folder := filepath.Join(home, ".config", "nats", "context")
	if err := os.MkdirAll(folder, 0o700); err != nil {
		t.Fatal(err)
	}
	for name, text := range contexts {
		if err := os.WriteFile(filepath.Join(folder, name+".json"), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return home
}

// TestNATSContext: what it says counts where flags, variables and the --config file say nothing.
func TestNATSContext(t *testing.T) {
	creds := write(t, "a.creds", "x")
	home := homeWith(t, map[string]string{
		"lab":   `{"description":"","url":"nats://lab-1,nats://lab-2","user":"u","password":"opensesame","jetstream_domain":"hub","inbox_prefix":"_INBOX_lab","tls_first":true,"color_scheme":"red","nsc":""}`,
		"creds": `{"url":"tls://prod","creds":"$FOLDER/a.creds"}`,
		"token": `{"url":"nats://t","token":"opensesame"}`,
	})
	named := write(t, "prod.json", `{"url":"nats://file","token":"t"}`)
	tilde := homeWith(t, map[string]string{"ca": `{"url":"nats://t","creds":"~/a.creds"}`})
	if err := os.WriteFile(filepath.Join(tilde, "a.creds"), []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name string
		env  map[string]string
		args []string
		want string // URLs, creds, user, password, token, domain, inbox prefix, TLS first
	}{
		{"a name", map[string]string{"NATS_CONTEXT": "lab", "HOME": home}, nil, "nats://lab-1,nats://lab-2  u opensesame  hub _INBOX_lab true"},
		{"another configuration folder", map[string]string{"NATS_CONTEXT": "lab", "HOME": "/nowhere", "XDG_CONFIG_HOME": filepath.Join(home, ".config")}, nil, "nats://lab-1,nats://lab-2  u opensesame  hub _INBOX_lab true"},
		{"a file", map[string]string{"NATS_CONTEXT": named}, nil, "nats://file    t   false"},
		{"a variable in a path", map[string]string{"NATS_CONTEXT": "creds", "HOME": home, "FOLDER": filepath.Dir(creds)}, nil, "tls://prod " + creds + "      false"},
		{"the home folder in a path", map[string]string{"NATS_CONTEXT": "ca", "HOME": tilde}, nil, "nats://t " + tilde + "/a.creds      false"},
		{"variables come first", map[string]string{"NATS_CONTEXT": "lab", "HOME": home, "NATS_URL": "nats://mine", "NATS_JS_DOMAIN": "leaf"}, nil, "nats://mine  u opensesame  leaf _INBOX_lab true"},
		{"flags come first", map[string]string{"HOME": home}, []string{"--nats-context=lab", "--nats-tls-first=false"}, "nats://lab-1,nats://lab-2  u opensesame  hub _INBOX_lab false"},
		{"the file comes first", map[string]string{"NATS_CONTEXT": "token", "HOME": home}, []string{"--config=" + write(t, "w.yaml", "nats_url: nats://yaml\n")}, "nats://yaml    opensesame   false"},
		{"another way to sign in stands alone", map[string]string{"NATS_CONTEXT": "lab", "HOME": home, "NATS_CREDS": creds}, nil, "nats://lab-1,nats://lab-2 " + creds + "    hub _INBOX_lab true"},
		{"another password of the same user", map[string]string{"NATS_CONTEXT": "lab", "HOME": home, "NATS_PASSWORD_FILE": write(t, "p", "another")}, nil, "nats://lab-1,nats://lab-2  u another  hub _INBOX_lab true"},
		{"none", map[string]string{"HOME": home}, nil, "       false"},
	} {
		got, mistakes := load(t, c.env, c.args...)
		n := got.NATS
		line := fmt.Sprintf("%s %s %s %s %s %s %s %t", strings.Join(n.URLs, ","), n.Creds, n.User, n.Password.Reveal(), n.Token.Reveal(), n.Domain, n.InboxPrefix, n.TLSFirst)
		if diff := cmp.Diff(c.want, line); diff != "" || len(mistakes) > 0 {
			t.Errorf("%s: %v\n%s", c.name, mistakes, diff)
		}
	}
}

// TestNATSContextMistakes: one that can't be read, or says what can't be done, is bad configuration.
func TestNATSContextMistakes(t *testing.T) {
	home := homeWith(t, map[string]string{
		"production": `{"url":"nats://a"}`, "nowhere": `{"token":"opensesame"}`, "nsc": `{"nsc":"nsc://op/acc/opensesame"}`, "proxied": `{"url":"nats://a","socks_proxy":"socks5://opensesame@b"}`,
		"broken": `{"token":"opensesame`, "list": `{"url":["nats://a"]}`, "two": `{"url":"nats://a","token":"opensesame","user":"u"}`, "bad": `{"url":"http://a","password":"opensesame"}`,
	})
	for context, want := range map[string]string{
		"prodution":       "NATS_CONTEXT (--nats-context) is \"prodution\" in the environment: there is no such context in " + home + "/.config/nats/context; there are ",
		"producton":       "did you mean production?",
		"/not/there.json": "/not/there.json: no such file or directory; give the name of a context",
		home:              "it is a folder",
		"nowhere":         "it names no server; add its url to " + home + "/.config/nats/context/nowhere.json, or set NATS_URL",
		"nsc":             "nsc.json has nsc, which this program can't do",
		"proxied":         "proxied.json has socks_proxy, which",
		"broken":          "broken.json is no JSON object",
		"list":            "list.json: url is neither a text",
		"two":             "NATS_USER (--nats-user) is \"u\" in the context " + home + "/.config/nats/context/two.json: give one way of signing in",
		"bad":             "NATS_URL (--nats-url) is \"http://a\" in the context ",
	} {
		_, mistakes := load(t, map[string]string{"HOME": home, "NATS_CONTEXT": context})
		if text := fmt.Sprint(mistakes); !strings.Contains(text, want) || strings.Contains(text, "opensesame") || mistakes[0].Group != "broker" {
			t.Errorf("%s: want %q, got %s", context, want, text)
		}
	}
	_, mistakes := load(t, map[string]string{"HOME": t.TempDir(), "NATS_CONTEXT": "lab"})
	if text := fmt.Sprint(mistakes); !strings.Contains(text, "make one with `nats context save`") {
		t.Error(text)
	}
}
