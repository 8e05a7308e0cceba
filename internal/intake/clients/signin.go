package clients

import (
	"crypto/sha256"
	"crypto/subtle"
	"crypto/x509"
	"errors"
	"net/http"
	"slices"
	"strings"
)

// Why no client is recognised. The texts are sent to the client, and repeat nothing that it sent.
var (
	// ErrUnauthenticated means that the credentials are missing or unknown.
	ErrUnauthenticated = errors.New("sign in with a bearer token that is known here")
	// ErrForbidden means that a valid token lacks a role.
	ErrForbidden = errors.New("the token lacks a role that is needed here")
	// ErrIssuer means that a token can't be verified because its issuer's keys can't be fetched.
	ErrIssuer = errors.New("the token can't be checked just now: its issuer's keys can't be had")
)

// SignIn recognises the client: by the Authorization header, else by the certificate of the connection.
func (s *Set) SignIn(r *http.Request) (*Client, error) {
	given := r.Header.Values("Authorization")
	if len(given) == 0 {
		return s.byCertificate(r)
	}
	scheme, token, _ := strings.Cut(given[0], " ")
	if len(given) > 1 || !strings.EqualFold(scheme, "Bearer") || token == "" || len(token) > maxToken {
		return nil, ErrUnauthenticated
	}
	if c := s.byToken(token); c != nil {
		return c, nil
	}
	return s.byApp(r.Context(), token)
}

// maxToken bounds a token, in bytes; those of Entra have some 2 KiB.
const maxToken = 12 << 10

// byToken compares digests, each in constant time, so that timing reveals neither a token nor how much of it is right.
func (s *Set) byToken(token string) (found *Client) {
	digest := sha256.Sum256([]byte(token))
	for _, c := range s.current() {
		for _, known := range c.tokens {
			if subtle.ConstantTimeCompare(known[:], digest[:]) == 1 {
				found = c
			}
		}
	}
	return found
}

// byCertificate uses the certificate that the handshake has verified.
func (s *Set) byCertificate(r *http.Request) (*Client, error) {
	if r.TLS == nil || len(r.TLS.VerifiedChains) == 0 {
		return nil, ErrUnauthenticated
	}
	names := alternativeNames(r.TLS.VerifiedChains[0][0])
	for _, c := range s.current() {
		if c.san != "" && slices.Contains(names, c.san) {
			return c, nil
		}
	}
	return nil, ErrUnauthenticated
}

func alternativeNames(cert *x509.Certificate) []string {
	names := slices.Concat(cert.DNSNames, cert.EmailAddresses)
	for _, u := range cert.URIs {
		names = append(names, u.String())
	}
	for _, ip := range cert.IPAddresses {
		names = append(names, ip.String())
	}
	return names
}
