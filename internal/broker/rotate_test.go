package broker_test

import (
	"crypto/tls"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/nats-io/nats-server/v2/server"

	"example.com/unrestrict-worker/internal/broker"
)

// rotation is one way of signing in whose files change.
type rotation struct {
	auth    broker.Auth
	refused string                     // in the words of a refusal
	serve   func(n int) server.Options // the broker that takes the nth
	write   func(n int)                // what is in the files then
	user    func(n int) string
}

// TestRotatedSignIn changes what a running worker signs in with, first at the broker and first in the files, without a
// restart of the worker.
func TestRotatedSignIn(t *testing.T) {
	for name, r := range rotations(t) {
		t.Run(name, func(t *testing.T) {
			port := freePort(t)
			start := func(n int) *server.Server {
				opts := r.serve(n)
				opts.Port = port
				return runServer(t, opts)
			}
			r.write(0)
			s := start(0)
			log, _ := observed()
			b, err := broker.Open(within(t), broker.Config{URL: "nats://127.0.0.1:" + strconv.Itoa(port), Auth: r.auth}, log)
			if err != nil {
				t.Fatal(err)
			}
			defer closeBroker(t, b)
			wantUser := func(n int) {
				t.Helper()
				if r.user != nil && b.User() != r.user(n) {
					t.Errorf("user %q, want %q", b.User(), r.user(n))
				}
			}
			wantUser(0)
			restart := func(n int) {
				stopServer(s)
				s = start(n)
			}

			restart(1) // the broker first
			eventually(t, "a refusal", func() bool {
				err := b.Connected()
				return err != nil && strings.Contains(err.Error(), r.refused)
			})
			r.write(1)
			eventually(t, "a connection, the broker changed first", func() bool { return b.Connected() == nil })
			wantUser(1)

			r.write(2) // the file first
			restart(2)
			eventually(t, "a connection, the file changed first", func() bool { return b.Connected() == nil && s.NumClients() == 1 })
			wantUser(2)
			select {
			case <-b.Lost():
				t.Error("the connection has ended for good")
			default:
			}
		})
	}
}

func rotations(t *testing.T) map[string]rotation {
	t.Helper()
	dir := t.TempDir()
	in := func(name string) string { return filepath.Join(dir, name) }
	write := func(path string, content []byte) {
		if err := os.WriteFile(path, content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	copied := func(to, from string) {
		content, err := os.ReadFile(from)
		if err != nil {
			t.Fatal(err)
		}
		write(to, content)
	}
	secret := func(n int) string { return fmt.Sprint("secret-", n) }
	var seeds, publics, creds [3]string
	var operators [3]server.Options
	var servers, clients [3]issued
	var authorities [3]authority
	for n := range 3 {
		kp, file := newSeed(t)
		seeds[n] = file
		publics[n], _ = kp.PublicKey()
		operators[n], creds[n], _ = newOperator(t)
		authorities[n] = newAuthority(t)
		servers[n], clients[n] = authorities[n].issue(t, "server"), authorities[n].issue(t, "client")
	}
	return map[string]rotation{
		"NATS_PASSWORD_FILE": {
			refused: "NATS_PASSWORD",
			auth:    broker.Auth{User: "worker", Password: secret(0), PasswordFile: in("password")},
			serve:   func(n int) server.Options { return server.Options{Username: "worker", Password: secret(n)} },
			write:   func(n int) { write(in("password"), []byte(secret(n)+"\n")) },
			user:    func(int) string { return "worker" },
		},
		"NATS_TOKEN_FILE": {
			refused: "NATS_TOKEN",
			auth:    broker.Auth{Token: secret(0), TokenFile: in("token")},
			serve:   func(n int) server.Options { return server.Options{Authorization: secret(n)} },
			write:   func(n int) { write(in("token"), []byte(secret(n)+"\n")) },
		},
		"NATS_NKEY": {
			refused: "NATS_NKEY",
			auth:    broker.Auth{NKey: in("nkey")},
			serve:   func(n int) server.Options { return server.Options{Nkeys: []*server.NkeyUser{{Nkey: publics[n]}}} },
			write:   func(n int) { copied(in("nkey"), seeds[n]) },
			user:    func(n int) string { return publics[n] },
		},
		"NATS_CREDS": {
			refused: "NATS_CREDS",
			auth:    broker.Auth{Creds: in("creds")},
			serve:   func(n int) server.Options { return operators[n] },
			write:   func(n int) { copied(in("creds"), creds[n]) },
		},
		"NATS_CERT, NATS_KEY and NATS_CA": {
			refused: "NATS_CA",
			auth:    broker.Auth{CA: in("ca"), Cert: in("cert"), Key: in("key")},
			serve: func(n int) server.Options {
				return server.Options{TLSVerify: true, TLSConfig: &tls.Config{
					Certificates: []tls.Certificate{servers[n].pair}, MinVersion: tls.VersionTLS12,
					ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: authorities[n].pool,
				}}
			},
			write: func(n int) {
				copied(in("ca"), authorities[n].file)
				copied(in("cert"), clients[n].cert)
				copied(in("key"), clients[n].key)
			},
		},
	}
}

// A token in NATS_URL goes before one in a file, and is no mistake beside it.
func TestTokenInURLBesideAFile(t *testing.T) {
	s := runServer(t, server.Options{Authorization: "in-the-url"})
	u, err := url.Parse(s.ClientURL())
	if err != nil {
		t.Fatal(err)
	}
	u.User = url.User("in-the-url")
	open(t, broker.Config{URL: u.String(), Auth: broker.Auth{Token: "in-the-file", TokenFile: writeFile(t, "token", []byte("in-the-file"))}})
}
