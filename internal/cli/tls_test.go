package cli

import (
	"crypto/x509"
	"net"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// TestBrokerCertificates has a command meet the TLS of deploy/nats/tls.conf: what is wrong is refused at once, and named
// by its variable.
func TestBrokerCertificates(t *testing.T) {
	ca, other := newAuthority(t), newAuthority(t)
	expired := func(c *x509.Certificate) { c.NotAfter = time.Now().Add(-time.Minute) }
	elsewhere := func(c *x509.Certificate) { c.IPAddresses = []net.IP{net.IPv4(192, 0, 2, 1)} }
	serve := func(server issued) string {
		t.Setenv("TLS_CERT", server.cert)
		t.Setenv("TLS_KEY", server.key)
		t.Setenv("TLS_CA", ca.file)
		opts := readConfig(t, filepath.Join(natsFiles, "tls.conf"))
		opts.JetStream, opts.StoreDir = true, t.TempDir()
		g := &guarded{}
		g.start(t, opts)
		return g.url
	}
	good := serve(ca.issue(t, "server"))
	client, stranger, old := ca.issue(t, "client"), other.issue(t, "stranger"), ca.issue(t, "old", expired)
	for name, c := range map[string]struct {
		url, ca string
		client  issued
		says    string
	}{
		"no CA":               {good, "", client, "NATS_CA"},
		"another CA":          {good, other.file, client, "NATS_CA"},
		"no certificate":      {good, ca.file, issued{}, "NATS_CERT"},
		"a stranger's":        {good, ca.file, stranger, "NATS_CERT"},
		"expired":             {good, ca.file, old, "NATS_CERT"},
		"another's key":       {good, ca.file, issued{client.cert, stranger.key}, "NATS_KEY"},
		"expired server":      {serve(ca.issue(t, "old-server", expired)), ca.file, client, "NATS_URL"},
		"server of that name": {serve(ca.issue(t, "elsewhere", elsewhere)), ca.file, client, "NATS_URL"},
	} {
		t.Run(name, func(t *testing.T) {
			env := map[string]string{"NATS_URL": c.url, "NATS_CA": c.ca, "NATS_CERT": c.client.cert, "NATS_KEY": c.client.key}
			if status, _, stderr := command(t, env, "status"); status == 0 || !strings.Contains(stderr, c.says) {
				t.Errorf("exit status %d and no %s: %s", status, c.says, stderr)
			}
			// The same broker takes what is right: it was not refused for something else.
			if c.url == good {
				env["NATS_CA"], env["NATS_CERT"], env["NATS_KEY"] = ca.file, client.cert, client.key
				if _, stdout, stderr := command(t, env, "status"); !strings.Contains(stdout, "followed ") {
					t.Errorf("with the right certificates: %s%s", stdout, stderr)
				}
			}
		})
	}
}
