package intake

import (
	"errors"
	"maps"
	"net/http"
	"path"
	"slices"
	"strings"

	"github.com/prometheus/client_golang/prometheus/promhttp"

	"example.com/unrestrict-worker/internal/intake/clients"
)

// operation answers a client; a problem that it returns is written for it.
type operation func(w http.ResponseWriter, r *http.Request, c *clients.Client) *problem

// routes is every operation by its path and method (docs/openapi.yaml). HEAD is served like GET.
func (s *Server) routes() http.Handler {
	mux := http.NewServeMux()
	for pattern, methods := range map[string]map[string]operation{
		"/v1/requests":       {http.MethodPost: s.post},
		"/v1/requests/{id}":  {http.MethodGet: s.get, http.MethodDelete: s.cancel},
		"/v1/batches/{name}": {http.MethodPost: s.postBatch, http.MethodGet: s.getBatch, http.MethodDelete: s.cancelBatch},
		"/v1/results":        {http.MethodGet: s.results},
	} {
		mux.Handle(pattern, s.forClients(methods))
	}
	scrape := promhttp.HandlerFor(s.metrics.registry, promhttp.HandlerOpts{MaxRequestsInFlight: 8})
	for pattern, serve := range map[string]http.Handler{
		"/livez":          http.HandlerFunc(s.livez),
		"/readyz":         http.HandlerFunc(s.readyz),
		"/metrics":        scrape,
		"/openapi.yaml":   document("openapi.yaml", "application/yaml"),
		"/schemas/{name}": http.HandlerFunc(schemas),
		"/{$}":            http.HandlerFunc(notFound),
		"/{anything...}":  http.HandlerFunc(notFound),
	} {
		mux.Handle(pattern, onlyGet(serve))
	}
	return s.guard(mux)
}

// guard comes before everything else: no path has a second spelling, and no browser may interpret an answer as another
// type.
func (s *Server) guard(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("Cache-Control", "no-store")
		if escaped := r.URL.EscapedPath(); escaped != "/" && path.Clean(escaped) != strings.TrimSuffix(escaped, "/") || strings.HasSuffix(escaped, "/") && escaped != "/" {
			notFound(w, r)
			return
		}
		next.ServeHTTP(w, r)
	})
}

func notFound(w http.ResponseWriter, _ *http.Request) { fault(codeNotFound, "").write(w) }

// forClients counts the request, recognises its client, applies the client's rate, and calls the operation.
func (s *Server) forClients(methods map[string]operation) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		answer := &recorder{ResponseWriter: w}
		name := ""
		defer func() { s.metrics.answered(name, answer.status) }()
		method := r.Method
		if method == http.MethodHead {
			method = http.MethodGet
		}
		serve := methods[method]
		if serve == nil {
			notAllowed(answer, slices.Sorted(maps.Keys(methods)))
			return
		}
		c, err := s.clients.SignIn(r)
		if err != nil {
			signInProblem(err).write(answer)
			return
		}
		name = c.Name
		if wait, ok := s.clients.Allow(c, method == http.MethodGet); !ok {
			p := fault(codeTooMany, "the client has used up its rate")
			p.retry = wait
			p.write(answer)
			return
		}
		if p := serve(answer, r, c); p != nil {
			s.metrics.failed(p)
			p.write(answer)
		}
	})
}

// signInProblem is the problem of a failed sign-in.
func signInProblem(err error) *problem {
	switch {
	case errors.Is(err, clients.ErrIssuer):
		return fault(codeIssuer, err.Error())
	case errors.Is(err, clients.ErrForbidden):
		return fault(codeForbidden, err.Error())
	}
	return fault(codeUnauthenticated, err.Error()).with("WWW-Authenticate", `Bearer realm="unrestrict-worker"`)
}

func notAllowed(w http.ResponseWriter, methods []string) {
	if slices.Contains(methods, http.MethodGet) {
		methods = append(methods, http.MethodHead)
	}
	fault(codeMethod, "").with("Allow", strings.Join(methods, ", ")).write(w)
}

func onlyGet(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodGet && r.Method != http.MethodHead && r.Pattern != "/{$}" && r.Pattern != "/{anything...}" {
			notAllowed(w, []string{http.MethodGet})
			return
		}
		next.ServeHTTP(w, r)
	})
}
