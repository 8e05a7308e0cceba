package admin

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"time"
)

// events streams the page's fragment as server-sent events: at once, then
// whenever it changed, at most once a tick. A beat says that nothing did, and
// finds viewers that are gone: its write runs into the write deadline.
func (s *Server) events(w http.ResponseWriter, r *http.Request) {
	select {
	case s.viewers <- struct{}{}:
		defer func() { <-s.viewers }()
	default:
		w.Header().Set("Retry-After", "10")
		http.Error(w, "too many viewers", http.StatusServiceUnavailable)
		return
	}
	w.Header().Set("Content-Type", "text/event-stream")
	w.Header().Set("X-Accel-Buffering", "no") // nginx would hold events back
	if r.Method == http.MethodHead {
		return
	}
	stream := &stream{w: w, rc: http.NewResponseController(w), timeout: s.limits.write}
	ticker := time.NewTicker(s.limits.tick)
	defer ticker.Stop()
	var shown []byte
	var sent time.Time
	for {
		html, err := s.page.fragment(r.Context())
		switch {
		case err != nil:
			return
		case !bytes.Equal(html, shown):
			err, shown, sent = stream.send("page", string(html)), html, time.Now()
		case time.Since(sent) >= s.limits.heartbeat:
			err, sent = stream.send("beat", ""), time.Now()
		}
		if err != nil {
			return
		}
		select {
		case <-r.Context().Done():
			return
		case <-s.stop:
			return
		case <-ticker.C:
		}
	}
}

// stream writes events, each within its own deadline in place of the server's
// for the whole answer.
type stream struct {
	w       http.ResponseWriter
	rc      *http.ResponseController
	timeout time.Duration
}

// send writes the data as a JSON string: one line whatever it holds, where a
// bare carriage return in somebody's id could else begin an event of its own.
func (s *stream) send(event, data string) error {
	var line bytes.Buffer
	enc := json.NewEncoder(&line)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(data); err != nil {
		return err
	}
	if err := s.rc.SetWriteDeadline(time.Now().Add(s.timeout)); err != nil {
		return err
	}
	if _, err := fmt.Fprintf(s.w, "event: %s\ndata: %s\n", event, line.Bytes()); err != nil {
		return err
	}
	return s.rc.Flush()
}
