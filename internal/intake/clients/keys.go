package clients

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"

	"github.com/coreos/go-oidc/v3/oidc"
	"github.com/go-jose/go-jose/v4"
)

// algorithms are those that verify with a public key. With the others, the key that everybody knows could also sign.
func algorithms() []string {
	return []string{oidc.RS256, oidc.RS384, oidc.RS512, oidc.PS256, oidc.PS384, oidc.PS512, oidc.ES256, oidc.ES384, oidc.ES512, oidc.EdDSA}
}

const (
	askAgain   = 30 * time.Second // pause between fetches for an unknown key
	retryAfter = 5 * time.Second  // the same, while no key is known at all
	askWithin  = 8 * time.Second
	freshFor   = 24 * time.Hour // a revoked key is dropped by then
	maxAnswer  = 1 << 20
)

// issuers has the keys of each issuer, shared by all clients that trust it.
type issuers struct {
	client *http.Client
	mu     sync.Mutex
	sets   map[string]*keySet
}

func newIssuers() *issuers {
	transport := &http.Transport{Proxy: http.ProxyFromEnvironment, DisableKeepAlives: true, TLSHandshakeTimeout: askWithin}
	return &issuers{client: &http.Client{Transport: transport, Timeout: askWithin}, sets: map[string]*keySet{}}
}

func (i *issuers) of(issuer string) *keySet {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.sets[issuer] == nil {
		i.sets[issuer] = &keySet{issuer: issuer, client: i.client}
	}
	return i.sets[issuer]
}

// Unreachable returns the issuers whose keys could not be fetched the last time.
func (s *Set) Unreachable() (list []string) {
	s.issuers.mu.Lock()
	defer s.issuers.mu.Unlock()
	for issuer, set := range s.issuers.sets {
		if set.failing() {
			list = append(list, issuer)
		}
	}
	return list
}

// keySet is the keys of one issuer, fetched by discovery when they are needed. go-oidc's own key set fetches them at
// each token with an unknown key id, which anybody can send.
type keySet struct {
	issuer string
	client *http.Client

	mu    sync.Mutex // held while the keys are fetched; others wait for the answer
	keys  jose.JSONWebKeySet
	asked time.Time
	read  time.Time
	err   error // of the last fetch
}

// VerifySignature returns the signed payload of a token.
func (k *keySet) VerifySignature(ctx context.Context, token string) ([]byte, error) {
	var allowed []jose.SignatureAlgorithm
	for _, a := range algorithms() {
		allowed = append(allowed, jose.SignatureAlgorithm(a))
	}
	signed, err := jose.ParseSignedCompact(token, allowed)
	if err != nil || len(signed.Signatures) != 1 {
		return nil, errors.New("no signed token")
	}
	keys, err := k.byID(ctx, signed.Signatures[0].Header.KeyID)
	if err != nil {
		return nil, err
	}
	for _, key := range keys {
		if payload, err := signed.Verify(key); err == nil {
			return payload, nil
		}
	}
	return nil, errors.New("no key of the issuer has signed it")
}

func (k *keySet) byID(ctx context.Context, id string) ([]jose.JSONWebKey, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	found := k.keys.Key(id)
	pause := askAgain
	if len(k.keys.Keys) == 0 {
		pause = retryAfter
	}
	if (len(found) == 0 || time.Since(k.read) > freshFor) && time.Since(k.asked) > pause {
		// A client that disconnects must not turn the answer for the others into an error.
		k.fetch(context.WithoutCancel(ctx))
		found = k.keys.Key(id)
	}
	if len(found) == 0 && k.err != nil {
		return nil, fmt.Errorf("%w: %w", ErrIssuer, k.err)
	}
	return found, nil
}

func (k *keySet) fetch(ctx context.Context) {
	k.asked = time.Now()
	ctx, cancel := context.WithTimeout(ctx, askWithin)
	defer cancel()
	var about struct {
		Issuer string `json:"issuer"`
		Keys   string `json:"jwks_uri"`
	}
	var keys jose.JSONWebKeySet
	err := k.get(ctx, strings.TrimSuffix(k.issuer, "/")+"/.well-known/openid-configuration", &about)
	if u, bad := url.Parse(about.Keys); err == nil && (bad != nil || u.Scheme != "https" || about.Issuer != k.issuer) {
		err = errors.New("the issuer's discovery document is for another issuer, or its keys are not at https")
	}
	if err == nil {
		err = k.get(ctx, about.Keys, &keys)
	}
	if err == nil && len(keys.Keys) == 0 {
		err = errors.New("the issuer names no key")
	}
	if k.err = err; err == nil {
		k.keys, k.read = keys, time.Now()
	}
}

func (k *keySet) get(ctx context.Context, address string, into any) error {
	ask, err := http.NewRequestWithContext(ctx, http.MethodGet, address, http.NoBody)
	if err != nil {
		return err
	}
	answer, err := k.client.Do(ask)
	if err != nil {
		return err
	}
	defer answer.Body.Close()
	if answer.StatusCode != http.StatusOK {
		return fmt.Errorf("%s answers %s", address, answer.Status)
	}
	return json.NewDecoder(io.LimitReader(answer.Body, maxAnswer)).Decode(into)
}

func (k *keySet) failing() bool {
	if !k.mu.TryLock() {
		return false // a fetch is under way
	}
	defer k.mu.Unlock()
	return k.err != nil
}
