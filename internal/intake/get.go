package intake

import (
	"context"
	"math"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"go.uber.org/zap"

	"example.com/unrestrict-worker/internal/intake/clients"
	"example.com/unrestrict-worker/internal/message"
)

// accepted answers that a request is open, and where to ask for it. Both addresses are absolute: a poller of the Azure SDKs refuses
// another Location.
func (s *Server) accepted(w http.ResponseWriter, r *http.Request, st status) *problem {
	at := s.base(r) + requestPath(st.ID)
	h := w.Header()
	h.Set("Location", at)
	h.Set("Operation-Location", at)
	h.Set("Retry-After", strconv.Itoa(againIn(st)))
	return write(w, http.StatusAccepted, st)
}

// requestPath is where a request is, whatever its id holds: a dot or two would be a folder.
func requestPath(id string) string {
	escaped := url.PathEscape(id)
	if strings.Trim(id, ".") == "" {
		escaped = strings.ReplaceAll(id, ".", "%2E")
	}
	return "/v1/requests/" + escaped
}

// base is what addresses begin with for this client.
func (s *Server) base(r *http.Request) string {
	if s.settings.Intake.URL != "" {
		return s.settings.Intake.URL
	}
	if r.TLS != nil {
		return "https://" + r.Host
	}
	return "http://" + r.Host
}

// againIn is in how many seconds there may be something new.
func againIn(st status) int {
	if st.Queue != nil && !st.Queue.ExpectedAt.IsZero() {
		return int(min(max(math.Ceil(time.Until(st.Queue.ExpectedAt).Seconds()), 2), 60))
	}
	return 5
}

// get tells of a request.
func (s *Server) get(w http.ResponseWriter, r *http.Request, c *clients.Client) *problem {
	conn := s.link.get()
	if conn == nil {
		return fault(codeUnavailable, "the broker can't be reached")
	}
	ctx, cancel := context.WithTimeout(r.Context(), readWithin)
	defer cancel()
	id := r.PathValue("id")
	k, err := s.find(ctx, conn, s.as(c, id))
	if err == nil && k.nothing() {
		return unknownRequest()
	}
	var st status
	if err == nil {
		st, err = s.tell(ctx, conn, id, k)
	}
	if err != nil {
		s.log.Warn("a request can't be read", zap.String("client", c.Name), zap.Error(err))
		return fault(codeUnavailable, "what became of the request can't be read now")
	}
	if st.Result != nil {
		return write(w, http.StatusOK, st)
	}
	if r.URL.Query().Get("async") == "false" {
		w.Header().Set("Retry-After", strconv.Itoa(againIn(st)))
		return write(w, http.StatusOK, st)
	}
	return s.accepted(w, r, st)
}

func unknownRequest() *problem {
	return fault(codeUnknownRequest, "it was never stored, or has been forgotten 7 days after its end")
}

// write answers with an object.
func write(w http.ResponseWriter, code int, v any) *problem {
	body, err := message.EncodeJSON(v)
	if err != nil {
		return fault(codeUnavailable, "the answer can't be written")
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	_, _ = w.Write(append(body, '\n')) // #nosec G705 -- JSON, which no browser takes for anything else (nosniff)
	return nil
}
