package admin

import (
	"strings"
	"testing"
	"time"

	"example.com/unrestrict-worker/internal/health"
)

// fragment is what the page's script gets, once it holds text.
func (r running) fragment(t *testing.T, text string) (html string) {
	t.Helper()
	poll(t, func() bool {
		var code int
		code, html = r.get(t, "/fragment")
		return code == 200 && strings.Contains(html, text)
	})
	return html
}

func TestFragmentFollowsChanges(t *testing.T) {
	w := healthy()
	s := start(t, Config{}, w.sources(), nil)
	first := s.fragment(t, "Requests are taken and carried out.")
	if strings.Contains(first, "<html") {
		t.Errorf("the whole page: %s", first)
	}
	w.set(func(w *worker) {
		w.status.Healthy, w.status.Conditions = false, []health.Condition{stops("brokerDisconnected", "gone")}
	})
	s.fragment(t, "brokerDisconnected")
	w.set(func(w *worker) { w.status = healthy().status })
	if again := s.fragment(t, "Requests are taken and carried out."); again != first {
		t.Error("the same state looks different: the page would flicker")
	}
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
