package defendersim

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"testing"
)

func TestTLS(t *testing.T) {
	cert, caPath, err := NewTLS(t.TempDir(), "127.0.0.2", "login.microsoftonline.com")
	if err != nil {
		t.Fatal(err)
	}
	ca, err := os.ReadFile(caPath)
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(ca) || strings.Contains(string(ca), "KEY") {
		t.Fatalf("no CA in %s", caPath)
	}
	leaf, err := x509.ParseCertificate(cert.Certificate[0])
	if err != nil {
		t.Fatal(err)
	}
	block, _ := pem.Decode(ca)
	root, err := x509.ParseCertificate(block.Bytes)
	if err != nil || len(root.SubjectKeyId) == 0 || !bytes.Equal(leaf.AuthorityKeyId, root.SubjectKeyId) {
		t.Errorf("the leaf names %x as its authority's key, which is %x: %v", leaf.AuthorityKeyId, root.SubjectKeyId, err)
	}
	server := httptest.NewUnstartedServer(New(Config{}))
	server.TLS = &tls.Config{Certificates: []tls.Certificate{cert}}
	server.Config.ErrorLog = log.New(io.Discard, "", 0) // the client that refuses the name
	server.StartTLS()
	defer server.Close()
	transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool}, DisableKeepAlives: true}
	for _, name := range []string{"", "localhost", "127.0.0.2", "login.microsoftonline.com"} {
		transport.TLSClientConfig.ServerName = name
		resp, err := (&http.Client{Transport: transport}).Get(server.URL + "/t/v2.0/.well-known/openid-configuration")
		if err != nil {
			t.Fatalf("as %q: %v", name, err)
		}
		body, _ := io.ReadAll(resp.Body)
		_ = resp.Body.Close()
		if !strings.Contains(string(body), `"issuer":"`+server.URL+`/t/v2.0"`) {
			t.Errorf("issuer is not of the same host and port: %s", body)
		}
	}
	transport.TLSClientConfig.ServerName = "example.com"
	if resp, err := (&http.Client{Transport: transport}).Get(server.URL); err == nil {
		_ = resp.Body.Close()
		t.Error("good for any name")
	}
	if _, _, err := NewTLS("/nowhere/at/all"); err == nil || !strings.Contains(err.Error(), "write the authority's certificate") {
		t.Errorf("no such folder: %v", err)
	}
}
