package defendersim

import (
	"crypto"
	"crypto/hmac"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"maps"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"
)

// grant is what a token stands for.
type grant struct {
	appID         string
	roles         []string
	wrongAudience bool          // issued for another audience
	issued        time.Duration // since the Server's start
	expires       time.Duration
}

// tokens holds every token that was issued and has neither expired nor been revoked. An unknown token is worth nothing,
// whatever its claims.
type tokens struct {
	key [32]byte

	mu    sync.RWMutex
	known map[string]*grant
}

func (t *tokens) init() {
	_, _ = rand.Read(t.key[:]) // never fails
	t.known = map[string]*grant{}
}

// IssueToken makes a token for the API that is good for d, with these roles;
// none given: those of the Config; one empty name: no role at all.
func (s *Server) IssueToken(d time.Duration, roles ...string) string {
	if len(roles) == 0 {
		roles = s.conf().Roles
	}
	roles = slices.DeleteFunc(slices.Clone(roles), func(role string) bool { return role == "" })
	return s.issue(d, "https://api.securitycenter.microsoft.com", s.tenant(), or(s.conf().ClientID, "2f48b784-5da5-4e61-9957-012d2630f1e4"), roles)
}

// RevokeTokens makes the API answer 401 for every token issued so far.
func (s *Server) RevokeTokens() {
	s.tokens.mu.Lock()
	defer s.tokens.mu.Unlock()
	clear(s.tokens.known)
}

// tenant is the target of 429 answers and the tid of tokens issued directly.
func (s *Server) tenant() string {
	return or(s.conf().TenantID, "7f3a9c52-1d84-4b6e-9a07-c25e81d4f630")
}

// issue signs an application token with the claims of a live one; tokens for the API are v1.0 even if requested at the
// v2.0 endpoint [live].
func (s *Server) issue(d time.Duration, audience, tenant, appID string, roles []string) string {
	now := time.Now()
	var uti [16]byte
	_, _ = rand.Read(uti[:])
	claims := map[string]any{
		"aud": audience, "iss": "https://sts.windows.net/" + tenant + "/", "iat": now.Unix(), "nbf": now.Unix(), "exp": now.Add(d).Unix(),
		"appid": appID, "appidacr": "1", "app_displayname": "simulated", "idtyp": "app", "tid": tenant, "uti": hex.EncodeToString(uti[:]), "ver": "1.0",
	}
	if len(roles) > 0 { // without any, the claim is missing [doc] v2-oauth2-client-creds-grant-flow
		claims["roles"] = roles
	}
	payload, _ := json.Marshal(claims)
	token := s.sign(payload)

	s.tokens.mu.Lock()
	defer s.tokens.mu.Unlock()
	elapsed := time.Since(s.start)
	maps.DeleteFunc(s.tokens.known, func(_ string, g *grant) bool { return g.expires <= elapsed })
	s.tokens.known[token] = &grant{appID: appID, roles: roles, wrongAudience: !acceptsAudience(audience), issued: elapsed, expires: elapsed + d}
	return token
}

// sign makes a JWT: RS256 as Entra does, or, without a SigningKey, HS256.
func (s *Server) sign(payload []byte) string {
	enc, key, header := base64.RawURLEncoding, s.conf().SigningKey, `{"typ":"JWT","alg":"HS256"}`
	if key != nil {
		header = `{"typ":"JWT","alg":"RS256","x5t":"` + keyID(key) + `","kid":"` + keyID(key) + `"}`
	}
	unsigned := enc.EncodeToString([]byte(header)) + "." + enc.EncodeToString(payload)
	var signature []byte
	if key != nil {
		digest := sha256.Sum256([]byte(unsigned))
		signature, _ = rsa.SignPKCS1v15(nil, key, crypto.SHA256, digest[:]) // only a key that is too short fails
	} else {
		mac := hmac.New(sha256.New, s.tokens.key[:])
		mac.Write([]byte(unsigned))
		signature = mac.Sum(nil)
	}
	return unsigned + "." + enc.EncodeToString(signature)
}

// keyID names a key by its digest.
func keyID(key *rsa.PrivateKey) string {
	digest := sha256.Sum256(key.N.Bytes())
	return base64.RawURLEncoding.EncodeToString(digest[:20])
}

// bearer returns the grant of the request's token, nil without a valid one.
func (s *Server) bearer(r *http.Request) *grant {
	scheme, token, _ := strings.Cut(r.Header.Get("Authorization"), " ")
	if !strings.EqualFold(scheme, "Bearer") {
		return nil
	}
	s.tokens.mu.RLock()
	defer s.tokens.mu.RUnlock()
	g := s.tokens.known[strings.TrimSpace(token)]
	now, revoked := time.Since(s.start), s.conf().RevokeTokensAfter
	if g == nil || g.expires <= now || revoked > 0 && g.issued+revoked <= now {
		return nil
	}
	return g
}

// acceptsAudience reports whether the API was seen to accept tokens for a resource. A wrong one is answered with 403,
// not 401 ([doc] exposed-apis-create-app-webapp.md, Tip).
func acceptsAudience(resource string) bool {
	u, err := url.Parse(resource)
	if err != nil {
		return false
	}
	host := u.Hostname()
	if ip := net.ParseIP(host); ip != nil && ip.IsLoopback() {
		return true
	}
	for _, known := range []string{
		"securitycenter.microsoft.com", "securitycenter.windows.com", "securitycenter.microsoft.us", "api.security.microsoft.com",
		"localhost",
	} {
		if host == known || strings.HasSuffix(host, "."+known) {
			return true
		}
	}
	return host == "securitycenter.onmicrosoft.com" && strings.HasPrefix(u.Path, "/windowsatpservice")
}
