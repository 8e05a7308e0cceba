package admin

import (
	"strings"
	"testing"
)

// TestLabIsNoProduction: what is not production says so first and in the title of the tab; production says nothing of the kind.
func TestLabIsNoProduction(t *testing.T) {
	w := healthy()
	w.status.System = System{API: "https://api.security.microsoft.com"}
	s := start(t, Config{}, w.sources(), nil)
	if _, page := s.get(t, "/"); strings.Contains(page, `class="warning"`) || !strings.Contains(page, "<title>Healthy · ") {
		t.Error("production is warned of")
	}
	w.set(func(w *worker) {
		w.status.System, w.status.DryRun = System{API: "http://127.0.0.1:8443", Lab: true}, &DryRun{Replicas: 1}
	})
	s.fragment(t, `<p class="warning">LAB: calls go to http://127.0.0.1:8443`)
	_, page := s.get(t, "/")
	at := strings.Index(page, `<p class="warning">DRY RUN: requests end without the call</p><p class="warning">LAB`)
	if at < 0 || at > strings.Index(page, `id="state"`) || !strings.Contains(page, "<title>LAB · DRY RUN · Healthy · ") {
		t.Errorf("lab and dry run are not said first: %s", page)
	}
}

// TestNothingToDecideTakesNoRoom: no heading without rows.
func TestNothingToDecideTakesNoRoom(t *testing.T) {
	w := healthy()
	s := start(t, Config{}, w.sources(), nil)
	_, page := s.get(t, "/")
	for _, heading := range []string{"h-act", "h-dead", "h-approvals", "h-batches", "h-failures"} {
		if strings.Contains(page, heading) {
			t.Errorf("%s is there", heading)
		}
	}
	w.set(func(w *worker) {
		w.recent.DeadLetters = []DeadLetterRow{{Sequence: 1, ResultRow: ResultRow{RequestID: "a", Run: 1, Code: "policy"}}}
		w.recent.Failures = []ResultRow{{RequestID: "a", Run: 1, Outcome: "rejected"}}
	})
	s.fragment(t, "h-dead")
	if _, page := s.get(t, "/"); strings.Contains(page, "h-failures") || strings.Index(page, "h-act") > strings.Index(page, "h-queue") {
		t.Error("what somebody must decide does not stand first, and once")
	}
}
