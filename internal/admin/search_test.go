package admin

import (
	"context"
	"errors"
	"net/url"
	"strings"
	"testing"
	"time"
)

func TestSearch(t *testing.T) {
	const evil = `"><script>alert(1)</script>` + "\u202e"
	row := ResultRow{RequestID: "INC-7-1", MachineID: strings.Repeat("ab", 20), Ticket: "INC-7", Outcome: "queued", Time: time.Now()}
	w := healthy()
	w.found = map[string][]ResultRow{"INC-7": {row}, "many": make([]ResultRow, 150)}
	s := start(t, Config{}, w.sources(), nil)
	for what, want := range map[string]string{
		"INC-7": "INC-7-1", "  INC-7 ": "INC-7-1", "none": "None that is known", "many": "And older ones", evil: "&lt;script&gt;",
	} {
		code, body := s.get(t, "/?q="+url.QueryEscape(what))
		if code != 200 || !strings.Contains(body, want) || strings.Contains(body, "<script>alert") || strings.Contains(body, "\u202e") {
			t.Errorf("%q: %d, no %q in %s", what, code, want, body)
		}
	}
	if _, body := s.get(t, "/?q=+"); strings.Contains(body, "h-found") {
		t.Error("nothing asked for, and an answer")
	}
	w.set(func(w *worker) { w.findErr = errors.New("no responders") })
	if code, body := s.get(t, "/?q=INC-7"); code != 200 || !strings.Contains(body, "The search failed: no responders") || !strings.Contains(body, "Healthy") {
		t.Errorf("failed: %d %s", code, body)
	}
}

// TestOneSearchAtATime: each reads whole streams.
func TestOneSearchAtATime(t *testing.T) {
	src := healthy().sources()
	begun, end := make(chan struct{}), make(chan struct{})
	src.Find = func(ctx context.Context, _ string) ([]ResultRow, error) {
		if _, limited := ctx.Deadline(); !limited {
			t.Error("a search without an end")
		}
		close(begun)
		<-end
		return []ResultRow{{RequestID: "found"}}, nil
	}
	s := start(t, Config{}, src, nil)
	first := make(chan string, 1)
	go func() { _, body := s.get(t, "/?q=a"); first <- body }()
	<-begun
	if _, body := s.get(t, "/?q=b"); !strings.Contains(body, "try again in a moment") {
		t.Error("a second search beside the first")
	}
	close(end)
	if body := <-first; !strings.Contains(body, "found") {
		t.Error("the first search has no answer")
	}
}
