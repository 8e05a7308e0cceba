package admin

import (
	"errors"
	"net/url"
	"strings"
	"testing"
	"time"
)

// TestStory: the page of one request says what is known of it, and foreign text stays text.
func TestStory(t *testing.T) {
	const evil = `"><script>alert(1)</script>` + "\u202e"
	at := time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)
	w := healthy()
	w.stories = map[string][]Story{
		"INC-7-1": {
			{Facts: []Fact{{Name: FactRequest, Texts: []string{"INC-7-1"}}, {Name: "waits for", Texts: []string{"its next attempt", "an end of this fault"}, Warn: true}}, Events: []Event{{Time: at, Run: 2, Text: "taken"}}},
			{Facts: []Fact{{Name: "signed by", Texts: []string{"soar"}}}},
		},
		evil: {{Facts: []Fact{{Name: FactRequest, Texts: []string{evil}}, {Name: "comment", Texts: []string{strings.Repeat(evil, 30)}}}, Events: []Event{{Text: evil}}}},
	}
	s := start(t, Config{}, w.sources(), nil)
	code, body := s.get(t, "/request?id=INC-7-1")
	for _, want := range []string{
		"<title>INC-7-1 ", "<dt>waits for</dt><dd><bdi>its next attempt</bdi></dd><dd><bdi>an end of this fault</bdi></dd>", `<time datetime="2026-11-23T12:00:00Z">`, "<td>2</td><td><bdi>taken</bdi></td>", "<dd><bdi>soar</bdi></dd>",
	} {
		if code != 200 || !strings.Contains(body, want) {
			t.Errorf("%d, no %q in %s", code, want, body)
		}
	}
	code, body = s.get(t, "/request?id="+url.QueryEscape(evil))
	if n := strings.Count(body, "&lt;script&gt;alert"); code != 200 || n < 33 || strings.Contains(body, "<script>alert") || strings.Contains(body, "\u202e") {
		t.Errorf("%d, hostile text is shown %d times: %s", code, n, body)
	}
	for _, path := range []string{"/request?id=none", "/request"} {
		if code, body := s.get(t, path); code != 404 || !strings.Contains(body, "Nothing is known of it") {
			t.Errorf("%s: %d %s", path, code, body)
		}
	}
	w.set(func(w *worker) { w.findErr = errors.New("no responders") })
	if code, body := s.get(t, "/request?id=INC-7-1"); code != 503 || !strings.Contains(body, "The search failed: no responders") {
		t.Errorf("failed: %d %s", code, body)
	}
}
