package clients

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"slices"
	"strings"

	"github.com/coreos/go-oidc/v3/oidc"
)

// oidcRule says which app tokens are a client's.
type oidcRule struct {
	issuers     []string // as tokens name them
	discovery   string   // the one of them whose discovery document names the keys
	audience    string
	apps, roles []string
}

// appClaims are the claims about the app, in Entra's tokens of version 1 and 2 and in those of others. A person's token
// has scopes (scp) in the place of roles.
type appClaims struct {
	AppID    string   `json:"appid"`
	Party    string   `json:"azp"`
	ClientID string   `json:"client_id"`
	Roles    []string `json:"roles"`
	Scopes   string   `json:"scp"`
}

func (c appClaims) app() string {
	for _, id := range []string{c.Party, c.AppID, c.ClientID} {
		if id != "" {
			return id
		}
	}
	return ""
}

// byApp recognises an app by its token. If several clients trust its issuer, the one that lists the app counts.
func (s *Set) byApp(ctx context.Context, token string) (*Client, error) {
	issuer := issuerOf(token)
	worst := ErrUnauthenticated
	for _, c := range s.current() {
		if c.oidc == nil || issuer == "" || !slices.Contains(c.oidc.issuers, issuer) {
			continue
		}
		switch err := c.oidc.verify(ctx, s.issuers.of(c.oidc.discovery), issuer, token); {
		case err == nil:
			return c, nil
		case errors.Is(err, ErrIssuer), errors.Is(err, ErrForbidden):
			worst = err
		}
	}
	return nil, worst
}

// issuerOf is the issuer that a token claims, unverified. It only selects the keys that the token is verified with.
func issuerOf(token string) string {
	parts := strings.Split(token, ".")
	if len(parts) != 3 {
		return ""
	}
	text, err := base64.RawURLEncoding.DecodeString(parts[1])
	if err != nil {
		return ""
	}
	var claims struct {
		Issuer string `json:"iss"`
	}
	_ = json.Unmarshal(text, &claims)
	return claims.Issuer
}

// verify checks a token against the rule: signature, issuer, audience, time, app, roles. The client does not learn why
// its token was refused.
func (r *oidcRule) verify(ctx context.Context, keys *keySet, issuer, token string) error {
	asked := &oneToken{keys: keys}
	verifier := oidc.NewVerifier(issuer, asked, &oidc.Config{ClientID: r.audience, SupportedSigningAlgs: algorithms()})
	verified, err := verifier.Verify(ctx, token)
	if asked.unavailable {
		return ErrIssuer
	}
	if err != nil {
		return ErrUnauthenticated
	}
	var claims appClaims
	if err := verified.Claims(&claims); err != nil || claims.app() == "" || !slices.Contains(r.apps, claims.app()) || claims.Scopes != "" {
		return ErrUnauthenticated
	}
	for _, role := range r.roles {
		if !slices.Contains(claims.Roles, role) {
			return ErrForbidden
		}
	}
	return nil
}

// oneToken is the key set for one token. It keeps whether the keys were unavailable, because go-oidc passes on only the
// text of that error.
type oneToken struct {
	keys        *keySet
	unavailable bool // the keys can't be fetched
}

// VerifySignature implements oidc.KeySet.
func (o *oneToken) VerifySignature(ctx context.Context, token string) ([]byte, error) {
	payload, err := o.keys.VerifySignature(ctx, token)
	o.unavailable = errors.Is(err, ErrIssuer)
	return payload, err
}
