package admin

import (
	"bytes"
	"context"
	"embed"
	"encoding/json"
	"net/http"
	"net/http/pprof"
	"strings"

	"github.com/prometheus/client_golang/prometheus/promhttp"
	"go.uber.org/zap"

	"example.com/unrestrict-worker/internal/health"
)

//go:embed assets
var assets embed.FS

// handler needs the bound address: it decides what is served and to whom.
func (s *Server) handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /livez", s.livez)
	mux.HandleFunc("GET /readyz", s.readyz)
	mux.HandleFunc("GET /status", s.status)
	mux.HandleFunc("GET /{$}", s.index)
	mux.HandleFunc("GET /fragment", s.fragment)
	mux.HandleFunc("GET /request", s.request)
	for _, name := range []string{"style.css", "page.js"} {
		mux.HandleFunc("GET /assets/"+name, func(w http.ResponseWriter, r *http.Request) {
			http.ServeFileFS(w, r, assets, "assets/"+name)
		})
	}
	mux.Handle("GET /metrics", promhttp.HandlerFor(s.cfg.Gatherer, promhttp.HandlerOpts{
		ErrorLog:            zap.NewStdLog(s.log),
		ErrorHandling:       promhttp.ContinueOnError, // one broken collector must not hide the metrics of the others from the alerts
		MaxRequestsInFlight: 8,
	}))
	if isLoopback(s.ln.Addr()) {
		profiles(mux)
	}
	return s.guard(mux)
}

const profilesPath = "/debug/pprof/"

// profiles leaves out pprof's cmdline: a flag on the command line may be a secret.
func profiles(mux *http.ServeMux) {
	for path, serve := range map[string]http.HandlerFunc{
		profilesPath:             pprof.Index, // and every profile by its name
		profilesPath + "profile": pprof.Profile,
		profilesPath + "symbol":  pprof.Symbol,
		profilesPath + "trace":   pprof.Trace,
	} {
		mux.HandleFunc("GET "+path, serve)
	}
}

func (s *Server) livez(w http.ResponseWriter, _ *http.Request) {
	if err := s.src.Alive(); err != nil {
		writeJSON(w, http.StatusServiceUnavailable, map[string]any{"alive": false, "error": err.Error()})
		return
	}
	writeJSON(w, http.StatusOK, map[string]any{"alive": true})
}

// readiness is the body of /readyz.
type readiness struct {
	Ready   bool               `json:"ready"`
	Reasons []health.Condition `json:"reasons"`
	Details []health.Condition `json:"details"`
}

// readyz returns the codes alone to a client that may not read everything: the texts hold addresses, and what operators
// and the identity provider wrote.
func (s *Server) readyz(w http.ResponseWriter, r *http.Request) {
	conditions := s.src.Conditions()
	if !s.trusts(r) {
		conditions = codesOf(conditions)
	}
	reasons, details := health.Stopping(conditions)
	code := http.StatusOK
	if len(reasons) > 0 {
		code = http.StatusServiceUnavailable
	}
	writeJSON(w, code, readiness{
		Ready:   len(reasons) == 0,
		Reasons: append([]health.Condition{}, reasons...), // [] instead of null
		Details: append([]health.Condition{}, details...),
	})
}

func codesOf(all []health.Condition) (codes []health.Condition) {
	for _, c := range all {
		codes = append(codes, health.Condition{Code: c.Code, Stops: c.Stops})
	}
	return codes
}

func (s *Server) status(w http.ResponseWriter, r *http.Request) {
	ctx, cancel := context.WithTimeout(r.Context(), s.limits.source)
	defer cancel()
	status, err := s.src.Status(ctx)
	if err != nil {
		writeJSON(w, http.StatusServiceUnavailable, map[string]any{"error": err.Error(), "healthy": false, "conditions": s.src.Conditions()})
		return
	}
	writeJSON(w, http.StatusOK, status)
}

func (s *Server) index(w http.ResponseWriter, r *http.Request) {
	html, err := s.page.full(r.Context(), s.search(r))
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	_, _ = w.Write(html)
}

// fragment serves what the page's script fetches every few seconds.
func (s *Server) fragment(w http.ResponseWriter, r *http.Request) {
	now, err := s.page.render(r.Context())
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	_, _ = w.Write(now.html)
}

// search is a search by the page's form, and what it found; nil: no search.
type search struct {
	What string
	Rows []ResultRow
	More bool
	Err  string
}

// mostFound is how many rows of a search are shown.
const mostFound = 100

func (s *Server) search(r *http.Request) *search {
	found := &search{What: strings.TrimSpace(r.URL.Query().Get("q"))}
	if found.What == "" {
		return nil
	}
	found.Err = s.inTurn(r, func(ctx context.Context) error {
		rows, err := s.src.Find(ctx, found.What)
		found.Rows, found.More = rows[:min(len(rows), mostFound)], len(rows) > mostFound
		return err
	})
	return found
}

func writeJSON(w http.ResponseWriter, code int, v any) {
	var body bytes.Buffer
	enc := json.NewEncoder(&body)
	enc.SetIndent("", "  ")
	if err := enc.Encode(v); err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	_, _ = w.Write(body.Bytes())
}
