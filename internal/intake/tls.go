package intake

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"os"
	"sync"
	"time"

	"example.com/unrestrict-worker/internal/config"
)

// tlsConfig requests a certificate from clients if there is a CA to verify it with, and never requires one.
func tlsConfig(s config.Intake) (*tls.Config, error) {
	pair := &keyPair{cert: s.TLSCert, key: s.TLSKey}
	if _, err := pair.get(nil); err != nil {
		return nil, err
	}
	cfg := &tls.Config{MinVersion: tls.VersionTLS12, GetCertificate: pair.get, NextProtos: []string{"http/1.1"}}
	if s.ClientCA == "" {
		return cfg, nil
	}
	text, err := os.ReadFile(s.ClientCA)
	if err != nil {
		return nil, err
	}
	cfg.ClientAuth, cfg.ClientCAs = tls.VerifyClientCertIfGiven, x509.NewCertPool()
	if !cfg.ClientCAs.AppendCertsFromPEM(text) {
		return nil, errors.New("WORKER_INTAKE_CLIENT_CA holds no certificate")
	}
	return cfg, nil
}

// keyPair is a certificate that is reloaded when it changes. If it can't be read, the last one stays in use.
type keyPair struct {
	cert, key string

	mu      sync.Mutex
	last    *tls.Certificate
	checked time.Time
}

const renewEvery = 10 * time.Second

func (p *keyPair) get(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.last != nil && time.Since(p.checked) < renewEvery {
		return p.last, nil
	}
	p.checked = time.Now()
	cert, err := tls.LoadX509KeyPair(p.cert, p.key)
	if err == nil {
		p.last = &cert
	}
	if p.last == nil {
		return nil, err
	}
	return p.last, nil
}
