package intake

import (
	"net/http"
	"path"

	"example.com/unrestrict-worker/docs"
	"example.com/unrestrict-worker/internal/health"
)

func document(name, kind string) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		text, err := docs.Messages.ReadFile(name)
		if err != nil {
			notFound(w, r)
			return
		}
		w.Header().Set("Content-Type", kind)
		_, _ = w.Write(text) // #nosec G705 -- a file of this program
	})
}

// schemas serves the schemas that the document refers to.
func schemas(w http.ResponseWriter, r *http.Request) {
	document("schemas/"+path.Base(r.PathValue("name")), "application/schema+json").ServeHTTP(w, r)
}

func (s *Server) livez(w http.ResponseWriter, _ *http.Request) {
	_ = write(w, http.StatusOK, map[string]bool{"alive": true})
}

// readiness is the body of /readyz: codes alone, because anybody may read it. The details are in the log.
type readiness struct {
	Ready   bool        `json:"ready"`
	Reasons []condition `json:"reasons"`
	Details []condition `json:"details"`
}

type condition struct {
	Code    string `json:"code"`
	Message string `json:"message"`
}

func (s *Server) readyz(w http.ResponseWriter, _ *http.Request) {
	now, code := s.conditions(), http.StatusOK
	if !now.Ready {
		code = http.StatusServiceUnavailable
	}
	_ = write(w, code, now)
}

// conditions are what keeps the intake from all or some of its work.
func (s *Server) conditions() readiness {
	now := readiness{Ready: true, Reasons: []condition{}, Details: []condition{}}
	if s.link.get() == nil {
		now.Ready = false
		now.Reasons = append(now.Reasons, condition{health.Broker, "there is no connection to the broker; nothing is taken"})
	}
	if s.clients.Err() != nil {
		now.Details = append(now.Details, condition{"clients", "the clients file can't be used as it is; the last one is in force, and the log says why"})
	}
	if len(s.clients.Unreachable()) > 0 {
		now.Details = append(now.Details, condition{"issuer", "the keys of an issuer of tokens can't be had; what it has signed with keys that are not known is answered 503"})
	}
	for range s.stuck.Range {
		now.Details = append(now.Details, condition{"callbacks", "a callback gets no results from the broker; the log says which, and why"})
		break
	}
	return now
}
