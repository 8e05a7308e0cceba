package defender

import (
	"cmp"
	"context"
	"encoding/base64"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
)

const (
	renewBefore = 5 * time.Minute // azidentity returns its cached token as long as more than this is left of it
	freshFor    = time.Minute     // a refused token older than this is replaced before the fault counts as the system's
)

// bearer is one token in use.
type bearer struct {
	value    string
	secret   *secret // value, prepared for finding it in answers
	tenant   string  // that it claims to be for; "": it names none
	obtained time.Time
	expires  time.Time    // zero: unknown
	renewAt  time.Time    // zero: never
	proven   atomic.Bool  // the API has answered it with something other than 401
	accepted *atomic.Bool // a POST with this value was accepted; shared by all bearers with that value
}

// newBearer carries over how the API answered the last bearer, if the value is the same. After a refusal the token has
// to be proven again.
func newBearer(tok Token, now time.Time, last *bearer, refused bool) *bearer {
	b := &bearer{value: tok.Value, secret: newSecret(tok.Value), tenant: readClaims(tok.Value).TenantID, obtained: now, expires: expiry(tok), renewAt: tok.RefreshOn, accepted: new(atomic.Bool)}
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

// fresh reports whether a 401 to this token is a fault of the system: the token was obtained less than freshFor ago,
// and it was requested for this very call or the API never took it. Otherwise another token is worth a try first.
func (b *bearer) fresh(gotForCall bool, now time.Time) bool {
	return now.Sub(b.obtained) < freshFor && (gotForCall || !b.proven.Load())
}

// expiry is the earlier of the expiry that the credential returned and the one in the token itself.
func expiry(tok Token) time.Time {
	exp := tok.Expires
	if own := readClaims(tok.Value).Expires; !own.IsZero() && (exp.IsZero() || own.Before(exp)) {
		exp = own
	}
	if !inYears(exp.UTC()) {
		return time.Time{}
	}
	return exp
}

// TokenClaims are the claims in a token, unverified: only the API can verify them.
type TokenClaims struct {
	OK       bool     // false: the token is not a JWT, and nothing else is set
	Audience []string // aud
	Roles    []string // roles: application permissions
	Scopes   []string // scp: delegated permissions
	AppID    string   // appid, else azp
	TenantID string   // tid
	Expires  time.Time
}

// Claims returns the claims of the cached token, or of one requested now.
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
	var claims struct {
		AppID  text           `json:"appid"`
		Azp    text           `json:"azp"`
		Tenant text           `json:"tid"`
		Scopes text           `json:"scp"`
		Aud    texts          `json:"aud"`
		Roles  texts          `json:"roles"`
		Exp    jsontext.Value `json:"exp"`
	}
	if err != nil || json.Unmarshal(payload, &claims, lenient) != nil {
		return TokenClaims{}
	}
	c := TokenClaims{
		OK: true, AppID: printable(string(cmp.Or(claims.AppID, claims.Azp))), TenantID: printable(string(claims.Tenant)),
		Audience: printableClaims(claims.Aud), Roles: printableClaims(claims.Roles),
		Scopes: printableClaims(strings.Fields(string(claims.Scopes))),
	}
	var exp float64
	if json.Unmarshal(claims.Exp, &exp) == nil && exp > 0 && exp < 1e12 {
		c.Expires = time.Unix(int64(exp), 0)
	}
	return c
}

// printableClaims returns those of the first 100 claims that can be shown; a token has some tens.
func printableClaims(claims []string) (out []string) {
	for _, claim := range claims[:min(len(claims), 100)] {
		if printable(claim) != "" {
			out = append(out, claim)
		}
	}
	return out
}

// texts is a list of strings, or one string; a value of another type counts as absent.
type texts []string

// UnmarshalJSONFrom never fails for a value of another kind.
func (l *texts) UnmarshalJSONFrom(dec *jsontext.Decoder) error {
	raw, err := dec.ReadValue()
	if err != nil {
		return err
	}
	if raw.Kind() != '[' {
		raw = slices.Concat(jsontext.Value("["), raw, jsontext.Value("]"))
	}
	var all []text
	*l = nil
	err = json.Unmarshal(raw, &all, lenient)
	for _, s := range all {
		*l = append(*l, string(s))
	}
	return err
}
