package admin

import (
	"crypto/sha256"
	"crypto/subtle"
	"net"
	"net/http"
	"net/netip"
	"strings"
)

// contentSecurityPolicy lets the page load its own files and nothing else, so
// that markup that slipped through escaping could neither run nor send.
const contentSecurityPolicy = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; " +
	"img-src 'self' data:; base-uri 'none'; form-action 'self'; frame-ancestors 'none'"

// guard checks whether the client may read, before any handler runs.
func (s *Server) guard(next http.Handler) http.Handler {
	loopback := isLoopback(s.ln.Addr())
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		// A proxy on this machine may forward requests of others. One that adds no header can't be distinguished from a local
		// client, so a token that is set is required on loopback too.
		local := loopback && !forwarded(r)
		h := w.Header()
		h.Set("Content-Security-Policy", contentSecurityPolicy)
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("Referrer-Policy", "no-referrer")
		h.Set("Cross-Origin-Resource-Policy", "same-origin")
		h.Set("Cross-Origin-Opener-Policy", "same-origin")
		h.Set("Cache-Control", "no-store")
		switch {
		case loopback && !loopbackHost(r.Host):
			http.Error(w, "this server listens on loopback and answers only to a loopback name, such as localhost", http.StatusForbidden)
		case crossSite(r):
			http.Error(w, "not for other sites", http.StatusForbidden)
		case !local && strings.HasPrefix(r.URL.Path, profilesPath):
			http.Error(w, "profiles are for this machine alone", http.StatusForbidden)
		case open(r.URL.Path) || s.trusts(r):
			next.ServeHTTP(w, r)
		case s.cfg.Token == "":
			http.Error(w, "off loopback, and through a proxy, this needs a token: set WORKER_ADMIN_TOKEN", http.StatusForbidden)
		default:
			h.Set("WWW-Authenticate", `Basic realm="unrestrict-worker: any user, the admin token as password", charset="UTF-8"`)
			h.Add("WWW-Authenticate", `Bearer realm="unrestrict-worker"`)
			http.Error(w, "the admin token is missing or wrong", http.StatusUnauthorized)
		}
	})
}

// trusts reports whether the client may read everything.
func (s *Server) trusts(r *http.Request) bool {
	return isLoopback(s.ln.Addr()) && !forwarded(r) && s.cfg.Token == "" || s.hasToken(r)
}

// forwarded reports whether a proxy forwarded the request, by the headers that proxies add, whatever their values. No header
// can make a request look more local than it is.
func forwarded(r *http.Request) bool {
	for name := range r.Header {
		if name == "Forwarded" || name == "Via" || name == "X-Real-Ip" || strings.HasPrefix(name, "X-Forwarded-") {
			return true
		}
	}
	return false
}

// open reports whether a path is one that probes and scrapers may read everywhere.
func open(path string) bool {
	return path == "/livez" || path == "/readyz" || path == "/metrics"
}

// hasToken compares digests in constant time, so that not even the length shows.
// Basic authentication is for browsers, which prompt for it.
func (s *Server) hasToken(r *http.Request) bool {
	_, got, ok := r.BasicAuth()
	if !ok {
		scheme, token, _ := strings.Cut(r.Header.Get("Authorization"), " ")
		got, ok = strings.TrimSpace(token), strings.EqualFold(scheme, "Bearer")
	}
	want, have := sha256.Sum256([]byte(s.cfg.Token)), sha256.Sum256([]byte(got))
	return ok && s.cfg.Token != "" && subtle.ConstantTimeCompare(want[:], have[:]) == 1
}

// crossSite reports whether a page of another site made the request by itself,
// which could otherwise start profiles or use up connections. Following a link is
// no such request.
func crossSite(r *http.Request) bool {
	switch r.Header.Get("Sec-Fetch-Site") {
	case "", "none", "same-origin":
		return false
	}
	return r.Header.Get("Sec-Fetch-Mode") != "navigate" || r.Header.Get("Sec-Fetch-Dest") != "document"
}

func isLoopback(addr net.Addr) bool {
	tcp, ok := addr.(*net.TCPAddr)
	return ok && tcp.IP.IsLoopback()
}

// loopbackHost guards against DNS rebinding: a hostile page's name that was made
// to resolve to loopback arrives here as the Host.
func loopbackHost(host string) bool {
	if name, _, err := net.SplitHostPort(host); err == nil {
		host = name
	}
	host = strings.TrimSuffix(strings.TrimPrefix(host, "["), "]")
	if strings.EqualFold(strings.TrimSuffix(host, "."), "localhost") {
		return true
	}
	ip, err := netip.ParseAddr(host)
	return err == nil && ip.IsLoopback()
}
