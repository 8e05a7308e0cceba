package clients

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
)

// provider is an OpenID provider over TLS.
type provider struct {
	*httptest.Server
	keys   jose.JSONWebKeySet
	broken bool
	asked  int
}

func newProvider(t *testing.T) *provider {
	p := &provider{}
	p.Server = httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case p.broken:
			w.WriteHeader(http.StatusBadGateway)
		case r.URL.Path == "/.well-known/openid-configuration":
			fmt.Fprintf(w, `{"issuer":%q,"jwks_uri":%q}`, p.URL, p.URL+"/keys")
		case r.URL.Path == "/keys":
			p.asked++
			_ = json.NewEncoder(w).Encode(p.keys)
		}
	}))
	t.Cleanup(p.Close)
	return p
}

type signingKey struct {
	id  string
	key *ecdsa.PrivateKey
}

func newKey(t *testing.T, id string) signingKey {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return signingKey{id, key}
}

func (p *provider) publish(k signingKey) {
	p.keys.Keys = []jose.JSONWebKey{{Key: k.key.Public(), KeyID: k.id, Algorithm: "ES256", Use: "sig"}}
}

// token is a good one, but for what more says.
func (p *provider) token(t *testing.T, k signingKey, more map[string]any) string {
	claims := map[string]any{
		"iss": p.URL, "aud": "api://intake", "azp": "app-1", "roles": []string{"Requests.Write", "Other"}, "exp": time.Now().Add(time.Hour).Unix(),
	}
	maps.Copy(claims, more)
	text, err := json.Marshal(claims)
	if err != nil {
		t.Fatal(err)
	}
	signer, err := jose.NewSigner(jose.SigningKey{Algorithm: jose.ES256, Key: jose.JSONWebKey{Key: k.key, KeyID: k.id}}, nil)
	if err != nil {
		t.Fatal(err)
	}
	signed, err := signer.Sign(text)
	if err != nil {
		t.Fatal(err)
	}
	compact, err := signed.CompactSerialize()
	if err != nil {
		t.Fatal(err)
	}
	return compact
}

func TestAppTokens(t *testing.T) {
	p := newProvider(t)
	first, next := newKey(t, "1"), newKey(t, "2")
	p.publish(first)
	s := load(t, "clients:\n- {name: other, oidc: {issuer: '"+p.URL+"', audience: 'api://intake', app_ids: [app-0]}}\n"+
		"- {name: app, oidc: {issuer: '"+p.URL+"', audience: 'api://intake', app_ids: [app-1], roles: [Requests.Write]}}\n")
	s.issuers.client = p.Client()
	ask := func(token string) error {
		c, err := s.SignIn(asks("Bearer " + token))
		if err == nil && c.Name != "app" {
			t.Errorf("it is %s", c.Name)
		}
		return err
	}
	// Its keys can't be had: nobody is refused for that.
	p.broken = true
	if err := ask(p.token(t, first, nil)); !errors.Is(err, ErrIssuer) || len(s.Unreachable()) != 1 {
		t.Errorf("without keys: %v, unreachable %q", err, s.Unreachable())
	}
	p.broken = false
	keys := s.issuers.of(p.URL)
	past := func() { keys.asked = time.Now().Add(-time.Minute) } // the pause between two questions is over
	past()
	for name, c := range map[string]struct {
		more map[string]any
		want error
	}{
		"good":        {nil, nil},
		"version 1":   {map[string]any{"azp": nil, "appid": "app-1"}, nil},
		"another app": {map[string]any{"azp": "app-2"}, ErrUnauthenticated},
		"no app":      {map[string]any{"azp": nil}, ErrUnauthenticated},
		"audience":    {map[string]any{"aud": "api://else"}, ErrUnauthenticated},
		"issuer":      {map[string]any{"iss": p.URL + "/x"}, ErrUnauthenticated},
		"expired":     {map[string]any{"exp": time.Now().Add(-time.Minute).Unix()}, ErrUnauthenticated},
		"no end":      {map[string]any{"exp": nil}, ErrUnauthenticated},
		"too early":   {map[string]any{"nbf": time.Now().Add(time.Hour).Unix()}, ErrUnauthenticated},
		"a person's":  {map[string]any{"roles": nil, "scp": "Requests.Write"}, ErrUnauthenticated},
		"no role":     {map[string]any{"roles": []string{"Other"}}, ErrForbidden},
	} {
		if err := ask(p.token(t, first, c.more)); !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", name, err, c.want)
		}
	}
	if err := ask(p.token(t, newKey(t, "1"), nil)); !errors.Is(err, ErrUnauthenticated) {
		t.Errorf("a stranger's key of a known id: %v", err)
	}
	// A new key is asked for once the pause is over, whoever sends unknown ids meanwhile.
	p.publish(next)
	asked := p.asked
	for range 5 {
		if err := ask(p.token(t, next, nil)); !errors.Is(err, ErrUnauthenticated) {
			t.Errorf("a key that is not known yet: %v", err)
		}
	}
	if p.asked != asked {
		t.Errorf("the keys were asked for %d times within the pause", p.asked-asked)
	}
	past()
	if err := ask(p.token(t, next, nil)); err != nil || p.asked != asked+1 {
		t.Errorf("after the pause: %v, asked %d times", err, p.asked-asked)
	}
	// What is known stays good while the issuer is away, and what is not known is 503.
	p.broken = true
	past()
	if err := ask(p.token(t, newKey(t, "3"), nil)); !errors.Is(err, ErrIssuer) {
		t.Errorf("an unknown key while the issuer is away: %v", err)
	}
	if err := ask(p.token(t, next, nil)); err != nil {
		t.Errorf("a known key while the issuer is away: %v", err)
	}
}
