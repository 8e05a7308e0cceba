package defender

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
)

// value is the token in hand, or "" and the error.
func value(t *testing.T, tokens *Tokens) (string, error) {
	t.Helper()
	b, _, err := tokens.get(t.Context())
	if err != nil {
		return "", err
	}
	return b.value, nil
}

// TestTokenExpiryMetric: it tells of the token in hand alone, whatever took its place.
func TestTokenExpiryMetric(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		life := time.Hour
		tokens := tokensOf(t, &issuer{next: func(n int, _ bool) (Token, error) {
			tok := Token{Value: fmt.Sprint("opaque-token-", n)}
			if life > 0 {
				tok.Expires = time.Now().Add(life)
			}
			return tok, nil
		}})
		reg := prometheus.NewRegistry()
		if _, err := newMetrics(reg, tokens.expires); err != nil {
			t.Fatal(err)
		}
		expect := func(when, want string) {
			t.Helper()
			want = "# HELP unrestrict_token_expiry_timestamp_seconds When the token in hand expires, in seconds since 1970; NaN without a token, or if its end is not known.\n" +
				"# TYPE unrestrict_token_expiry_timestamp_seconds gauge\nunrestrict_token_expiry_timestamp_seconds " + want + "\n"
			if err := testutil.GatherAndCompare(reg, strings.NewReader(want), "unrestrict_token_expiry_timestamp_seconds"); err != nil {
				t.Errorf("%s: %v", when, err)
			}
		}
		expect("before the first", "NaN")
		b, _, err := tokens.get(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		expect("with one", fmt.Sprint(time.Now().Add(life).Unix()))
		tokens.refuse(b)
		expect("refused by the API", "NaN")
		life = 0
		if err := tokens.Check(t.Context()); err != nil {
			t.Fatal(err)
		}
		expect("with one that does not say", "NaN")
	})
}

func TestTokenSingleFlight(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		source := &issuer{next: func(n int, _ bool) (Token, error) {
			time.Sleep(time.Second)
			return Token{Value: fmt.Sprint("opaque-token-", n), Expires: time.Now().Add(time.Hour)}, nil
		}}
		tokens := tokensOf(t, source)
		var wg sync.WaitGroup
		for range 50 {
			wg.Go(func() {
				if v, err := value(t, tokens); v != "opaque-token-1" {
					t.Errorf("%q %v", v, err)
				}
			})
		}
		wg.Wait()
		if source.count() != 1 {
			t.Errorf("%d requests", source.count())
		}
	})
}

// TestTokenRenewal: in the background, so that nobody waits, and before the end.
func TestTokenRenewal(t *testing.T) {
	for name, c := range map[string]struct {
		life, refreshIn, renewed time.Duration
	}{
		"five minutes before": {life: time.Hour, renewed: 55 * time.Minute},
		"when told":           {life: time.Hour, refreshIn: 20 * time.Minute, renewed: 20 * time.Minute},
		"a short life":        {life: 4 * time.Minute, renewed: 2 * time.Minute},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				start := time.Now()
				source := &issuer{next: func(n int, _ bool) (Token, error) {
					if n > 1 {
						time.Sleep(10 * time.Second)
					}
					tok := Token{Value: fmt.Sprint("opaque-token-", n), Expires: time.Now().Add(c.life)}
					if c.refreshIn > 0 {
						tok.RefreshOn = time.Now().Add(c.refreshIn)
					}
					return tok, nil
				}}
				tokens := tokensOf(t, source)
				for time.Since(start) < c.renewed {
					if v, err := value(t, tokens); v != "opaque-token-1" {
						t.Fatalf("after %s: %q %v", time.Since(start), v, err)
					}
					time.Sleep(10 * time.Second)
				}
				if source.count() != 1 {
					t.Errorf("%d requests too early", source.count())
				}
				before := time.Now()
				for range 5 {
					if v, _ := value(t, tokens); v != "opaque-token-1" || !time.Now().Equal(before) {
						t.Errorf("%q, %s waited for the renewal", v, time.Since(before))
					}
				}
				time.Sleep(11 * time.Second)
				if v, _ := value(t, tokens); v != "opaque-token-2" || source.count() != 2 {
					t.Errorf("%q after %d requests", v, source.count())
				}
			})
		})
	}
}

// TestTokenFailures: one request, then a growing pause in which all get the last error; the old token serves to its end.
func TestTokenFailures(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var down atomic.Bool
		source := &issuer{next: func(n int, _ bool) (Token, error) {
			if down.Load() {
				return Token{}, errors.New("the sign-in endpoint answers HTTP 503")
			}
			return Token{Value: "opaque-token", Expires: time.Now().Add(time.Hour)}, nil
		}}
		tokens := tokensOf(t, source)
		if err := tokens.Check(t.Context()); err != nil {
			t.Fatal(err)
		}
		down.Store(true)
		time.Sleep(58 * time.Minute)
		for range 100 {
			if err := tokens.Check(t.Context()); err != nil {
				t.Fatalf("the old one still holds: %v", err)
			}
			time.Sleep(time.Second)
		}
		if n := source.count(); n < 4 || n > 10 {
			t.Errorf("%d requests for the renewal in 100 s", n)
		}
		time.Sleep(time.Minute)
		before := source.count()
		var asked []time.Duration
		start := time.Now()
		for time.Since(start) < 2*time.Minute {
			n := source.count()
			e := failed(t, tokens.Check(t.Context()))
			if e.Class != System || e.Op != "token" || e.Sent || !strings.Contains(e.Reason, "HTTP 503") {
				t.Fatalf("%+v", e)
			}
			if source.count() > n {
				asked = append(asked, time.Since(start))
			}
			time.Sleep(100 * time.Millisecond)
		}
		if n := source.count() - before; n < 4 || n > 5 { // every 30 s by now
			t.Errorf("%d requests in 2 min: %v", n, asked)
		}
		down.Store(false)
		time.Sleep(30 * time.Second)
		if err := tokens.Check(t.Context()); err != nil {
			t.Error(err)
		}
		down.Store(true) // the pause begins small again
		b, _, _ := tokens.get(t.Context())
		tokens.refuse(b)
		if err := tokens.Check(t.Context()); err == nil {
			t.Error("no error")
		}
		down.Store(false)
		time.Sleep(time.Second)
		if err := tokens.Check(t.Context()); err != nil {
			t.Error(err)
		}
	})
}

func TestTokenWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tokens := tokensOf(t, &issuer{next: func(int, bool) (Token, error) {
			time.Sleep(time.Minute)
			return Token{Value: "opaque-token"}, nil
		}})
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		_, _, err := tokens.get(ctx)
		if e := expect(t, err, Transient, codeTimeout, false); e.Op != "token" || !errors.Is(e, context.DeadlineExceeded) {
			t.Error(e)
		}
		expect(t, tokens.Check(ctx), System, codeToken, false)
		if v, err := value(t, tokens); v != "opaque-token" {
			t.Errorf("%q %v", v, err)
		}
	})
}

func TestTokenClose(t *testing.T) {
	source := &stuck{}
	tokens := NewTokens(source, "scope")
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, _, _ = tokens.get(ctx)
	tokens.Close()
	if !source.left {
		t.Error("the request was not ended")
	}
	_, err := value(t, tokens)
	expect(t, err, System, codeToken, false)
}

type stuck struct{ left bool }

func (s *stuck) Token(ctx context.Context, _ string, _ bool) (Token, error) {
	<-ctx.Done()
	s.left = true
	return Token{}, ctx.Err()
}

func (s *stuck) Changed() bool { return false }

// TestUnusableTokens: what can't be a token, or has ended already, is none.
func TestUnusableTokens(t *testing.T) {
	hour := time.Now().Add(time.Hour)
	for name, c := range map[string]struct {
		tok  Token
		good bool
	}{
		"opaque":                 {Token{Value: "opaque", Expires: hour}, true},
		"unknown end":            {Token{Value: "opaque"}, true},
		"JWT":                    {Token{Value: jwt(map[string]any{"exp": hour.Unix()})}, true},
		"odd exp":                {Token{Value: jwt(map[string]any{"exp": "soon"})}, true},
		"empty":                  {Token{Expires: hour}, false},
		"expired":                {Token{Value: "opaque", Expires: time.Now()}, false},
		"expired long ago":       {Token{Value: "opaque", Expires: time.Now().Add(-time.Hour)}, false},
		"JWT expired":            {Token{Value: jwt(map[string]any{"exp": time.Now().Add(-time.Second).Unix()}), Expires: hour}, false},
		"a second line":          {Token{Value: "opaque\nX-Evil: 1", Expires: hour}, false},
		"not of this characters": {Token{Value: "opäque", Expires: hour}, false},
	} {
		tokens := tokensOf(t, &issuer{next: func(int, bool) (Token, error) { return c.tok, nil }})
		err := tokens.Check(t.Context())
		if (err == nil) != c.good {
			t.Errorf("%s: %v", name, err)
		}
		if !c.good {
			expect(t, err, System, codeToken, false)
			noSecret(t, err, c.tok.Value)
		}
	}
}

func TestClaims(t *testing.T) {
	exp := time.Now().Add(time.Hour).Truncate(time.Second)
	for name, c := range map[string]struct {
		token string
		want  TokenClaims
	}{
		"app": {
			jwt(map[string]any{"aud": "https://api", "roles": []string{"A", "B"}, "appid": "app", "tid": "ten", "exp": exp.Unix()}),
			TokenClaims{OK: true, Audience: []string{"https://api"}, Roles: []string{"A", "B"}, AppID: "app", TenantID: "ten", Expires: exp},
		},
		"user": {
			jwt(map[string]any{"aud": []string{"x", "y"}, "scp": "Machine.Read  Machine.RestrictExecution", "azp": "app"}),
			TokenClaims{OK: true, Audience: []string{"x", "y"}, Scopes: []string{"Machine.Read", "Machine.RestrictExecution"}, AppID: "app"},
		},
		"wrong types": {jwt(map[string]any{"aud": 1, "roles": 7, "exp": true, "scp": 5}), TokenClaims{OK: true}},
		"opaque":      {"opaque-token", TokenClaims{}},
		"three parts": {"a.b.c", TokenClaims{}},
	} {
		got, err := tokensOf(t, always(c.token)).Claims(t.Context())
		if diff := cmp.Diff(c.want, got); diff != "" || err != nil {
			t.Errorf("%s: %v %s", name, err, diff)
		}
	}
	if _, err := tokensOf(t, &stuck{}).Claims(cancelledContext(t)); err == nil {
		t.Error("no error")
	}
}

func cancelledContext(t *testing.T) context.Context {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	return ctx
}

func FuzzReadClaims(f *testing.F) {
	f.Add(secretToken)
	f.Add("a.e30.c")
	f.Add("....")
	f.Fuzz(func(t *testing.T, token string) {
		if c := readClaims(token); !c.OK && (c.AppID != "" || !c.Expires.IsZero()) {
			t.Fatalf("%+v", c)
		}
	})
}
