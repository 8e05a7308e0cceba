package cli

import (
	"crypto/tls"
	"maps"
	"net"
	"net/url"
	"strings"
	"testing"

	"github.com/nats-io/nats-server/v2/server"
)

// TestNATSAsOthersRunIt runs a worker and the commands against brokers that take a setting besides a URL and a sign-in, and
// against the same without it, where the error names the setting.
func TestNATSAsOthersRunIt(t *testing.T) {
	ca := newAuthority(t)
	for name, c := range map[string]struct {
		serve   func(t *testing.T) string // its URL
		setting string
		env     map[string]string // with the setting
		wrong   string            // the setting's value to try besides
	}{
		"the hub's domain, from a leaf": {hubAndLeaf, "NATS_JS_DOMAIN", map[string]string{"NATS_JS_DOMAIN": "hub"}, "nowhere"},
		"the leaf's own domain":         {hubAndLeaf, "NATS_JS_DOMAIN", map[string]string{"NATS_JS_DOMAIN": "leaf"}, "nowhere"},
		"handshake_first": {func(t *testing.T) string {
			opts := server.Options{TLSConfig: &tls.Config{Certificates: []tls.Certificate{keyPair(t, ca.issue(t, "server"))}, MinVersion: tls.VersionTLS12}, TLSHandshakeFirst: true}
			return serve(t, opts).url
		}, "NATS_TLS_FIRST", map[string]string{"NATS_TLS_FIRST": "true", "NATS_CA": ca.file}, "false"},
		"private inboxes": {func(t *testing.T) string {
			return serve(t, server.Options{Users: []*server.User{{Username: "worker", Password: "secret", Permissions: &server.Permissions{
				Subscribe: &server.SubjectPermission{Allow: []string{"_INBOX_worker.>"}},
			}}}}).url
		}, "NATS_INBOX_PREFIX", map[string]string{"NATS_INBOX_PREFIX": "_INBOX_worker", "NATS_USER": "worker", "NATS_PASSWORD": "secret"}, "_INBOX"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			env := maps.Clone(c.env)
			env["NATS_URL"] = c.serve(t)
			s := runSystem(t, env)
			env["DEFENDER_API_URL"], env["DEFENDER_AUTH"], env["DEFENDER_TOKEN_FILE"] = s.api.URL, "token-file", s.dir+"/token"
			types := func(says string, words ...string) {
				t.Helper()
				if status, out, stderr := command(t, env, words...); status != 0 || !strings.Contains(out+stderr, says) {
					t.Errorf("worker %s: exit status %d: %s%s", strings.Join(words, " "), status, out, stderr)
				}
			}
			types("succeeded", "submit", "--wait", "--id", "good", "--machine", MachineOf(1), "--comment", "c")
			s.refuse(MachineOf(2))
			if status, out, stderr := command(t, env, "submit", "--wait", "--id", "refused", "--machine", MachineOf(2), "--comment", "c"); status != 1 {
				t.Errorf("a request that the API refuses: exit status %d: %s%s", status, out, stderr)
			}
			types("OsPlatformNotSupported", "deadletter", "list")
			types("", "deadletter", "drop", "--all", "--yes")
			types("succeeded", "results", "--follow=false")
			types("succeeded", "why", "good")
			types("", "pause", "--reason", "a test")
			types("", "resume")
			types("healthy", "status")
			types("Whole", "audit", "verify")
			types("All checks passed", "check")

			env[c.setting] = c.wrong
			for _, words := range []string{"check", "status"} {
				if status, out, stderr := command(t, env, words); status != 1 || !strings.Contains(out+stderr, c.setting) {
					t.Errorf("with %s=%s %s: exit status %d, and the setting is not named: %s%s", c.setting, c.wrong, words, status, out, stderr)
				}
			}
		})
	}
}

// A server that does not begin with TLS says so too.
func TestTLSFirstWithAnotherServer(t *testing.T) {
	ca := newAuthority(t)
	env := map[string]string{"NATS_URL": serve(t, server.Options{}).url, "NATS_TLS_FIRST": "true", "NATS_CA": ca.file}
	if status, _, stderr := command(t, env, "status"); status != 1 || !strings.Contains(stderr, "NATS_TLS_FIRST") {
		t.Errorf("exit status %d: %s", status, stderr)
	}
}

func serve(t *testing.T, opts server.Options) *guarded {
	t.Helper()
	g := &guarded{}
	opts.JetStream, opts.StoreDir = true, t.TempDir()
	g.start(t, &opts)
	return g
}

func keyPair(t *testing.T, i issued) tls.Certificate {
	t.Helper()
	pair, err := tls.LoadX509KeyPair(i.cert, i.key)
	if err != nil {
		t.Fatal(err)
	}
	return pair
}

// hubAndLeaf are two servers with a JetStream domain each; the URL is the leaf's.
func hubAndLeaf(t *testing.T) string {
	t.Helper()
	hub := &guarded{}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	leaves := l.Addr().(*net.TCPAddr)
	_ = l.Close()
	hub.start(t, &server.Options{
		ServerName: "hub", JetStream: true, StoreDir: t.TempDir(), JetStreamDomain: "hub",
		LeafNode: server.LeafNodeOpts{Host: "127.0.0.1", Port: leaves.Port},
	})
	leaf := &guarded{}
	leaf.start(t, &server.Options{
		ServerName: "leaf", JetStream: true, StoreDir: t.TempDir(), JetStreamDomain: "leaf",
		LeafNode: server.LeafNodeOpts{Remotes: []*server.RemoteLeafOpts{{URLs: []*url.URL{{Scheme: "nats-leaf", Host: leaves.String()}}}}},
	})
	return leaf.url
}
