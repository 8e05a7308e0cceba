package admin

import (
	"net/http"
	"strings"
	"testing"

	"example.com/unrestrict-worker/internal/health"
)

const (
	testToken = "s3cret-admin-token"
	probes    = "/livez /readyz /metrics"
	guarded   = "/ /status /fragment /request?id=x /assets/page.js /assets/style.css /nothing"
)

func TestTokenOffLoopback(t *testing.T) {
	for name, c := range map[string]struct {
		token string // configured
		auth  func(*http.Request)
		code  int // of the guarded paths; 200 stands for anything the guard let pass
	}{
		"no token configured":                {"", nil, 403},
		"none configured, an empty one sent": {"", func(r *http.Request) { r.SetBasicAuth("any", "") }, 403},
		"none sent":                          {testToken, nil, 401},
		"bearer":                             {testToken, func(r *http.Request) { r.Header.Set("Authorization", "Bearer "+testToken) }, 200},
		"bearer, lower case":                 {testToken, func(r *http.Request) { r.Header.Set("Authorization", "bearer "+testToken) }, 200},
		"wrong bearer":                       {testToken, func(r *http.Request) { r.Header.Set("Authorization", "Bearer "+testToken+"x") }, 401},
		"empty bearer":                       {testToken, func(r *http.Request) { r.Header.Set("Authorization", "Bearer ") }, 401},
		"another scheme":                     {testToken, func(r *http.Request) { r.Header.Set("Authorization", "Digest "+testToken) }, 401},
		"basic, any user":                    {testToken, func(r *http.Request) { r.SetBasicAuth("any", testToken) }, 200},
		"basic, wrong":                       {testToken, func(r *http.Request) { r.SetBasicAuth(testToken, "any") }, 401},
	} {
		t.Run(name, func(t *testing.T) {
			s := start(t, Config{Addr: "0.0.0.0:0", Token: c.token}, healthy().sources(), nil)
			for path := range strings.FieldsSeq(guarded) {
				resp, body := s.ask(t, http.MethodGet, path, c.auth)
				passed := resp.StatusCode == 200 || (path == "/nothing" || path == "/request?id=x") && resp.StatusCode == 404
				if (c.code == 200) != passed || !passed && resp.StatusCode != c.code {
					t.Errorf("%s: got %d, want %d", path, resp.StatusCode, c.code)
				}
				if c.code == 403 && !strings.Contains(body, "WORKER_ADMIN_TOKEN") {
					t.Errorf("%s gives no hint: %s", path, body)
				}
				if c.code == 401 && !strings.Contains(strings.Join(resp.Header.Values("WWW-Authenticate"), ","), "Basic realm") {
					t.Errorf("%s: a browser would not ask for the token: %q", path, resp.Header.Values("WWW-Authenticate"))
				}
			}
			for path := range strings.FieldsSeq(probes) {
				if code, _ := s.get(t, path); code != 200 {
					t.Errorf("%s without a token: %d", path, code)
				}
			}
		})
	}
}

// Without a token loopback is enough. With one it is not: a proxy that adds no header looks like a local client.
func TestTokenOnLoopback(t *testing.T) {
	open := start(t, Config{}, healthy().sources(), nil)
	guarded := start(t, Config{Token: testToken}, healthy().sources(), nil)
	withToken := func(r *http.Request) { r.SetBasicAuth("any", testToken) }
	for path := range strings.FieldsSeq(probes + " / /status /assets/page.js /debug/pprof/") {
		if code, _ := open.get(t, path); code != 200 {
			t.Errorf("%s, none set: %d", path, code)
		}
		want := 401
		if strings.Contains(probes, path) && path != "/" {
			want = 200
		}
		if code, body := guarded.get(t, path); code != want || strings.Contains(body, testToken) {
			t.Errorf("%s, none sent: %d, want %d; in the body: %t", path, code, want, strings.Contains(body, testToken))
		}
		if resp, body := guarded.ask(t, http.MethodGet, path, withToken); resp.StatusCode != 200 || strings.Contains(body, testToken) {
			t.Errorf("%s, sent: %d; in the body: %t", path, resp.StatusCode, strings.Contains(body, testToken))
		}
	}
}

// TestReadyzWithoutTheTokenHasCodesAlone: probes need no more, and the texts tell of addresses, accounts and reasons.
func TestReadyzWithoutTheTokenHasCodesAlone(t *testing.T) {
	w := &worker{conditions: []health.Condition{
		{Code: "paused", Message: "change freeze of ann@contoso.com", Remedy: "ask contoso", Stops: true}, impairs("settings", "stream at 10.1.2.3"),
	}}
	texts := func(body string) bool {
		return strings.Contains(body, "ann@contoso.com") && strings.Contains(body, "10.1.2.3")
	}
	none := func(body string) bool {
		return !strings.Contains(body, "contoso") && !strings.Contains(body, "10.1.2.3") && !strings.Contains(body, "message")
	}
	withToken := func(r *http.Request) { r.Header.Set("Authorization", "Bearer "+testToken) }
	wrongToken := func(r *http.Request) { r.Header.Set("Authorization", "Bearer x") }
	throughProxy := func(r *http.Request) { r.Header.Set("X-Forwarded-For", "127.0.0.1") }
	for name, c := range map[string]struct {
		cfg  Config
		edit func(*http.Request)
		good func(string) bool
	}{
		"on loopback":                  {Config{}, nil, texts},
		"on loopback, through a proxy": {Config{}, throughProxy, none},
		"on loopback, a token set":     {Config{Token: testToken}, nil, none},
		"on loopback, with it":         {Config{Token: testToken}, withToken, texts},
		"off loopback, none set":       {Config{Addr: "0.0.0.0:0"}, nil, none},
		"off loopback, none sent":      {Config{Addr: "0.0.0.0:0", Token: testToken}, nil, none},
		"off loopback, a wrong one":    {Config{Addr: "0.0.0.0:0", Token: testToken}, wrongToken, none},
		"off loopback, with it":        {Config{Addr: "0.0.0.0:0", Token: testToken}, withToken, texts},
	} {
		s := start(t, c.cfg, w.sources(), nil)
		resp, body := s.ask(t, http.MethodGet, "/readyz", c.edit)
		if resp.StatusCode != 503 || !c.good(body) || !strings.Contains(body, `"code": "paused"`) || !strings.Contains(body, `"code": "settings"`) {
			t.Errorf("%s: %d %s", name, resp.StatusCode, body)
		}
	}
}

func TestHostOnLoopback(t *testing.T) {
	s := start(t, Config{}, healthy().sources(), nil)
	for host, want := range map[string]int{
		"localhost": 200, "LOCALHOST:8080": 200, "localhost.:8080": 200, "127.0.0.1:1": 200, "127.9.9.9": 200, "[::1]:8080": 200, "[::1]": 200, "[::ffff:127.0.0.1]": 200,
		"evil.example": 403, "evil.example:8080": 403, "localhost.evil.example": 403, "127.0.0.1.evil.example": 403,
		"10.0.0.1": 403, "0.0.0.0:8080": 403, "[::]:80": 403, "[fe80::1]": 403, "xlocalhost": 403,
	} {
		for path := range strings.FieldsSeq(probes + " / /status /debug/pprof/") {
			if resp, _ := s.ask(t, http.MethodGet, path, func(r *http.Request) { r.Host = host }); resp.StatusCode != want {
				t.Errorf("Host %s, %s: got %d, want %d", host, path, resp.StatusCode, want)
			}
		}
	}
	off := start(t, Config{Addr: "0.0.0.0:0", Token: testToken}, healthy().sources(), nil)
	resp, _ := off.ask(t, http.MethodGet, "/status", func(r *http.Request) { r.Host = "worker.example"; r.SetBasicAuth("", testToken) })
	if resp.StatusCode != 200 {
		t.Errorf("off loopback any Host goes, with the token: got %d", resp.StatusCode)
	}
}

// A proxy on the same machine, with a Host that it made fit, lets nobody in whom the address would keep out; and no header
// makes anybody more local than the address does.
func TestForwardedIsNotLocal(t *testing.T) {
	headers := map[string]string{
		"X-Forwarded-For": "127.0.0.1", "X-Forwarded-Host": "localhost", "X-Forwarded-Proto": "http", "Forwarded": "for=127.0.0.1",
		"X-Real-Ip": "127.0.0.1", "Via": "1.1 localhost",
	}
	for _, token := range []string{"", testToken} {
		near := start(t, Config{Token: token}, healthy().sources(), nil)
		far := start(t, Config{Addr: "0.0.0.0:0", Token: token}, healthy().sources(), nil)
		for name, value := range headers {
			through := func(r *http.Request) { r.Host = "localhost"; r.Header.Set(name, value) }
			for _, s := range []running{near, far} {
				for path, want := range map[string]int{"/livez": 200, "/readyz": 200, "/metrics": 200, "/status": 401, "/": 401, "/debug/pprof/": 403, "/debug/pprof/heap": 403} {
					if token == "" && want == 401 {
						want = 403
					}
					if resp, _ := s.ask(t, http.MethodGet, path, through); resp.StatusCode != want {
						t.Errorf("%s, token %q, %s: got %d, want %d", name, token, path, resp.StatusCode, want)
					}
				}
				if token == "" {
					continue
				}
				signed := func(r *http.Request) { through(r); r.SetBasicAuth("", token) }
				if resp, _ := s.ask(t, http.MethodGet, "/status", signed); resp.StatusCode != 200 {
					t.Errorf("%s with the token: got %d", name, resp.StatusCode)
				}
				if resp, _ := s.ask(t, http.MethodGet, "/debug/pprof/heap", signed); resp.StatusCode != 403 {
					t.Errorf("%s, profiles with the token: got %d", name, resp.StatusCode)
				}
			}
		}
	}
}

func TestOtherSites(t *testing.T) {
	s := start(t, Config{}, healthy().sources(), nil)
	for name, c := range map[string]struct {
		site, mode, dest string
		want             int
	}{
		"own page":              {"same-origin", "cors", "empty", 200},
		"address typed":         {"none", "navigate", "document", 200},
		"link followed":         {"cross-site", "navigate", "document", 200},
		"image of another site": {"cross-site", "no-cors", "image", 403},
		"frame in another site": {"cross-site", "navigate", "iframe", 403},
		"fetch by another port": {"same-site", "cors", "empty", 403},
	} {
		resp, _ := s.ask(t, http.MethodGet, "/status", func(r *http.Request) {
			r.Header.Set("Sec-Fetch-Site", c.site)
			r.Header.Set("Sec-Fetch-Mode", c.mode)
			r.Header.Set("Sec-Fetch-Dest", c.dest)
		})
		if resp.StatusCode != c.want {
			t.Errorf("%s: got %d, want %d", name, resp.StatusCode, c.want)
		}
	}
}

func TestMethods(t *testing.T) {
	s := start(t, Config{}, healthy().sources(), nil)
	for path := range strings.FieldsSeq(probes + " / /status /fragment /assets/page.js /assets/style.css /debug/pprof/") {
		if resp, body := s.ask(t, http.MethodHead, path, nil); resp.StatusCode != 200 || body != "" {
			t.Errorf("HEAD %s: %d %s", path, resp.StatusCode, body)
		}
		for _, method := range []string{"POST", "PUT", "PATCH", "DELETE", "OPTIONS"} {
			if resp, _ := s.ask(t, method, path, nil); resp.StatusCode != 405 || resp.Header.Get("Allow") != "GET, HEAD" {
				t.Errorf("%s %s: %d, Allow %q", method, path, resp.StatusCode, resp.Header.Get("Allow"))
			}
		}
	}
	if code, _ := s.get(t, "/assets/page.html"); code != 404 {
		t.Errorf("the template itself is served: %d", code)
	}
}

func TestSecurityHeaders(t *testing.T) {
	s := start(t, Config{}, healthy().sources(), nil)
	off := start(t, Config{Addr: "0.0.0.0:0"}, healthy().sources(), nil)
	for _, server := range []running{s, off} { // refusals bear them too
		for path := range strings.FieldsSeq(probes + " / /status /assets/page.js /nothing") {
			resp, _ := server.ask(t, http.MethodGet, path, nil)
			csp := resp.Header.Get("Content-Security-Policy")
			for _, want := range []string{
				"default-src 'none';", "script-src 'self';", "style-src 'self';", "connect-src 'self';", "img-src 'self' data:;", "base-uri 'none';", "frame-ancestors 'none'",
			} {
				if !strings.Contains(csp, want) {
					t.Errorf("%s: no %s in %q", path, want, csp)
				}
			}
			for name, want := range map[string]string{
				"X-Content-Type-Options": "nosniff", "Referrer-Policy": "no-referrer", "Cache-Control": "no-store",
				"Cross-Origin-Resource-Policy": "same-origin", "Cross-Origin-Opener-Policy": "same-origin",
			} {
				if got := resp.Header.Get(name); got != want {
					t.Errorf("%s: %s is %q, want %q", path, name, got, want)
				}
			}
		}
	}
}
