package admin

import (
	"bytes"
	"context"
	"net/http"
	"strings"
	"time"
)

// Story is all that is known of one request, as `worker why` prints it.
type Story struct {
	Facts  []Fact
	Events []Event // the oldest first
}

// Fact is something that is true of a request now.
type Fact struct {
	Name  string
	Texts []string
	Warn  bool // the request waits for this
}

// Event is something that happened to a request.
type Event struct {
	Time time.Time
	Run  int // 0: it belongs to no run
	Text string
}

// ID returns the id of the story's request.
func (s Story) ID() string {
	for _, f := range s.Facts {
		if f.Name == FactRequest {
			return strings.Join(f.Texts, ", ")
		}
	}
	return ""
}

// FactRequest is the name of the fact that is the request's id.
const FactRequest = "request"

// stories is what the page of one request shows.
type stories struct {
	What string // the id
	All  []Story
	Err  string
	At   time.Time
}

// request serves the page of one request.
func (s *Server) request(w http.ResponseWriter, r *http.Request) {
	view := stories{What: strings.TrimSpace(r.URL.Query().Get("id")), At: time.Now().UTC()}
	code := http.StatusOK
	switch found := s.inTurn(r, func(ctx context.Context) (err error) {
		if view.What != "" {
			view.All, err = s.src.Stories(ctx, view.What)
		}
		return err
	}); {
	case found != "":
		view.Err, code = found, http.StatusServiceUnavailable
	case len(view.All) == 0:
		code = http.StatusNotFound
	}
	var html bytes.Buffer
	if err := s.page.tmpl.ExecuteTemplate(&html, "request.html", view); err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.WriteHeader(code)
	_, _ = w.Write(html.Bytes())
}

// inTurn makes a search, which reads whole streams: one at a time, within its own limit. It returns why there is no answer, for
// people.
func (s *Server) inTurn(r *http.Request, ask func(context.Context) error) (why string) {
	select {
	case s.finding <- struct{}{}:
		defer func() { <-s.finding }()
	default:
		return "Somebody else searches just now; try again in a moment."
	}
	ctx, cancel := context.WithTimeout(r.Context(), s.limits.search)
	defer cancel()
	if err := ask(ctx); err != nil {
		return "The search failed: " + err.Error()
	}
	return ""
}
