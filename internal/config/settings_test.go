package config

import (
	"crypto/ed25519"
	"crypto/rand"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"math/big"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// load is what `worker run ARGS` would make of its settings.
func load(t *testing.T, env map[string]string, args ...string) (Settings, []Mistake) {
	t.Helper()
	given := Sources{Flags: map[string]string{}, Environ: environOf(env)}
	for _, arg := range args {
		name, value, _ := strings.Cut(strings.TrimPrefix(arg, "--"), "=")
		if name == "config" {
			given.File = &value
			continue
		}
		given.Flags[name] = value
	}
	return NewTable().Load(given)
}

func environOf(env map[string]string) (environ []string) {
	for name, value := range env {
		environ = append(environ, name+"="+value)
	}
	return environ
}

func write(t *testing.T, name, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

const (
	signerA = "UDXU4RCSJNZOIQHZNWXHXORDPRTGNJAHAHFRGZNEEJCPQTT2M7NLCNF4"
	signerB = "UA6KOMQ67XOE3FHE37W4OXADVXVYISBNLTBUT2LSY5VFKAIJ7CRDR2RZ"
	seed    = "SUACSSL3UAHUDXKFSNVUZRF5UHPMWZ6BFDTJ7M6USDXIEDNPPQYYYCU3VY"
)

// TestDefaults holds every variable against its default.
func TestDefaults(t *testing.T) {
	got, mistakes := load(t, nil)
	if len(mistakes) > 0 {
		t.Fatal(mistakes)
	}
	want := Settings{
		Embedded: Embedded{Addr: "127.0.0.1:4222"},
		Names: Names{
			Subject: "remediation.unrestrict", Stream: "REMEDIATION", Consumer: "unrestrict-worker",
			ResultsSubject: "remediation.results", ResultsStream: "REMEDIATION_RESULTS",
			DeadletterSubject: "remediation.deadletter", DeadletterStream: "REMEDIATION_DEADLETTER",
			ControlSubject: "remediation.control", ControlStream: "REMEDIATION_CONTROL",
		},
		Provision: true, Replicas: 1, DataDir: "./data",
		Concurrency: 16, AckWait: 20 * time.Second,
		Backoff:     Backoff{Initial: 500 * time.Millisecond, Max: time.Minute, Multiplier: 2, Randomization: 0.5},
		GiveUpAfter: 24 * time.Hour, ReconcileDelay: 5 * time.Second, ShutdownTimeout: 25 * time.Second,
		Rates:    Rates{PerMinute: 100, PerHour: 1500, UrgentReserve: 5},
		Track:    Track{Enabled: true, PollInterval: 15 * time.Second, Timeout: 72 * time.Hour},
		Accept:   Accept{GuardAfter: time.Hour},
		Defender: Defender{Cloud: "commercial", Auth: "default", Timeout: 30 * time.Second},
		Admin:    Admin{Addr: "127.0.0.1:8080"},
		Intake:   Intake{Addr: "127.0.0.1:8090"},
		Log:      Log{Level: "info"},
	}
	if diff := cmp.Diff(want, got, cmp.AllowUnexported(Secret{})); diff != "" {
		t.Error(diff)
	}
}

// TestEverySetting gives each variable a value of its own and looks where it
// ends up: none is forgotten on its way, none swapped with another.
func TestEverySetting(t *testing.T) {
	file, policy := write(t, "file", "from-file\n"), write(t, "policy.yaml", "default: {}\n")
	cert, key := writePair(t)
	got, mistakes := load(t, map[string]string{
		"NATS_URL": "a:4222, tls://b", "NATS_USER": "user", "NATS_PASSWORD_FILE": file,
		"WORKER_EMBEDDED_ADDR": "0.0.0.0:1", "WORKER_EMBEDDED_TOKEN": "embedded",
		"WORKER_SUBJECT": "s.a", "WORKER_STREAM": "A", "WORKER_CONSUMER": "c", "WORKER_RESULTS_SUBJECT": "s.b", "WORKER_RESULTS_STREAM": "B",
		"WORKER_DEADLETTER_SUBJECT": "s.c", "WORKER_DEADLETTER_STREAM": "C", "WORKER_CONTROL_SUBJECT": "s.d", "WORKER_CONTROL_STREAM": "D",
		"WORKER_PROVISION": "false", "WORKER_REPLICAS": "3", "WORKER_DATA_DIR": "/var/lib/worker",
		"WORKER_CONCURRENCY": "1024", "WORKER_ACK_WAIT": "2s", "WORKER_BACKOFF_INITIAL": "3s", "WORKER_BACKOFF_MAX": "4s",
		"WORKER_BACKOFF_MULTIPLIER": "1.5", "WORKER_BACKOFF_RANDOMIZATION": "0.25", "WORKER_GIVE_UP_AFTER": "5s", "WORKER_RECONCILE_DELAY": "6s",
		"WORKER_DRY_RUN": "TRUE", "WORKER_SHUTDOWN_TIMEOUT": "0",
		"WORKER_RATE_PER_MINUTE": "0", "WORKER_RATE_PER_HOUR": "7", "WORKER_URGENT_RESERVE": "8",
		"WORKER_TRACK": "false", "WORKER_POLL_INTERVAL": "8s", "WORKER_TRACK_TIMEOUT": "9s",
		"WORKER_TRUSTED_SIGNERS": signerA + " soar=" + signerB, "WORKER_POLICY_FILE": policy, "WORKER_MAX_REQUEST_AGE": "10s", "WORKER_GUARD_AFTER": "11s",
		"DEFENDER_CLOUD": "GCC-High", "DEFENDER_API_URL": "http://localhost:8443/", "DEFENDER_SCOPE": "scope", "DEFENDER_AUTH": "token-file",
		"DEFENDER_TOKEN_FILE": "/not/there/yet", "DEFENDER_DISABLE_INSTANCE_DISCOVERY": "1", "DEFENDER_TIMEOUT": "12s",
		"WORKER_INTAKE_ADDR": ":10", "WORKER_INTAKE_URL": "https://intake.example.com/", "WORKER_INTAKE_CLIENTS_FILE": "/not/there/yet", "WORKER_INTAKE_CLIENT_CA": cert,
		"WORKER_INTAKE_TLS_CERT": cert, "WORKER_INTAKE_TLS_KEY": key,
		"WORKER_ADMIN_ADDR": ":9", "WORKER_ADMIN_TOKEN_FILE": file, "LOG_LEVEL": "DEBUG", "LOG_FORMAT": "console",
	})
	if len(mistakes) > 0 {
		t.Fatal(mistakes)
	}
	if diff := cmp.Diff([]string{signerA, "soar"}, got.Accept.Signers.Names()); diff != "" {
		t.Error(diff)
	}
	if got.Accept.Policy == nil {
		t.Error("the policy was not loaded")
	}
	got.Accept.Signers, got.Accept.Policy = nil, nil
	want := Settings{
		NATS:     NATS{URLs: []string{"nats://a:4222", "tls://b"}, User: "user", Password: Secret{"from-file", file}},
		Embedded: Embedded{Addr: "0.0.0.0:1", Token: Secret{value: "embedded"}},
		Names: Names{
			Subject: "s.a", Stream: "A", Consumer: "c", ResultsSubject: "s.b", ResultsStream: "B", DeadletterSubject: "s.c", DeadletterStream: "C", ControlSubject: "s.d", ControlStream: "D",
		},
		Replicas: 3, DataDir: "/var/lib/worker",
		Concurrency: 1024, AckWait: 2 * time.Second,
		Backoff:     Backoff{Initial: 3 * time.Second, Max: 4 * time.Second, Multiplier: 1.5, Randomization: 0.25},
		GiveUpAfter: 5 * time.Second, ReconcileDelay: 6 * time.Second, DryRun: true,
		Rates:    Rates{PerHour: 7, UrgentReserve: 8},
		Track:    Track{PollInterval: 8 * time.Second, Timeout: 9 * time.Second},
		Accept:   Accept{MaxRequestAge: 10 * time.Second, GuardAfter: 11 * time.Second},
		Defender: Defender{Cloud: "gcc-high", APIURL: "http://localhost:8443", Scope: "scope", Auth: "token-file", TokenFile: "/not/there/yet", DisableInstanceDiscovery: true, Timeout: 12 * time.Second},
		Admin:    Admin{Addr: ":9", Token: Secret{"from-file", file}},
		Intake:   Intake{Addr: ":10", URL: "https://intake.example.com", ClientsFile: "/not/there/yet", ClientCA: cert, TLSCert: cert, TLSKey: key},
		Log:      Log{Level: "debug", Format: "console"},
	}
	if diff := cmp.Diff(want, got, cmp.AllowUnexported(Secret{})); diff != "" {
		t.Error(diff)
	}
}

func TestPrecedence(t *testing.T) {
	config := write(t, "worker.yaml", "rate_per_hour: 7\nrate_per_minute: 8\nconcurrency: 9\nack_wait: 10s\ntrack: false\nnats_url: [\"a:1\", b:2]\nlog_format:\n")
	env := map[string]string{"WORKER_RATE_PER_MINUTE": "80", "WORKER_CONCURRENCY": "90", "WORKER_ACK_WAIT": ""}
	got, mistakes := load(t, env, "--config="+config, "--concurrency=900", "--dry-run=true")
	if len(mistakes) > 0 {
		t.Fatal(mistakes)
	}
	want := [...]any{7, 80, 900, 10 * time.Second, false, true, "nats://a:1 nats://b:2", ""}
	if diff := cmp.Diff(want, [...]any{
		got.Rates.PerHour, got.Rates.PerMinute, got.Concurrency, got.AckWait, got.Track.Enabled, got.DryRun, strings.Join(got.NATS.URLs, " "), got.Log.Format,
	}); diff != "" {
		t.Error(diff)
	}
}

func TestMistakes(t *testing.T) {
	empty, seeds, folder := write(t, "empty", "\n"), write(t, "seeds", "# none\n"), t.TempDir()
	policy := write(t, "policy.yaml", "default: {}\n") // good, but there are no signers
	for _, one := range []string{
		"NATS_URL=http://a:4222", "NATS_URL=nats://", "NATS_URL=,", "NATS_URL=nats://u:p?w@h", "NATS_URL=nats://u:p#w@h", "NATS_URL=nats://to/ken@h", "NATS_CREDS=/not/there", "NATS_NKEY=" + folder, "NATS_CA=" + empty,
		"NATS_CERT=" + empty + " NATS_KEY=" + empty, "NATS_KEY NATS_CERT=" + empty, "NATS_CERT NATS_KEY=" + empty,
		"NATS_TOKEN NATS_TOKEN=a NATS_TOKEN_FILE=" + empty, "NATS_TOKEN_FILE=" + empty, "NATS_TOKEN_FILE=" + folder,
		"NATS_USER NATS_PASSWORD=a", "NATS_TOKEN NATS_TOKEN=a NATS_CREDS=" + empty, "WORKER_ADMIN_TOKEN_FILE=/not/there", "WORKER_EMBEDDED_TOKEN_FILE=/not/there",
		"WORKER_EMBEDDED_ADDR=0.0.0.0:4222", "WORKER_EMBEDDED_ADDR=[::]:4222", "WORKER_EMBEDDED_ADDR=:4222", "WORKER_EMBEDDED_ADDR=worker.example.com:4222", "WORKER_EMBEDDED_ADDR=4222",
		"WORKER_EMBEDDED_ADDR=[::ffff:0.0.0.0]:4222", "WORKER_EMBEDDED_ADDR=[::ffff:192.0.2.1]:4222", "WORKER_EMBEDDED_ADDR=[fe80::1%eth0]:4222", "WORKER_EMBEDDED_ADDR=0:4222", "WORKER_EMBEDDED_ADDR=127.1:4222", "WORKER_EMBEDDED_ADDR=2130706433:4222", "WORKER_EMBEDDED_ADDR=localhost.example.com:4222", "WORKER_EMBEDDED_ADDR=127.0.0.1:70000",
		"WORKER_SUBJECT=a..b", "WORKER_SUBJECT=a.>", "WORKER_SUBJECT=$JS.API", "WORKER_SUBJECT=_INBOX.a", "WORKER_SUBJECT=a\tb", "WORKER_RESULTS_SUBJECT=remediation.unrestrict",
		"WORKER_DEADLETTER_SUBJECT=remediation.results", "WORKER_STREAM=a.b", "WORKER_STREAM=UNRESTRICT_LEDGER", "WORKER_RESULTS_STREAM=REMEDIATION", "WORKER_DEADLETTER_STREAM=a/b", "WORKER_STREAM=REMEDIATION_AUDIT", "WORKER_RESULTS_SUBJECT=remediation.audit",
		"WORKER_CONSUMER=a b", "WORKER_PROVISION=maybe", "WORKER_REPLICAS=2", "WORKER_REPLICAS=7", "WORKER_CONCURRENCY=0", "WORKER_CONCURRENCY=1025", "WORKER_CONCURRENCY=1.5",
		"WORKER_ACK_WAIT=999ms", "WORKER_BACKOFF_INITIAL=0", "WORKER_BACKOFF_MAX=499ms", "WORKER_BACKOFF_MULTIPLIER=0.5", "WORKER_BACKOFF_MULTIPLIER=NaN",
		"WORKER_BACKOFF_RANDOMIZATION=-0.1", "WORKER_BACKOFF_RANDOMIZATION=1.1", "WORKER_GIVE_UP_AFTER=0", "WORKER_RECONCILE_DELAY=0", "WORKER_SHUTDOWN_TIMEOUT=-1s",
		"WORKER_RATE_PER_MINUTE=-1", "WORKER_RATE_PER_HOUR=many", "WORKER_URGENT_RESERVE=101", "WORKER_TRACK=perhaps", "WORKER_POLL_INTERVAL=0", "WORKER_TRACK_TIMEOUT=7d",
		"WORKER_TRUSTED_SIGNERS=nobody", "WORKER_TRUSTED_SIGNERS=,", "WORKER_TRUSTED_SIGNERS=" + signerA + "," + signerA,
		"WORKER_TRUSTED_SIGNERS=" + seed, "WORKER_TRUSTED_SIGNERS_FILE=" + seeds,
		"WORKER_TRUSTED_SIGNERS WORKER_TRUSTED_SIGNERS=" + signerA + " WORKER_TRUSTED_SIGNERS_FILE=" + seeds,
		"WORKER_POLICY_FILE=/not/there", "WORKER_POLICY_FILE=" + policy, "WORKER_MAX_REQUEST_AGE=-1s", "WORKER_GUARD_AFTER=-1s", "WORKER_DRY_RUN=2",
		"DEFENDER_CLOUD=mars", "DEFENDER_AUTH=magic", "DEFENDER_TIMEOUT=30", "DEFENDER_TOKEN_FILE DEFENDER_AUTH=token-file", "DEFENDER_DISABLE_INSTANCE_DISCOVERY=x",
		"DEFENDER_API_URL=http://api.example.com", "DEFENDER_API_URL=http://127.0.0.1.example.com", "DEFENDER_API_URL=http://user@example.com", "DEFENDER_API_URL=ftp://127.0.0.1",
		"DEFENDER_API_URL=127.0.0.1:80", "DEFENDER_API_URL=https://", "DEFENDER_API_URL=https://api.example.com/base", "DEFENDER_API_URL=https://api.example.com?a=b",
		"DEFENDER_API_URL=https://user:opensesame@api.example.com", "WORKER_ADMIN_ADDR=nowhere", "WORKER_ADMIN_ADDR=127.0.0.1:http",
		"WORKER_INTAKE_ADDR=8090", "WORKER_INTAKE_ADDR=0.0.0.0:8090", "WORKER_INTAKE_ADDR=:8090 WORKER_INTAKE_CLIENTS_FILE=c.yaml", "WORKER_INTAKE_TLS_KEY WORKER_INTAKE_TLS_CERT=" + empty,
		"WORKER_INTAKE_TLS_CERT WORKER_INTAKE_TLS_KEY=" + empty, "WORKER_INTAKE_TLS_CERT=" + empty + " WORKER_INTAKE_TLS_KEY=" + empty, "WORKER_INTAKE_CLIENT_CA=/not/there",
		"WORKER_INTAKE_URL=intake.example.com", "WORKER_INTAKE_URL=https://u@intake.example.com",
		"LOG_LEVEL=loud", "LOG_FORMAT=runes", "WORKER_TENANT=contoso/eu", "WORKER_TENANT=" + strings.Repeat("x", 65),
	} {
		words := strings.Split(one, " ")
		name, _, named := strings.Cut(words[0], "=") // "NAME A=b": the mistake is NAME's
		if !named {
			words = words[1:]
		}
		if name == "WORKER_CONSUMER" || strings.HasPrefix(one, "WORKER_SUBJECT") {
			words = []string{one}
		}
		env := map[string]string{}
		for _, word := range words {
			key, value, _ := strings.Cut(word, "=")
			env[key] = value
		}
		_, mistakes := load(t, env)
		if !slices.ContainsFunc(mistakes, func(m Mistake) bool { return m.Name == name && strings.HasPrefix(m.Text, name) }) {
			t.Errorf("%s: want a mistake of %s, got %v", one, name, mistakes)
		}
		if text := fmt.Sprint(mistakes); strings.Contains(text, "opensesame") || strings.Contains(text, seed) {
			t.Errorf("%s: a secret is shown: %s", one, text)
		}
	}
}

// TestPolicyFileMistakes: all of them at once, by file and line.
func TestPolicyFileMistakes(t *testing.T) {
	path := write(t, "policy.yaml", "signers:\n  soar:\n    tickets: true\n    machines_per_hour: many\n  saor: {}\n")
	_, mistakes := load(t, map[string]string{"WORKER_TRUSTED_SIGNERS": "soar=" + signerA, "WORKER_POLICY_FILE": path})
	if len(mistakes) != 3 {
		t.Fatal(mistakes)
	}
	for i, want := range []string{path + ", line 3: unknown key tickets", path + ", line 4: machines_per_hour must be", path + ", line 5: there is no trusted signer saor; there are soar"} {
		if m := mistakes[i]; m.Name != "WORKER_POLICY_FILE" || !strings.Contains(m.Text, want) || strings.Count(m.Text, path) != 1 {
			t.Errorf("got %v, want %q", m, want)
		}
	}
}

// TestOtherSettingsSurvive: check goes on with what is good.
func TestOtherSettingsSurvive(t *testing.T) {
	got, mistakes := load(t, map[string]string{"WORKER_CONCURRENCY": "none", "WORKER_RATE_PER_HOUR": "7"})
	if len(mistakes) != 1 || mistakes[0].Group != "work" || got.Concurrency != 0 || got.Rates.PerHour != 7 {
		t.Errorf("got %v, concurrency %d, rates %v", mistakes, got.Concurrency, got.Rates)
	}
}

func TestConfigFile(t *testing.T) {
	for _, c := range []struct{ text, mistake string }{
		{"", ""},
		{"# nothing\n", ""},
		{"---\nconcurrency: 3\n", ""},
		{"{concurrency: 3, log_level: debug}", ""},
		{"log_level: |\n  debug\n", ""},
		{"concurrency: 3\nconcurency: 4\n", "line 2: unknown key concurency; did you mean concurrency?"},
		{"concurrency: 3\n\nconcurrency: 4\n", "line 3: concurrency is there twice, first in line 1"},
		{"config: other.yaml\n", "line 1: unknown key config"},
		{"concurrency:\n  a: 1\n", "line 1: concurrency must be a single value"},
		{"nats_url: [[a]]\n", "line 1: nats_url must be a single value"},
		{"- concurrency\n", "line 1: expected lines of the form key: value"},
		{"concurrency: 3\n---\nreplicas: 3\n", "line 3: a second document"},
		{"concurrency: 3\nnats_token: \"opensesame\n", "line 2: not YAML"},
	} {
		_, mistakes := load(t, nil, "--config="+write(t, "worker.yaml", c.text))
		switch text := fmt.Sprint(mistakes); {
		case c.mistake == "" && len(mistakes) > 0:
			t.Errorf("%q: got %s", c.text, text)
		case !strings.Contains(text, c.mistake) || strings.Contains(text, "opensesame"):
			t.Errorf("%q: want %q, got %s", c.text, c.mistake, text)
		}
	}
}

// FuzzConfigFile: whatever is in the file, there are values or mistakes.
func FuzzConfigFile(f *testing.F) {
	for _, text := range []string{"a: 1\nb: [x, y]\n", "a: |\n x\n", "{a: {b: c}}", "? a\n: b\n", "a: &x 1\nb: *x\n", "a: !!binary eA==\n", "---\n...\n---\na: 1"} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		values, mistakes := parseConfig([]byte(text), []string{"a", "b"})
		for key := range values {
			if key != "a" && key != "b" && len(mistakes) == 0 {
				t.Errorf("%q: unknown key %q went unnoticed", text, key)
			}
		}
	})
}

// TestFlagsFollowVariables: nobody has to look up how a variable's flag is called.
func TestFlagsFollowVariables(t *testing.T) {
	var groups []string
	for _, group := range Groups() {
		groups = append(groups, group.Key)
	}
	for _, s := range NewTable().Settings {
		want := strings.ReplaceAll(strings.ToLower(strings.TrimPrefix(s.Env, "WORKER_")), "_", "-")
		if s.Flag != want {
			t.Errorf("%s: flag --%s, want --%s", s.Env, s.Flag, want)
		}
		if !slices.Contains(groups, s.Group) || s.Help == "" {
			t.Errorf("%s: no known group or no help", s.Env)
		}
	}
}

// TestSecretsAreNotPrinted in any of the ways in which settings may be logged.
func TestSecretsAreNotPrinted(t *testing.T) {
	s := Settings{NATS: NATS{Password: Secret{value: "opensesame"}}, Admin: Admin{Token: Secret{value: "opensesame"}}}
	text, err := json.Marshal(s)
	if err != nil {
		t.Fatal(err)
	}
	for _, form := range []string{string(text), fmt.Sprintf("%v %+v %#v %s", s, s, s, s.Admin.Token)} {
		if strings.Contains(form, "opensesame") || !strings.Contains(form, "(secret)") {
			t.Errorf("got %s", form)
		}
	}
	if s.Admin.Token.Reveal() != "opensesame" {
		t.Error("Reveal gives something else")
	}
}

// writePair writes a certificate and its key.
func writePair(t *testing.T) (cert, key string) {
	t.Helper()
	public, private, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, public, private)
	if err != nil {
		t.Fatal(err)
	}
	pkcs8, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	return write(t, "cert.pem", string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))),
		write(t, "key.pem", string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: pkcs8})))
}
