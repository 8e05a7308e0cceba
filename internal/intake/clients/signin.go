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

// Why nobody is recognised. The texts are for the one who asks, and hold nothing of what he sent.
var (
	// ErrUnauthenticated is that it is not known who asks.
	ErrUnauthenticated = errors.New("sign in with a bearer token that is known here")
	// ErrForbidden is that a good token lacks a role.
	ErrForbidden = errors.New("the token lacks a role that is needed here")
	// ErrIssuer is that a token can't be checked, for its issuer's keys can't be had.
	ErrIssuer = errors.New("the token can't be checked just now: its issuer's keys can't be had")
)

// SignIn recognises who asks: by the header Authorization, else by the certificate of the connection.
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

// byToken compares digests, each in constant time, so that neither a token nor how much of it is right shows in the time.
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

// byCertificate goes by what the handshake has verified.
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
