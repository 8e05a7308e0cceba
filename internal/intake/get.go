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

// accepted answers that a request is open, and where to poll for it. Both addresses are absolute: a poller of the Azure
// SDKs refuses a Location that is not.
func (s *Server) accepted(w http.ResponseWriter, r *http.Request, st status) *problem {
	at := s.base(r) + requestPath(st.ID)
	h := w.Header()
	h.Set("Location", at)
	h.Set("Operation-Location", at)
	h.Set("Retry-After", strconv.Itoa(againIn(st)))
	return write(w, http.StatusAccepted, st)
}

// requestPath is the path of a request, whatever its id holds. An id of one or two dots must be escaped, because it
// would mean a folder.
func requestPath(id string) string {
	escaped := url.PathEscape(id)
	if strings.Trim(id, ".") == "" {
		escaped = strings.ReplaceAll(id, ".", "%2E")
	}
	return "/v1/requests/" + escaped
}

// base is the beginning of the addresses that this client gets.
func (s *Server) base(r *http.Request) string {
	if s.settings.Intake.URL != "" {
		return s.settings.Intake.URL
	}
	if r.TLS != nil {
		return "https://" + r.Host
	}
	return "http://" + r.Host
}

// againIn is after how many seconds the status may have changed.
func againIn(st status) int {
	if st.Queue != nil && !st.Queue.ExpectedAt.IsZero() {
		return int(min(max(math.Ceil(time.Until(st.Queue.ExpectedAt).Seconds()), 2), 60))
	}
	return 5
}

// get answers with the status of a request.
func (s *Server) get(w http.ResponseWriter, r *http.Request, c *clients.Client) *problem {
	conn := s.link.get()
	if conn == nil {
		return fault(codeUnavailable, "the broker can't be reached")
	}
	ctx, cancel := context.WithTimeout(r.Context(), readWithin)
	defer cancel()
	id := r.PathValue("id")
	k, err := s.find(ctx, conn, s.identityOf(c, id))
	if err == nil && k.empty() {
		return unknownRequest()
	}
	var st status
	if err == nil {
		st, err = s.statusOf(ctx, conn, id, k)
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

// write answers with an object as JSON.
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
