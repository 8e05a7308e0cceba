package broker_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"math/big"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/jwt/v2"
	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nkeys"
	"go.uber.org/zap"

	"example.com/unrestrict-worker/internal/broker"
)

func TestSignIn(t *testing.T) {
	kp, seedFile := newSeed(t)
	public, _ := kp.PublicKey()
	otherKey, otherSeedFile := newSeed(t)
	operator, credsFile, expiredFile := newOperator(t)
	ca := newAuthority(t)
	serverTLS := &tls.Config{Certificates: []tls.Certificate{ca.issue(t, "server").pair}, MinVersion: tls.VersionTLS12}
	mutualTLS := serverTLS.Clone()
	mutualTLS.ClientAuth, mutualTLS.ClientCAs = tls.RequireAndVerifyClientCert, ca.pool
	known, stranger := ca.issue(t, "client"), newAuthority(t).issue(t, "client")
	old := ca.issue(t, "old", func(c *x509.Certificate) { c.NotAfter = time.Now().Add(-time.Minute) })
	oldTLS := &tls.Config{Certificates: []tls.Certificate{old.pair}, MinVersion: tls.VersionTLS12}
	forServers := ca.issue(t, "not for clients", func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth} })

	const password, token = "hunter2-password", "hunter2-token"
	users := server.Options{Username: "user", Password: password}
	nkey := server.Options{Nkeys: []*server.NkeyUser{{Nkey: public}}}
	mutual := server.Options{TLSConfig: mutualTLS, TLSVerify: true}
	for name, c := range map[string]struct {
		server  server.Options
		auth    broker.Auth
		userURL *url.Userinfo
		refused string // else it is taken
	}{
		"user":                 {server: users, auth: broker.Auth{User: "user", Password: password}},
		"user in the URL":      {server: users, userURL: url.UserPassword("user", password)},
		"user before creds":    {server: users, auth: broker.Auth{User: "user", Password: password, Creds: credsFile}},
		"user, wrong":          {server: users, auth: broker.Auth{User: "user", Password: "wrong-" + password}, refused: "NATS_USER, NATS_PASSWORD"},
		"none":                 {server: users, refused: "NATS_CREDS"},
		"token":                {server: server.Options{Authorization: token}, auth: broker.Auth{Token: token}},
		"user alone":           {server: server.Options{Authorization: token}, auth: broker.Auth{User: token}},
		"token in the URL":     {server: server.Options{Authorization: token}, userURL: url.User(token)},
		"token, wrong":         {server: server.Options{Authorization: token}, auth: broker.Auth{Token: "wrong-" + token}, refused: "NATS_TOKEN"},
		"URL, wrong":           {server: server.Options{Authorization: token}, userURL: url.User("wrong-" + token), refused: "NATS_URL"},
		"nkey":                 {server: nkey, auth: broker.Auth{NKey: seedFile}},
		"nkey, wrong":          {server: nkey, auth: broker.Auth{NKey: otherSeedFile}, refused: "NATS_NKEY"},
		"creds":                {server: operator, auth: broker.Auth{Creds: credsFile}},
		"creds, expired":       {server: operator, auth: broker.Auth{Creds: expiredFile}, refused: "NATS_CREDS"},
		"TLS":                  {server: server.Options{TLSConfig: serverTLS}, auth: broker.Auth{CA: ca.file}},
		"TLS, unknown CA":      {server: server.Options{TLSConfig: serverTLS}, refused: "NATS_CA"},
		"TLS, another CA":      {server: server.Options{TLSConfig: serverTLS}, auth: broker.Auth{CA: newAuthority(t).file}, refused: "NATS_CA"},
		"TLS, expired":         {server: server.Options{TLSConfig: oldTLS}, auth: broker.Auth{CA: ca.file}, refused: "NATS_URL renewed"},
		"TLS, none offered":    {auth: broker.Auth{CA: ca.file}, refused: "TLS"},
		"mutual TLS":           {server: mutual, auth: broker.Auth{CA: ca.file, Cert: known.cert, Key: known.key}},
		"mutual TLS, none":     {server: mutual, auth: broker.Auth{CA: ca.file}, refused: "NATS_CERT"},
		"mutual TLS, expired":  {server: mutual, auth: broker.Auth{CA: ca.file, Cert: old.cert, Key: old.key}, refused: "NATS_CERT"},
		"mutual TLS, server's": {server: mutual, auth: broker.Auth{CA: ca.file, Cert: forServers.cert, Key: forServers.key}, refused: "NATS_CERT"},
		"mutual TLS, strange":  {server: mutual, auth: broker.Auth{CA: ca.file, Cert: stranger.cert, Key: stranger.key}, refused: "NATS_CERT"},
	} {
		t.Run(name, func(t *testing.T) {
			s := runServer(t, c.server)
			u, err := url.Parse(s.ClientURL())
			if err != nil {
				t.Fatal(err)
			}
			u.User = c.userURL
			log, logs := observed()
			b, err := broker.Open(within(t), broker.Config{URL: u.String(), Auth: c.auth}, log)
			var refused *broker.RefusedError
			switch {
			case c.refused == "" && err != nil:
				t.Error(err)
			case c.refused != "" && !errors.As(err, &refused):
				t.Errorf("error %v, want a refusal", err)
			case c.refused != "":
				wantError(t, err, c.refused, s.ClientURL())
			}
			seed, _ := kp.Seed()
			other, _ := otherKey.Seed()
			wantNoSecret(t, logs, err, "hunter2", string(seed), string(other))
			if b != nil {
				closeBroker(t, b)
			}
		})
	}
}

func TestCertificateOfAnotherName(t *testing.T) {
	ca := newAuthority(t)
	cert := ca.issue(t, "server").pair
	s := runServer(t, server.Options{TLSConfig: &tls.Config{Certificates: []tls.Certificate{cert}, MinVersion: tls.VersionTLS12}})
	_, err := broker.Open(within(t), broker.Config{URL: strings.Replace(s.ClientURL(), "127.0.0.1", "localhost", 1), Auth: broker.Auth{CA: ca.file}}, zap.NewNop())
	if _, ok := errors.AsType[*broker.RefusedError](err); !ok {
		t.Errorf("error %v, want a refusal", err)
	}
	wantError(t, err, "NATS_URL")
}

// A file that is missing or holds something else is told at once; to wait for
// the broker would not mend it.
func TestSignInFiles(t *testing.T) {
	s := runServer(t, server.Options{})
	none := filepath.Join(t.TempDir(), "none")
	junk := writeFile(t, "junk", []byte("secret-junk"))
	for name, auth := range map[string]func(file string) broker.Auth{
		"NATS_CREDS": func(file string) broker.Auth { return broker.Auth{Creds: file} },
		"NATS_NKEY":  func(file string) broker.Auth { return broker.Auth{NKey: file} },
		"NATS_CA":    func(file string) broker.Auth { return broker.Auth{CA: file} },
		"NATS_CERT":  func(file string) broker.Auth { return broker.Auth{Cert: file, Key: file} },
	} {
		for _, file := range []string{none, junk} {
			log, logs := observed()
			_, err := broker.Open(within(t), broker.Config{URL: s.ClientURL(), Auth: auth(file)}, log)
			wantError(t, err, name)
			wantNoSecret(t, logs, err, "secret-junk")
		}
	}
}

func newSeed(t *testing.T) (nkeys.KeyPair, string) {
	t.Helper()
	kp, err := nkeys.CreateUser()
	if err != nil {
		t.Fatal(err)
	}
	seed, err := kp.Seed()
	if err != nil {
		t.Fatal(err)
	}
	return kp, writeFile(t, "seed", seed)
}

// newOperator is a server that trusts an operator, an account of which signed
// the two users; neither may use JetStream.
func newOperator(t *testing.T) (opts server.Options, credsFile, expiredFile string) {
	t.Helper()
	operator, err := nkeys.CreateOperator()
	if err != nil {
		t.Fatal(err)
	}
	account, err := nkeys.CreateAccount()
	if err != nil {
		t.Fatal(err)
	}
	system, err := nkeys.CreateAccount()
	if err != nil {
		t.Fatal(err)
	}
	operatorKey, _ := operator.PublicKey()
	systemKey, _ := system.PublicKey()
	accountKey, _ := account.PublicKey()
	resolver := &server.MemAccResolver{}
	for _, key := range []string{accountKey, systemKey} {
		token, err := jwt.NewAccountClaims(key).Encode(operator)
		if err != nil {
			t.Fatal(err)
		}
		if err := resolver.Store(key, token); err != nil {
			t.Fatal(err)
		}
	}
	creds := func(expires time.Time) string {
		user, err := nkeys.CreateUser()
		if err != nil {
			t.Fatal(err)
		}
		key, _ := user.PublicKey()
		claims := jwt.NewUserClaims(key)
		claims.Expires = expires.Unix()
		token, err := claims.Encode(account)
		if err != nil {
			t.Fatal(err)
		}
		seed, _ := user.Seed()
		file, err := jwt.FormatUserConfig(token, seed)
		if err != nil {
			t.Fatal(err)
		}
		return writeFile(t, "creds", file)
	}
	claims := jwt.NewOperatorClaims(operatorKey)
	opts = server.Options{TrustedOperators: []*jwt.OperatorClaims{claims}, AccountResolver: resolver, SystemAccount: systemKey}
	return opts, creds(time.Now().Add(time.Hour)), creds(time.Now().Add(-time.Hour))
}

type authority struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	pool *x509.CertPool
	file string
}

type issued struct {
	pair      tls.Certificate
	cert, key string // files
}

func newAuthority(t *testing.T) authority {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test authority"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AddCert(cert)
	return authority{cert: cert, key: key, pool: pool, file: writeFile(t, "ca.pem", pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))}
}

// issue issues a certificate for 127.0.0.1, for servers and clients; change alters what it says first.
func (a authority) issue(t *testing.T, name string, change ...func(*x509.Certificate)) issued {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: name},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	for _, c := range change {
		c(template)
	}
	der, err := x509.CreateCertificate(rand.Reader, template, a.cert, &key.PublicKey, a.key)
	if err != nil {
		t.Fatal(err)
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	certPEM := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	keyPEM := pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: keyDER})
	pair, err := tls.X509KeyPair(certPEM, keyPEM)
	if err != nil {
		t.Fatal(err)
	}
	return issued{pair: pair, cert: writeFile(t, name+".pem", certPEM), key: writeFile(t, name+".key", keyPEM)}
}

func writeFile(t *testing.T, name string, content []byte) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, content, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}
