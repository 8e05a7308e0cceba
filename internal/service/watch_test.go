package service

import (
	"testing"
	"time"

	"example.com/unrestrict-worker/internal/health"
)

var known = map[string][]health.Condition{
	"":         nil,
	"paused":   {health.New(health.Paused, "")},
	"quota":    {health.New(health.WaitingForQuota, "")},
	"settings": {health.New(health.Settings, "")},
	"unlisted": {health.New(health.MayNotList, "")},
}

// TestWatchOfRequests: each line is told for ten minutes, every 5 s.
func TestWatchOfRequests(t *testing.T) {
	start := time.Date(2026, 11, 30, 12, 0, 0, 0, time.UTC)
	for name, c := range map[string]struct {
		waiting   int
		delivered func(tick int) uint64
		known     string
		code      string
	}{
		"an idle queue":                         {0, func(int) uint64 { return 7 }, "", ""},
		"requests are taken, a few at a time":   {900, func(tick int) uint64 { return uint64(tick / 12) }, "", ""},
		"requests wait and nobody takes one":    {3, func(int) uint64 { return 7 }, "", health.StandingStill},
		"a pause":                               {3, func(int) uint64 { return 7 }, "paused", ""},
		"quota":                                 {3, func(int) uint64 { return 7 }, "quota", ""},
		"a condition that holds no requests up": {3, func(int) uint64 { return 7 }, "settings", health.StandingStill},
	} {
		w, now := &watch{after: stillAfter(30 * time.Second)}, start
		for tick := range 120 {
			now = start.Add(time.Duration(tick) * watchEvery)
			w.requests(now, c.waiting, c.delivered(tick), len(health.HoldingUp(known[c.known], false)) > 0)
			got := w.conditions(known[c.known], 0, time.Time{}, 0)
			early := now.Sub(start) < w.after
			if want := c.code; early && len(got) > 0 || !early && (len(got) > 0) != (want != "") || len(got) > 0 && (got[0].Code != want || !got[0].Since.Equal(start)) {
				t.Fatalf("%s: after %s %v, want %q", name, now.Sub(start), got, want)
			}
		}
		w.requests(now, c.waiting, 1_000, false) // one is taken
		if got := w.conditions(nil, 0, time.Time{}, 0); len(got) > 0 {
			t.Errorf("%s: it is said still: %v", name, got)
		}
		w.requests(now.Add(time.Hour), 0, 1_000, false) // the queue was empty for long
		w.requests(now.Add(time.Hour+watchEvery), 1, 1_000, false)
		if got := w.conditions(nil, 0, time.Time{}, 0); len(got) > 0 {
			t.Errorf("%s: the first request in an hour is said to stand still: %v", name, got)
		}
	}
}

// TestWatchAfterAPause: the time of a cause that was known does not count.
func TestWatchAfterAPause(t *testing.T) {
	w, now := &watch{after: time.Minute}, time.Now()
	w.requests(now, 3, 7, false)
	w.requests(now.Add(50*time.Second), 3, 7, true)
	w.requests(now.Add(100*time.Second), 3, 7, false)
	if got := w.conditions(nil, 0, time.Time{}, 0); len(got) > 0 {
		t.Errorf("right after a pause: %v", got)
	}
}

func TestWatchOfActions(t *testing.T) {
	looked := time.Now().UTC()
	for name, c := range map[string]struct {
		overdue time.Duration
		known   string
		code    string
	}{
		"none is open":            {0, "", ""},
		"late":                    {2 * time.Minute, "", ""},
		"far too late":            {3 * time.Minute, "", health.NotFollowing},
		"while paused":            {3 * time.Minute, "paused", health.NotFollowing}, // which holds up no following
		"no permission to list":   {3 * time.Minute, "unlisted", ""},
		"requests wait for quota": {3 * time.Minute, "quota", health.NotFollowing},
	} {
		w := &watch{after: stillAfter(30 * time.Second)}
		got := w.conditions(known[c.known], 4, looked, c.overdue)
		if (len(got) > 0) != (c.code != "") || len(got) > 0 && (got[0].Code != c.code || !got[0].Since.Equal(looked)) {
			t.Errorf("%s: %v, want %q", name, got, c.code)
		}
	}
}
