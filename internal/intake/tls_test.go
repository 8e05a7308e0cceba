package intake_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"net/http"
	"testing"
	"time"
)

// issued is a certificate with its key, signed by another, or by itself.
type issued struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	pair tls.Certificate
	pem  [2]string
}

func issue(t *testing.T, name string, by *issued) *issued {
	t.Helper()
	i := &issued{}
	var err error
	if i.key, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader); err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: name}, DNSNames: []string{name}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), IsCA: by == nil, BasicConstraintsValid: true,
	}
	parent, signer := template, i.key
	if by != nil {
		parent, signer = by.cert, by.key
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, i.key.Public(), signer)
	if err != nil {
		t.Fatal(err)
	}
	key, err := x509.MarshalPKCS8PrivateKey(i.key)
	if err != nil {
		t.Fatal(err)
	}
	i.pem = [2]string{string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})), string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: key}))}
	if i.cert, err = x509.ParseCertificate(der); err == nil {
		i.pair, err = tls.X509KeyPair([]byte(i.pem[0]), []byte(i.pem[1]))
	}
	if err != nil {
		t.Fatal(err)
	}
	return i
}

// TestClientCertificates: over TLS a client is known by the certificate that the handshake has verified; another's authority, and
// another name, are nobody; a token is taken beside it.
func TestClientCertificates(t *testing.T) {
	w := newWorld(t)
	ca, others := issue(t, "ca", nil), issue(t, "ca", nil)
	server := issue(t, "intake", ca)
	w.tls = &tls.Config{RootCAs: x509.NewCertPool()}
	w.tls.RootCAs.AddCert(ca.cert)
	d := w.open(map[string]string{
		"WORKER_INTAKE_TLS_CERT": w.file("tls.crt", server.pem[0]), "WORKER_INTAKE_TLS_KEY": w.file("tls.key", server.pem[1]), "WORKER_INTAKE_CLIENT_CA": w.file("ca.crt", ca.pem[0]),
		"WORKER_INTAKE_CLIENTS_FILE": w.file("mtls.yaml", "clients:\n- {name: snow, mtls: {san: snow.contoso.com}}\n- {name: soar, token_sha256: ["+digest(token)+"]}\n"),
	})
	with := func(cert *issued, token string) *door {
		world, other := *w, *d
		world.tls, other.world, other.token = w.tls.Clone(), &world, token
		if cert != nil { // whatever authorities the server names
			world.tls.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &cert.pair, nil }
		}
		return &other
	}
	for name, c := range map[string]struct {
		as     *door
		status int
	}{
		"its own": {with(issue(t, "snow.contoso.com", ca), ""), 404}, "another name": {with(issue(t, "x.contoso.com", ca), ""), 401}, "none": {with(nil, ""), 401}, "a token": {with(nil, token), 404},
	} {
		if a := c.as.ask("GET", "/v1/requests/a", ""); a.status != c.status {
			t.Errorf("%s: %d %s", name, a.status, a.body)
		}
	}
	client := http.Client{Transport: &http.Transport{TLSClientConfig: with(issue(t, "snow.contoso.com", others), "").tls, DisableKeepAlives: true}}
	if answer, err := client.Get(d.url + "/v1/requests/a"); err == nil {
		answer.Body.Close()
		t.Errorf("another authority's certificate is answered %d", answer.StatusCode)
	}
}
