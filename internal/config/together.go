package config

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"os"
	"slices"
)

// together checks what must hold between settings.
func (t *Table) together() {
	s := &t.values
	t.signIn(s.NATS)
	if s.Embedded.Addr != "" && t.of("NATS_URL").text == "" && !IsLoopback(hostOf(s.Embedded.Addr)) && !s.Embedded.Token.IsSet() {
		t.mistake(t.of("WORKER_EMBEDDED_ADDR"), "anyone could publish requests there; give an address on loopback, such as 127.0.0.1:4222, or make clients sign in with WORKER_EMBEDDED_TOKEN")
	}
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

// signIn checks that there is one way of signing in to the broker, and that
// its files hold what they should: a broker would only say that it refuses.
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
	cert, key := t.of("NATS_CERT"), t.of("NATS_KEY")
	switch {
	case cert.text != "" && key.text == "":
		t.mistake(key, "NATS_CERT needs it; give the path of the certificate's key")
	case cert.text == "" && key.text != "":
		t.mistake(cert, "NATS_KEY needs it; give the path of the key's certificate")
	case s.Cert != "" && s.Key != "":
		if _, err := tls.LoadX509KeyPair(s.Cert, s.Key); err != nil {
			t.mistake(cert, "it is no pair with NATS_KEY ("+err.Error()+"); give a certificate and its key in PEM form")
		}
	}
}

// distinct refuses a name that an earlier setting has too.
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
