package admin

import (
	"bufio"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"example.com/unrestrict-worker/internal/health"
)

// viewer reads one event stream.
type viewer struct {
	resp  *http.Response
	lines *bufio.Reader
}

func (r running) watch(t *testing.T) *viewer {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, r.url+"/events", nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Close = true
	resp, err := http.DefaultTransport.RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { resp.Body.Close() })
	return &viewer{resp: resp, lines: bufio.NewReader(resp.Body)}
}

// next returns the next event; io.EOF when the server ended the stream in order.
func (v *viewer) next() (event, data string, err error) {
	for {
		line, err := v.lines.ReadString('\n')
		if err != nil {
			return "", "", err
		}
		line = strings.TrimSuffix(line, "\n")
		name, value, _ := strings.Cut(line, ": ")
		switch name {
		case "event":
			event = value
		case "data":
			if err := json.Unmarshal([]byte(value), &data); err != nil {
				return "", "", err
			}
		case "":
			return event, data, nil
		default:
			return "", "", &net.ParseError{Type: "event line", Text: line}
		}
	}
}

// until reads events to the first page that holds text.
func (v *viewer) until(t *testing.T, text string) {
	t.Helper()
	for {
		event, data, err := v.next()
		if err != nil {
			t.Fatalf("waiting for %q: %v", text, err)
		}
		if event == "page" && strings.Contains(data, text) {
			return
		}
	}
}

func TestEventsFollowChanges(t *testing.T) {
	w := healthy()
	s := start(t, Config{}, w.sources(), nil)
	v := s.watch(t)
	if got := v.resp.Header.Get("Content-Type"); got != "text/event-stream" {
		t.Errorf("content type %s", got)
	}
	v.until(t, "Requests are taken and carried out.")
	w.set(func(w *worker) { w.status.Paused = &Pause{Reason: "change freeze 42", Since: time.Now()} })
	v.until(t, "change freeze 42")
	w.set(func(w *worker) {
		w.status.Paused = nil
		w.conditions = []health.Condition{stops("brokerDisconnected", "gone")}
	})
	v.until(t, "brokerDisconnected")
	w.set(func(w *worker) {
		w.conditions = nil
		w.recent.Results = []ResultRow{{RequestID: "a\r\ndata: x\rdata: y\n\nevent: z", Outcome: "succeeded"}}
	})
	v.until(t, `a\u{d}\u{a}data: x\u{d}data: y`)
}

func TestEventsOnlyOnChange(t *testing.T) {
	w := healthy()
	s := start(t, Config{}, w.sources(), func(l *limits) { l.heartbeat = 50 * time.Millisecond })
	v := s.watch(t)
	pages := 0
	for beats := 0; beats < 5; {
		event, _, err := v.next()
		if err != nil {
			t.Fatal(err)
		}
		if event == "beat" {
			beats++
		} else {
			pages++
		}
	}
	if pages != 1 {
		t.Errorf("%d pages while nothing changed, want the first alone", pages)
	}
}

func TestEventsOutliveTheServersWriteDeadline(t *testing.T) {
	s := start(t, Config{}, healthy().sources(), func(l *limits) {
		l.write, l.heartbeat = 500*time.Millisecond, 50*time.Millisecond
	})
	v := s.watch(t)
	for began := time.Now(); time.Since(began) < time.Second; { // well past it
		if _, _, err := v.next(); err != nil {
			t.Fatal(err)
		}
	}
}

func TestHeadOfEventsEnds(t *testing.T) {
	s := start(t, Config{}, healthy().sources(), nil)
	const head = "HEAD /events HTTP/1.1\r\nHost: localhost\r\n\r\n"
	conn := s.dial(t, head+head)
	answers := bufio.NewReader(conn)
	for range 2 { // the second shows that the first is over
		resp, err := http.ReadResponse(answers, &http.Request{Method: http.MethodHead})
		if err != nil || resp.StatusCode != 200 {
			t.Fatalf("got %v %v", resp, err)
		}
	}
}

func TestEventsEndOnShutdown(t *testing.T) {
	s := start(t, Config{}, healthy().sources(), func(l *limits) { l.grace = time.Hour })
	v := s.watch(t)
	v.until(t, "Healthy")
	if err := s.stop(); err != nil {
		t.Error(err)
	}
	for {
		if _, _, err := v.next(); errors.Is(err, io.EOF) {
			return
		} else if err != nil {
			t.Fatalf("got %v, want an orderly end", err)
		}
	}
}

func TestViewersAreCapped(t *testing.T) {
	s := start(t, Config{}, healthy().sources(), func(l *limits) { l.viewers = 2 })
	first, second := s.watch(t), s.watch(t)
	first.until(t, "Healthy")
	second.until(t, "Healthy")
	if v := s.watch(t); v.resp.StatusCode != 503 || v.resp.Header.Get("Retry-After") == "" {
		t.Errorf("a viewer too many got %d", v.resp.StatusCode)
	}
	first.resp.Body.Close()
	for { // its slot is free once the server noticed
		v := s.watch(t)
		if v.resp.StatusCode == 200 {
			break
		}
		v.resp.Body.Close()
	}
}

func TestViewerThatDoesNotReadLosesItsSlot(t *testing.T) {
	w := healthy()
	long := strings.Repeat("\u202e", 300) // spelled out, 2,400 characters
	for range shownRows {
		w.recent.Results = append(w.recent.Results, ResultRow{RequestID: long, MachineID: long, Outcome: long, Code: long, Message: long})
	}
	s := start(t, Config{}, w.sources(), func(l *limits) { l.write = 200 * time.Millisecond })
	_ = s.dial(t, "GET /events HTTP/1.1\r\nHost: localhost\r\n\r\n").(*net.TCPConn).SetReadBuffer(4 << 10)
	poll(t, func() bool { return len(s.viewers) == 1 })
	poll(t, func() bool {
		w.set(func(w *worker) { w.status.Queue.Pending++ }) // keep the stream busy until its buffers are full
		return len(s.viewers) == 0
	})
}

func poll(t *testing.T, done func() bool) {
	t.Helper()
	for !done() {
		select {
		case <-t.Context().Done():
			t.Fatal("not reached")
		case <-time.After(5 * time.Millisecond):
		}
	}
}
