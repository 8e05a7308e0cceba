package defender

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"strings"
	"sync/atomic"
	"time"
)

const (
	renewBefore = 5 * time.Minute // azidentity gives out its cached token as long as it has more left than that
	freshFor    = time.Minute     // a refused token that is older is replaced before the system is blamed
)

// bearer is one token in use.
type bearer struct {
	value    string
	forms    *needles // what it looks like where somebody repeats it
	obtained time.Time
	expires  time.Time    // zero: unknown
	renewAt  time.Time    // zero: never
	proven   atomic.Bool  // the API gave it some answer other than 401
	accepted *atomic.Bool // a POST with this value was accepted; shared by all that have the value
}

// newBearer remembers how the API met the last one if the value is the same. A refusal makes it prove itself anew.
func newBearer(tok Token, now time.Time, last *bearer, refused bool) *bearer {
	b := &bearer{value: tok.Value, forms: needlesOf(tok.Value), obtained: now, expires: expiry(tok), renewAt: tok.RefreshOn, accepted: new(atomic.Bool)}
	if last != nil && last.value == tok.Value {
		b.accepted = last.accepted
		b.proven.Store(last.proven.Load() && !refused)
	}
	if b.renewAt.IsZero() && !b.expires.IsZero() {
		b.renewAt = b.expires.Add(-min(renewBefore, b.expires.Sub(now)/2))
	}
	return b
}

func (b *bearer) expired(now time.Time) bool { return !b.expires.IsZero() && !now.Before(b.expires) }

func (b *bearer) due(now time.Time) bool { return !b.renewAt.IsZero() && !now.Before(b.renewAt) }

// fresh says whether the system is to blame when the API refuses this token now: it was got for this call, or
// lately, and the API never took it. Otherwise it is worth while to get another one first.
func (b *bearer) fresh(gotForCall bool, now time.Time) bool {
	return now.Sub(b.obtained) < freshFor && (gotForCall || !b.proven.Load())
}

// expiry is the earlier of what the credential says and what stands in the token itself.
func expiry(tok Token) time.Time {
	exp := tok.Expires
	if own := readClaims(tok.Value).Expires; !own.IsZero() && (exp.IsZero() || own.Before(exp)) {
		exp = own
	}
	return exp
}

// TokenClaims is what a token says of itself, unverified: only the API can judge it.
type TokenClaims struct {
	OK       bool     // false: the token is no JWT, nothing else is set
	Audience []string // aud
	Roles    []string // roles: application permissions
	Scopes   []string // scp: delegated permissions
	AppID    string   // appid, else azp
	TenantID string   // tid
	Expires  time.Time
}

// Claims reads the token in hand, or the one that can be got.
func (t *Tokens) Claims(ctx context.Context) (TokenClaims, error) {
	b, _, err := t.get(ctx)
	if err != nil {
		return TokenClaims{}, err
	}
	return readClaims(b.value), nil
}

func readClaims(token string) TokenClaims {
	parts := strings.Split(token, ".")
	if len(parts) != 3 {
		return TokenClaims{}
	}
	payload, err := base64.RawURLEncoding.DecodeString(strings.TrimRight(parts[1], "="))
	var claims map[string]json.RawMessage
	if err != nil || json.Unmarshal(payload, &claims) != nil {
		return TokenClaims{}
	}
	c := TokenClaims{OK: true, AppID: text(claims["appid"]), TenantID: text(claims["tid"])}
	if c.AppID == "" {
		c.AppID = text(claims["azp"])
	}
	if scopes := text(claims["scp"]); scopes != "" {
		c.Scopes = strings.Fields(scopes)
	}
	if one := text(claims["aud"]); one != "" {
		c.Audience = []string{one}
	} else {
		_ = json.Unmarshal(claims["aud"], &c.Audience)
	}
	_ = json.Unmarshal(claims["roles"], &c.Roles)
	var exp float64
	if json.Unmarshal(claims["exp"], &exp) == nil && exp > 0 && exp < 1e12 {
		c.Expires = time.Unix(int64(exp), 0)
	}
	return c
}
