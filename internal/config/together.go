package config

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"os"
	"slices"
	"strings"
)

// together checks the settings that depend on each other.
func (t *Table) together() {
	s := &t.values
	t.signIn(s.NATS)
	if s.Embedded.Addr != "" && t.of("NATS_URL").text == "" && !IsLoopback(hostOf(s.Embedded.Addr)) && !s.Embedded.Token.IsSet() {
		t.mistake(t.of("WORKER_EMBEDDED_ADDR"), "anyone could publish requests there; give an address on loopback, such as 127.0.0.1:4222, or make clients sign in with WORKER_EMBEDDED_TOKEN")
	}
	t.intake(s.Intake)
	t.distinct("subject", "WORKER_SUBJECT", "WORKER_RESULTS_SUBJECT", "WORKER_DEADLETTER_SUBJECT", "WORKER_CONTROL_SUBJECT")
	t.distinct("stream", "WORKER_STREAM", "WORKER_RESULTS_STREAM", "WORKER_DEADLETTER_STREAM", "WORKER_CONTROL_STREAM")
	if !slices.Contains([]int{0, 1, 3, 5}, s.Replicas) {
		t.mistake(t.of("WORKER_REPLICAS"), "JetStream needs an odd number to agree; give 1, 3 or 5")
	}
	if s.Backoff.Max > 0 && s.Backoff.Max < s.Backoff.Initial {
		t.mistake(t.of("WORKER_BACKOFF_MAX"), "give at least WORKER_BACKOFF_INITIAL, "+s.Backoff.Initial.String())
	}
	if t.of("WORKER_POLICY_FILE").text != "" && t.of("WORKER_TRUSTED_SIGNERS").text == "" && t.of("WORKER_TRUSTED_SIGNERS_FILE").text == "" {
		t.mistake(t.of("WORKER_POLICY_FILE"), "it says what each signer may ask, and without WORKER_TRUSTED_SIGNERS nobody signs: give the signers, or leave the policy out")
	}
	if s.Defender.Auth == "token-file" && s.Defender.TokenFile == "" {
		t.mistake(t.of("DEFENDER_TOKEN_FILE"), "DEFENDER_AUTH=token-file needs it; give the path of a file with a bearer token")
	}
}

// signIn checks that at most one way of signing in to the broker is given, and that its files hold what they should: a
// broker refuses without saying why.
func (t *Table) signIn(s NATS) {
	var ways []string
	for way, used := range map[string]bool{
		"NATS_CREDS": t.of("NATS_CREDS").text != "", "NATS_NKEY": t.of("NATS_NKEY").text != "", "NATS_USER": s.User != "", "NATS_TOKEN": s.Token.IsSet(),
	} {
		if used {
			ways = append(ways, way)
		}
	}
	if slices.Sort(ways); len(ways) > 1 {
		t.mistake(t.of(ways[1]), "give one way of signing in; there are "+fmt.Sprint(ways))
	}
	if s.Password.IsSet() && s.User == "" {
		t.mistake(t.of("NATS_USER"), "NATS_PASSWORD needs it; give the user's name")
	}
	if s.CA != "" {
		if data, err := os.ReadFile(s.CA); err == nil && !x509.NewCertPool().AppendCertsFromPEM(data) {
			t.mistake(t.of("NATS_CA"), "it holds no certificate; give a file with certificates in PEM form")
		}
	}
	t.keyPair("NATS_CERT", "NATS_KEY", s.Cert, s.Key)
}

// keyPair checks that a certificate and its key belong together, by their variables and their files.
func (t *Table) keyPair(certVariable, keyVariable, certFile, keyFile string) {
	cert, key := t.of(certVariable), t.of(keyVariable)
	switch {
	case cert.text != "" && key.text == "":
		t.mistake(key, certVariable+" needs it; give the path of the certificate's key")
	case cert.text == "" && key.text != "":
		t.mistake(cert, keyVariable+" needs it; give the path of the key's certificate")
	case certFile != "" && keyFile != "":
		if _, err := tls.LoadX509KeyPair(certFile, keyFile); err != nil {
			t.mistake(cert, "it is no pair with "+keyVariable+" ("+err.Error()+"); give a certificate and its key in PEM form")
		}
	}
}

// intake checks that over the network only clients of the clients file may ask, and that nobody there can read what
// they send.
func (t *Table) intake(s Intake) {
	t.keyPair("WORKER_INTAKE_TLS_CERT", "WORKER_INTAKE_TLS_KEY", s.TLSCert, s.TLSKey)
	addr, cert, ca := t.of("WORKER_INTAKE_ADDR"), t.of("WORKER_INTAKE_TLS_CERT"), t.of("WORKER_INTAKE_CLIENT_CA")
	if s.Addr != "" && !IsLoopback(hostOf(s.Addr)) {
		var lacks []string
		for _, name := range []string{"WORKER_INTAKE_TLS_CERT", "WORKER_INTAKE_CLIENTS_FILE"} { // keyPair checks the key
			if t.of(name).text == "" {
				lacks = append(lacks, name)
			}
		}
		if len(lacks) > 0 {
			t.mistake(addr, "off loopback tokens need TLS, and a file that says who may ask; give "+strings.Join(lacks, " and ")+", or an address on loopback, such as 127.0.0.1:8090")
		}
	}
	if ca.text == "" {
		return
	}
	if cert.text == "" {
		t.mistake(ca, "certificates of clients come over TLS alone; give WORKER_INTAKE_TLS_CERT and WORKER_INTAKE_TLS_KEY too")
	}
	if data, err := os.ReadFile(s.ClientCA); err == nil && !x509.NewCertPool().AppendCertsFromPEM(data) {
		t.mistake(ca, "it holds no certificate; give a file with certificates in PEM form")
	}
}

// distinct refuses a name that an earlier setting has already.
func (t *Table) distinct(what string, variables ...string) {
	for i, variable := range variables {
		s := t.of(variable)
		for _, earlier := range variables[:i] {
			if s.text == t.of(earlier).text && s.text != "" {
				t.mistake(s, "that is the "+what+" of "+earlier+" too; give each its own")
			}
		}
	}
}
