package cli

import (
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/jwt/v2"
	"github.com/nats-io/nats-server/v2/conf"
	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/nats-io/nkeys"
)

const natsFiles = repository + "/deploy/nats"

// roles are those of deploy/nats/permissions.conf.
var roles = []string{"worker", "provisioner", "operator", "approver", "intake", "intake-provisioner", "publisher", "publisher-urgent", "reader", "reader-provisioner", "auditor", "auditor-provisioner"}

// envName is a role's name in the variables of users.conf and nkeys.conf.
func envName(role string) string { return strings.ToUpper(strings.ReplaceAll(role, "-", "_")) }

// inboxOf begins the subjects that a role hears answers on; others than those of permissions.conf have the usual ones.
func inboxOf(role string) string {
	if slices.Contains(roles, role) {
		return "_INBOX_" + role
	}
	return "_INBOX"
}

// guarded is a broker that enforces permissions, and how each role signs in to it.
type guarded struct {
	url     string
	signIn  map[string][]string    // role: variables
	option  map[string]nats.Option // role: the same for a test's own connection
	tls     []string               // variables that all share
	ca      []nats.Option
	pasted  []string // the simulator's variables
	refusal *refusals
}

// refused is what the broker has refused to anybody.
func (g *guarded) refused() []string { return g.refusal.all() }

// as is the environment of a terminal of somebody who has the role.
func (g *guarded) as(t *testing.T, role string, more ...string) []string {
	t.Helper()
	env := append(terminal(t.TempDir(), "NATS_URL="+g.url, "NATS_INBOX_PREFIX="+inboxOf(role)), g.signIn[role]...)
	return append(append(append(env, g.tls...), g.pasted...), more...)
}

func (g *guarded) connect(t *testing.T, role string) *nats.Conn {
	t.Helper()
	// What is refused shows in LastError.
	quiet := nats.ErrorHandler(func(*nats.Conn, *nats.Subscription, error) {})
	nc, err := nats.Connect(g.url, append(g.ca, g.option[role], nats.CustomInboxPrefix(inboxOf(role)), quiet)...)
	if err != nil {
		t.Fatalf("%s: %v", role, err)
	}
	t.Cleanup(nc.Close)
	return nc
}

func (g *guarded) jetStream(t *testing.T, role string) jetstream.JetStream {
	t.Helper()
	js, err := jetstream.New(g.connect(t, role))
	if err != nil {
		t.Fatal(err)
	}
	return js
}

// withUsers is server.conf as it is, TLS and users included.
func withUsers(t *testing.T, flags map[string]bool) *guarded {
	g := &guarded{signIn: map[string][]string{}, option: map[string]nats.Option{}}
	for _, role := range roles {
		password := "of-" + role
		t.Setenv(envName(role)+"_PASSWORD", password)
		g.signIn[role] = []string{"NATS_USER=" + role, "NATS_PASSWORD=" + password}
		g.option[role] = nats.UserInfo(role, password)
	}
	ca := newAuthority(t)
	server, client := ca.issue(t, "server"), ca.issue(t, "client")
	t.Setenv("TLS_CERT", server.cert)
	t.Setenv("TLS_KEY", server.key)
	t.Setenv("TLS_CA", ca.file)
	g.tls = []string{"NATS_CA=" + ca.file, "NATS_CERT=" + client.cert, "NATS_KEY=" + client.key}
	g.ca = []nats.Option{nats.RootCAs(ca.file), nats.ClientCert(client.cert, client.key)}
	t.Setenv("JETSTREAM_DIR", t.TempDir())
	opts := readConfig(t, filepath.Join(natsFiles, "server.conf"))
	opts.FeatureFlags = flags
	g.start(t, opts)
	return g
}

// withNkeys is nkeys.conf in the place of users.conf, without TLS.
func withNkeys(t *testing.T, flags map[string]bool) *guarded {
	g := &guarded{signIn: map[string][]string{}, option: map[string]nats.Option{}}
	for _, role := range roles {
		pair, err := nkeys.CreateUser()
		if err != nil {
			t.Fatal(err)
		}
		public, _ := pair.PublicKey()
		seed, _ := pair.Seed()
		file := secretFile(t, "seed.nk", seed)
		t.Setenv(envName(role)+"_NKEY", public)
		g.signIn[role] = []string{"NATS_NKEY=" + file}
		if g.option[role], err = nats.NkeyOptionFromSeed(file); err != nil {
			t.Fatal(err)
		}
	}
	opts := readConfig(t, filepath.Join(natsFiles, "nkeys.conf"))
	opts.JetStream, opts.StoreDir, opts.FeatureFlags = true, t.TempDir(), flags
	g.start(t, opts)
	return g
}

// withAccounts is a server that trusts an operator's JWTs, made of the lists of permissions.conf.
func withAccounts(t *testing.T, flags map[string]bool) *guarded {
	lists, err := conf.ParseFile(filepath.Join(natsFiles, "permissions.conf"))
	if err != nil {
		t.Fatal(err)
	}
	g := &guarded{signIn: map[string][]string{}, option: map[string]nats.Option{}}
	operator := newKey(t, nkeys.CreateOperator)
	accounts := map[string]nkeys.KeyPair{}
	for _, name := range []string{"SYS", "REMEDIATION", "OPERATOR", "APPROVER", "INTAKE", "PUBLISHER", "READER", "AUDITOR"} {
		accounts[name] = newKey(t, nkeys.CreateAccount)
	}
	resolver := &server.MemAccResolver{}
	for name, pair := range accounts {
		claims := accountClaims(t, name, lists, accounts)
		token, err := claims.Encode(operator)
		if err != nil {
			t.Fatal(err)
		}
		if err := resolver.Store(publicKey(t, pair), token); err != nil {
			t.Fatal(err)
		}
	}
	for _, role := range roles {
		account, _, _ := strings.Cut(strings.ToUpper(role), "-")
		if accounts[account] == nil {
			account = "REMEDIATION"
		}
		file := credentials(t, accounts[account], lists[envName(role)+"_MAY"].(map[string]any))
		g.signIn[role] = []string{"NATS_CREDS=" + file}
		g.option[role] = nats.UserCredentials(file)
	}
	g.start(t, &server.Options{
		JetStream: true, StoreDir: t.TempDir(), TrustedOperators: []*jwt.OperatorClaims{jwt.NewOperatorClaims(publicKey(t, operator))},
		AccountResolver: resolver, SystemAccount: publicKey(t, accounts["SYS"]), FeatureFlags: flags,
	})
	return g
}

// withNSC is what nsc.sh has made in a folder.
func withNSC(dir string) func(*testing.T, map[string]bool) *guarded {
	return func(t *testing.T, flags map[string]bool) *guarded {
		g := &guarded{signIn: map[string][]string{}, option: map[string]nats.Option{}}
		for _, role := range roles {
			file := filepath.Join(dir, role+".creds")
			g.signIn[role] = []string{"NATS_CREDS=" + file}
			g.option[role] = nats.UserCredentials(file)
		}
		opts := readConfig(t, filepath.Join(dir, "resolver.conf"))
		opts.JetStream, opts.StoreDir, opts.FeatureFlags = true, t.TempDir(), flags
		g.start(t, opts)
		return g
	}
}

// accountClaims are an account's exports and imports, as permissions.conf has them.
func accountClaims(t *testing.T, name string, lists map[string]any, accounts map[string]nkeys.KeyPair) *jwt.AccountClaims {
	t.Helper()
	c := jwt.NewAccountClaims(publicKey(t, accounts[name]))
	c.Name = name
	if slices.Contains([]string{"REMEDIATION", "READER", "AUDITOR"}, name) {
		c.Limits.JetStreamLimits = jwt.JetStreamLimits{MemoryStorage: jwt.NoLimit, DiskStorage: jwt.NoLimit, Streams: jwt.NoLimit, Consumer: jwt.NoLimit}
	}
	entries := func(list string) []any { all, _ := lists[name+"_"+list].([]any); return all }
	for _, e := range entries("EXPORTS") {
		e := e.(map[string]any)
		export := &jwt.Export{Type: jwt.Service, ResponseType: jwt.ResponseTypeSingleton}
		if more, given := e["response_type"].(string); given {
			export.ResponseType = jwt.ResponseType(more)
		}
		subject, _ := e["service"].(string)
		if subject == "" {
			export.Type, export.ResponseType = jwt.Stream, ""
			subject = e["stream"].(string)
		}
		export.Name, export.Subject, export.TokenReq = subject, jwt.Subject(subject), true
		c.Exports.Add(export)
	}
	for _, e := range entries("IMPORTS") {
		e := e.(map[string]any)
		kind, from := jwt.Service, e["service"]
		if from == nil {
			kind, from = jwt.Stream, e["stream"]
		}
		source := from.(map[string]any)
		to, _ := e["to"].(string)
		subject := source["subject"].(string)
		c.Imports.Add(&jwt.Import{
			Name: subject, Type: kind, Account: publicKey(t, accounts[source["account"].(string)]),
			Subject: jwt.Subject(subject), LocalSubject: jwt.RenamingSubject(to),
			Token: activation(t, c.Subject, subject, kind, accounts[source["account"].(string)]),
		})
	}
	return c
}

// activation lets one account import what another exports to nobody else.
func activation(t *testing.T, importer, subject string, kind jwt.ExportType, exporter nkeys.KeyPair) string {
	t.Helper()
	c := jwt.NewActivationClaims(importer)
	c.ImportSubject, c.ImportType = jwt.Subject(subject), kind
	token, err := c.Encode(exporter)
	if err != nil {
		t.Fatal(err)
	}
	return token
}

// credentials is the file of a new user with the permissions of permissions.conf.
func credentials(t *testing.T, account nkeys.KeyPair, may map[string]any) string {
	t.Helper()
	pair := newKey(t, nkeys.CreateUser)
	c := jwt.NewUserClaims(publicKey(t, pair))
	for key, to := range map[string]*jwt.Permission{"publish": &c.Pub, "subscribe": &c.Sub} {
		for _, subject := range may[key].(map[string]any)["allow"].([]any) {
			to.Allow.Add(subject.(string))
		}
	}
	token, err := c.Encode(account)
	if err != nil {
		t.Fatal(err)
	}
	seed, err := pair.Seed()
	if err != nil {
		t.Fatal(err)
	}
	file, err := jwt.FormatUserConfig(token, seed)
	if err != nil {
		t.Fatal(err)
	}
	return secretFile(t, "user.creds", file)
}

func newKey(t *testing.T, create func() (nkeys.KeyPair, error)) nkeys.KeyPair {
	t.Helper()
	pair, err := create()
	if err != nil {
		t.Fatal(err)
	}
	return pair
}

func publicKey(t *testing.T, pair nkeys.KeyPair) string {
	t.Helper()
	key, err := pair.PublicKey()
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func secretFile(t *testing.T, name string, content []byte) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, content, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func readConfig(t *testing.T, file string) *server.Options {
	t.Helper()
	opts, err := server.ProcessConfigFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return opts
}

// start runs the server, on loopback whatever its file says.
func (g *guarded) start(t *testing.T, opts *server.Options) {
	t.Helper()
	opts.Host, opts.Port, opts.NoSigs = "127.0.0.1", server.RANDOM_PORT, true
	s, err := server.NewServer(opts)
	if err != nil {
		t.Fatal(err)
	}
	g.refusal = &refusals{}
	s.SetLoggerV2(g.refusal, false, false, false)
	s.Start()
	t.Cleanup(func() { s.Shutdown(); s.WaitForShutdown() })
	if !s.ReadyForConnections(10 * time.Second) {
		t.Fatal("the broker takes no connections")
	}
	g.url = s.ClientURL()
	t.Cleanup(func() {
		if all := g.refused(); t.Failed() {
			t.Logf("the broker refused, first of all:\n%s", strings.Join(all[:min(len(all), 10)], "\n"))
		}
	})
}

func getPage(t *testing.T, url string) {
	t.Helper()
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	answer, err := client.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = answer.Body.Close() }()
	if _, err := io.Copy(io.Discard, answer.Body); err != nil || answer.StatusCode != http.StatusOK {
		t.Errorf("%s: %s, %v", url, answer.Status, err)
	}
}

// refusals is a server's log, of which it keeps what was refused.
type refusals struct {
	mu    sync.Mutex
	lines []string
}

func (r *refusals) all() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.lines
}

func (r *refusals) Errorf(format string, v ...any) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if line := fmt.Sprintf(format, v...); strings.Contains(line, "Violation") {
		r.lines = append(r.lines, line)
	}
}

func (r *refusals) Noticef(string, ...any) {}
func (r *refusals) Warnf(string, ...any)   {}
func (r *refusals) Fatalf(string, ...any)  {}
func (r *refusals) Debugf(string, ...any)  {}
func (r *refusals) Tracef(string, ...any)  {}
