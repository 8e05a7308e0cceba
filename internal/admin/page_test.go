package admin

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"example.com/unrestrict-worker/internal/health"
)

func TestPageShowsEverything(t *testing.T) {
	now, day := time.Now(), time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)
	w := &worker{
		status: Status{
			Healthy: true, Conditions: []health.Condition{impairs("cannotList", "no permission to list")}, Queue: Queue{Pending: 12345, InFlight: 17, OldestSeconds: 8042, Lanes: map[string]Lane{"bulk": {Pending: 12340, OldestSeconds: 8042, ExpectedAt: day.Add(time.Hour), LatestAt: day.Add(2 * time.Hour)}, "urgent": {Pending: 5, OldestSeconds: 3, Unavailable: "paused"}}}, Followed: 648, DeadLetters: 4,
			Budget:  []Window{{Window: "minute", Limit: 100, Remaining: 38}, {Window: "hour", Limit: 1500, Remaining: 1204, FreesAt: day.Add(time.Minute), FullAt: day.Add(time.Hour)}, {Window: "day", Limit: 0, Remaining: 0}},
			Results: map[string]int{"succeeded": 77, "failed": 2}, Version: "v9.8.7", AwaitingApproval: 3,
			System:   System{API: "https://api.security.microsoft.com", Tenant: "contoso-tenant", Account: "SECURITY", Broker: "tls://nats.contoso.com", Mode: ModeLive, Streams: Streams{"R", "RR", "RD", "RC"}},
			Replicas: []Replica{{ID: "ab12", Host: "pod-1", Version: "v9.8.7", Mode: ModeLive, Ready: true}, {ID: "cd34", Version: "v9.8.6", Mode: ModeDryRun, Conditions: []string{"token"}}},
		},
		recent: Recent{
			Requests: []ResultRow{{RequestID: "req-1", Run: 2, MachineID: strings.Repeat("ab", 20), Outcome: "failed", Code: "trackTimeout", Message: "not final", Time: now}},
			Failures: []ResultRow{{RequestID: "req-0", MachineID: strings.Repeat("ef", 20), RequestedBy: "ann@contoso.com", Ticket: "INC-9", SignedBy: "soar", Outcome: "failed", Code: "actionFailed", Message: "errorHResult 0x80004005", Time: now}},
			Batches: []Batch{
				{Name: "monday", Outcomes: map[string]int{"succeeded": 1200, "failed": 3}, Followed: 40, Waiting: 757},
				{Name: "sunday", Waiting: 10000, AtLeast: true},
			},
			Awaiting:     []ResultRow{{RequestID: "req-3", Outcome: "awaitingApproval", State: "waiting for approval", Message: "2 of ann, ben", Time: now}},
			DeadLetters:  []DeadLetterRow{{Sequence: 91, Replay: true, ResultRow: ResultRow{Advice: "A replay is judged anew.", RequestID: "req-4", Code: "policy", Time: now}}, {Sequence: 90, Attempts: 1, ResultRow: ResultRow{Advice: "Publish a corrected request.", RequestID: "req-2", ClaimedID: "shy-2", Ticket: "T-2", MachineID: strings.Repeat("cd", 20), Code: "malformed", Message: "no machine", Time: now}}},
			ActionsByAge: []Bucket{{"under 1 h", 640}, {"over 1 h", 8}},
			PerMinute:    []Point{{now, map[string]int{"succeeded": 5, "abandoned": 1}}},
		},
	}
	level := zap.NewAtomicLevelAt(zapcore.DebugLevel)
	s := start(t, Config{Level: &level}, w.sources(), nil)
	resp, body := s.ask(t, "GET", "/", nil)
	if resp.StatusCode != 200 || resp.Header.Get("Content-Type") != "text/html; charset=utf-8" {
		t.Errorf("got %d %s", resp.StatusCode, resp.Header.Get("Content-Type"))
	}
	for _, want := range []string{
		"<title>Healthy, 7 things to decide · unrestrict-worker</title>", "cannotList", "12,345", "oldest for 2h14m", ">17<", ">648<", ">79<",
		"https://api.security.microsoft.com, tenant contoso-tenant, account SECURITY", "tls://nats.contoso.com", "R, RR, RD, RC", "pod-1", "<bdi>cd34", "v9.8.6", "dry run", "takes no requests: token",
		"For somebody to decide", "Dead letters: the latest of 4", "<code>worker deadletter replay --seq 91</code>", "Publish a corrected request.</bdi> Then <code>worker deadletter drop --seq 90</code>",
		"Awaiting approval: the longest of 3", "waiting for approval", `<a href="request?id=req-1">`,
		`<td>12,340</td><td>2h14m</td><td><time datetime="2026-11-23T13:00Z">Nov 23, 13:00</time> <small>at the latest`, "when the pause ends", `all of them at <time datetime="2026-11-23T13:00:00Z">13:00:00`,
		`role="meter" aria-label="Left in the minute" aria-valuemin="0" aria-valuemax="100" aria-valuenow="38"`,
		"1,204 of 1,500", "no limit", "under 1 h", `width="1.25%"`, "5 succeeded; 1 rejected or abandoned", "<b>77</b> <bdi>succeeded</bdi>",
		"req-1", "run 2", strings.Repeat("ab", 20), "trackTimeout", "not final", "req-2", "Dead letter 90, 1 call.",
		"shy-2", "T-2", strings.Repeat("cd", 20), "req-0", "actionFailed", "errorHResult 0x80004005", "ann@contoso.com", "INC-9", "signed by <bdi>soar",
		`<b>1,203 of 2,000</b> ended; <b class="failed">3 did not succeed</b>; 757 waiting to be called, 40 waiting for the machine`, `width="60.15%"`, "<b>1,200</b> <bdi>succeeded</bdi>", "<b>0 of 10,000</b> ended; at least 10,000 waiting to be called", "v9.8.7", "log level debug",
		`<meta name="viewport"`, `<html lang="en">`, `<noscript><meta http-equiv="refresh" content="10"></noscript>`,
	} {
		if !strings.Contains(body, want) {
			t.Errorf("no %q in the page", want)
		}
	}
}

func TestPageNeedsNothingFromElsewhere(t *testing.T) {
	s := start(t, Config{}, healthy().sources(), nil)
	_, page := s.get(t, "/")
	for _, m := range regexp.MustCompile(`(?:src|href)="([^"]*)"`).FindAllStringSubmatch(page, -1) {
		if strings.HasPrefix(m[1], "data:image/") {
			continue
		}
		if code, _ := s.get(t, "/"+m[1]); code != 200 {
			t.Errorf("%s: %d", m[1], code)
		}
	}
	_, css := s.get(t, "/assets/style.css")
	_, js := s.get(t, "/assets/page.js")
	if m := regexp.MustCompile(`(https?:)?//[a-z]|@import|url\(`).FindString(strings.ReplaceAll(page, "xmlns='http://www.w3.org/2000/svg'", "") + css); m != "" {
		t.Errorf("%q leads elsewhere", m)
	}
	if strings.Contains(js, "http:") || strings.Contains(js, "https:") {
		t.Error("the script leads elsewhere")
	}
	if m := regexp.MustCompile(`(?i)<script>|<style|\sstyle=|\son[a-z]+=`).FindString(page); m != "" {
		t.Errorf("%q would be blocked by the page's own policy", m)
	}
}

func TestHostileTextStaysText(t *testing.T) {
	const evil = `"'><script>alert(1)</script><img src=x onerror=alert(1)>{{.}}` + "\u202e\x00"
	w := &worker{
		status: Status{
			Conditions: []health.Condition{{Code: evil, Message: evil, Remedy: evil, Stops: true}, impairs(evil, evil)}, Budget: []Window{{Window: evil, Limit: 2, Remaining: 1}},
			Results: map[string]int{evil: 1}, Version: evil, System: System{API: evil, Tenant: evil, Account: evil, Broker: evil, Lab: true, Streams: Streams{evil, evil, evil, evil}},
			Replicas: []Replica{{Host: evil, Version: evil, Mode: evil, Conditions: []string{evil}}},
		},
		recent: Recent{
			Requests:     []ResultRow{{RequestID: evil, MachineID: evil, Outcome: evil, Code: evil, Message: evil}},
			Awaiting:     []ResultRow{{RequestID: evil, MachineID: evil, Outcome: evil, Ticket: evil, Message: evil}},
			Failures:     []ResultRow{{RequestID: evil, ClaimedID: evil, Ticket: evil, RequestedBy: evil, SignedBy: evil, MachineID: evil, Outcome: evil, Code: evil, Message: evil}},
			Batches:      []Batch{{Name: evil, Outcomes: map[string]int{evil: 1}, Waiting: 1}},
			DeadLetters:  []DeadLetterRow{{ResultRow: ResultRow{Advice: evil, Run: 2, RequestID: evil, ClaimedID: evil, Ticket: evil, RequestedBy: evil, SignedBy: evil, MachineID: evil, Code: evil, Message: evil}}},
			ActionsByAge: []Bucket{{evil, 1}}, PerMinute: []Point{{time.Now(), map[string]int{evil: 1}}},
		},
	}
	s := start(t, Config{}, w.sources(), nil)
	_, page := s.get(t, "/")
	event := s.fragment(t, "")
	w.set(func(w *worker) { w.status.Paused, w.statusErr = nil, errors.New(evil) })
	poll(t, func() bool {
		_, unknown := s.get(t, "/")
		page += unknown
		return strings.Contains(unknown, "could not be read")
	})
	for name, html := range map[string]string{"page": page, "fragment": event} {
		if n := strings.Count(html, "alert(1)&lt;/script&gt;"); n < 15 {
			t.Errorf("%s: hostile text shown only %d times", name, n)
		}
		for _, raw := range []string{"<script>alert", "<img", "\"'>"} {
			if strings.Contains(html, raw) {
				t.Errorf("%s: %s came through", name, raw)
			}
		}
	}
	if !strings.Contains(page, `\u{202e}\u{0}`) {
		t.Error("what can't be seen is not spelled out")
	}
}

func TestBanner(t *testing.T) {
	operator, fault := &Pause{Kind: KindOperator, Code: "paused"}, &Pause{Kind: KindFault, Code: "token"}
	quota := []health.Condition{health.New(health.WaitingForQuota, "")}
	for name, c := range map[string]struct {
		status Status
		err    error
		stop   int
		want   string // tone and title
	}{
		"things to decide":    {Status{Healthy: true, DeadLetters: 2, AwaitingApproval: 1}, nil, 0, "ok Healthy, 3 things to decide"},
		"one thing":           {Status{Healthy: true, DeadLetters: 1}, nil, 0, "ok Healthy, 1 thing to decide"},
		"healthy":             {Status{Healthy: true}, nil, 0, "ok Healthy"},
		"paused":              {Status{Paused: operator}, nil, 1, "warn Paused"},
		"paused and at fault": {Status{Paused: operator}, nil, 2, "bad Paused"},
		"paused by the fault": {Status{Paused: fault}, nil, 1, "bad No requests are taken"},
		"nobody there":        {Status{}, nil, 1, "bad No requests are taken"},
		"waiting for quota":   {Status{Healthy: true, Conditions: quota}, nil, 0, "warn Waiting for quota"},
		"unknown":             {Status{}, errors.New("gone"), 1, "bad Unknown"},
	} {
		b := newBanner(c.status, c.err, c.stop)
		if got := b.Tone + " " + b.Title; got != c.want {
			t.Errorf("%s: got %s, want %s", name, got, c.want)
		}
		if b.Text == "" {
			t.Errorf("%s: says nothing", name)
		}
	}
}

// TestPageSaysEachCondition: what stops the deployment and what impairs it, with all that is known of it; while the status
// can't be read, what this replica knows.
func TestPageSaysEachCondition(t *testing.T) {
	since := time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)
	w := &worker{conditions: []health.Condition{stops("brokerAway", "this replica's alone")}, status: Status{Conditions: []health.Condition{
		{Code: "throttled", Message: "the API throttles", Remedy: "look who else calls", Since: since, Until: since.Add(time.Hour), Stops: true, Replicas: 2},
		impairs("cannotList", "no permission to list"),
	}}}
	s := start(t, Config{}, w.sources(), nil)
	_, page := s.get(t, "/")
	for _, want := range []string{
		"<code>throttled</code> <bdi>the API throttles</bdi>", `Since <time datetime="2026-11-23T12:00:00Z">`, `Until <time datetime="2026-11-23T13:00:00Z">`,
		"2 replicas.", "To do: <bdi>look who else calls</bdi>.", "<code>cannotList</code> <bdi>no permission to list</bdi>",
	} {
		if !strings.Contains(page, want) {
			t.Errorf("no %q in the page", want)
		}
	}
	if strings.Contains(page, "brokerAway") {
		t.Error("this replica's own list stands beside that of the deployment")
	}
	w.set(func(w *worker) { w.statusErr = errors.New("gone") })
	s.fragment(t, "<code>brokerAway</code> <bdi>this replica&#39;s alone</bdi>")
}

// TestPageOrder: what needs a person comes first, then the queue, batches and requests; what nobody needs to act on is last.
func TestPageOrder(t *testing.T) {
	w := &worker{
		status: Status{Healthy: true, DeadLetters: 1, Queue: Queue{Lanes: map[string]Lane{}}, Conditions: []health.Condition{
			health.New(health.WaitingForQuota, "all calls are used up"), health.New(health.MayNotList, "no permission to list"),
		}},
		recent: Recent{
			DeadLetters: []DeadLetterRow{{Sequence: 9, ResultRow: ResultRow{Advice: "It asks for approval again.", RequestID: "dead"}}},
			Awaiting:    []ResultRow{{RequestID: "asks"}}, Requests: []ResultRow{{RequestID: "asked"}}, Batches: []Batch{{Name: "monday"}},
		},
	}
	s := start(t, Config{}, w.sources(), nil)
	_, page := s.get(t, "/")
	at := 0
	for _, next := range []string{"no permission to list", "For somebody to decide", "It asks for approval again.", "worker approvals", `id="h-queue"`, `id="h-batches"`, `id="h-requests"`, "Worth knowing", "all calls are used up"} {
		i := strings.Index(page[at:], next)
		if i < 0 {
			t.Fatalf("no %q behind what comes before it: %s", next, page)
		}
		at += i
	}
}

func TestManyViewersAreOneQuestion(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var asked atomic.Int32
		src := healthy().sources()
		src.Status = func(context.Context) (Status, error) {
			asked.Add(1)
			time.Sleep(100 * time.Millisecond)
			return Status{}, nil
		}
		p, err := newPage(src, nil, &limits{tick: time.Second, source: time.Minute})
		if err != nil {
			t.Fatal(err)
		}
		for want := range int32(3) {
			var all sync.WaitGroup
			for range 10 {
				all.Go(func() {
					if _, err := p.render(t.Context()); err != nil {
						t.Error(err)
					}
				})
			}
			all.Wait()
			if got := asked.Load(); got != want+1 {
				t.Errorf("asked %d times, want %d", got, want+1)
			}
			time.Sleep(time.Second)
		}
	})
}

func TestViewerThatLeavesSpoilsNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		src := healthy().sources()
		src.Status = func(ctx context.Context) (Status, error) {
			select {
			case <-ctx.Done():
				return Status{}, ctx.Err()
			case <-time.After(time.Second):
				return Status{Healthy: true}, nil
			}
		}
		p, err := newPage(src, nil, &limits{tick: time.Hour, source: time.Minute})
		if err != nil {
			t.Fatal(err)
		}
		leaving, leave := context.WithCancel(t.Context())
		time.AfterFunc(time.Millisecond, leave)
		if _, err := p.render(leaving); !errors.Is(err, context.Canceled) {
			t.Errorf("got %v", err)
		}
		if now, err := p.render(t.Context()); err != nil || !strings.Contains(string(now.html), "Requests are taken") {
			t.Errorf("the next viewer got %v, %.300s", err, now.html)
		}
	})
}

func TestPlot(t *testing.T) {
	now := time.Date(2026, 11, 23, 12, 30, 42, 0, time.UTC)
	p := newPlot([]Point{
		{now, map[string]int{"succeeded": 1}},
		{now.Add(-10 * time.Second), map[string]int{"rejected": 2, "failed": 1}}, // the same minute
		{now.Add(-59 * time.Minute), map[string]int{"submitted": 8, "strange": 2}},
		{now.Add(-60 * time.Minute), map[string]int{"succeeded": 1000}}, // too old
		{now.Add(time.Minute), map[string]int{"succeeded": 1000}},       // another clock
		{now.Add(-5 * time.Minute), map[string]int{"succeeded": 0}},
	}, now)
	minuteAt := func(h, m int) time.Time { return time.Date(2026, 11, 23, h, m, 0, 0, time.UTC) }
	want := []minute{
		{
			At: minuteAt(11, 31), X: "0.00%", Sum: "10 submitted, dry run or other", Counts: bySeries(map[string]int{"dryRun": 10}),
			Parts: []part{{"other", "0.00%", "100.00%"}},
		},
		{
			At: minuteAt(12, 30), X: "98.33%", Sum: "1 succeeded; 1 failed, timed out or cancelled; 2 rejected or abandoned",
			Counts: bySeries(map[string]int{"succeeded": 1, "timedOut": 1, "abandoned": 2}),
			Parts:  []part{{"good", "90.00%", "10.00%"}, {"failed", "80.00%", "10.00%"}, {"refused", "60.00%", "20.00%"}},
		},
	}
	if diff := cmp.Diff(want, p.Bars); diff != "" {
		t.Error(diff)
	}
	if p.Top != 10 || p.Half() != 5 || p.Empty || !p.From.Equal(minuteAt(11, 31)) || !p.To.Equal(minuteAt(12, 30)) {
		t.Errorf("got %+v", p)
	}
	if !newPlot(nil, now).Empty {
		t.Error("no points, but not empty")
	}
}

func TestSmallFormats(t *testing.T) {
	for n, want := range map[int]string{0: "0", 999: "999", 1000: "1,000", 1234567: "1,234,567", -999: "-999", -1000: "-1,000"} {
		if got := number(n); got != want {
			t.Errorf("number %d: %s, want %s", n, got, want)
		}
	}
	for n, want := range map[int]int{0: 2, 1: 2, 3: 4, 10: 10, 11: 12, 17: 20, 106: 120, 1601: 2000} {
		if got := ceiling(n); got != want {
			t.Errorf("ceiling of %d: %d, want %d", n, got, want)
		}
	}
	if got := text(strings.Repeat("ü", 301)); got != strings.Repeat("ü", 300)+"…" {
		t.Errorf("not clipped: %s", got)
	}
	bars := budgetBars([]Window{{Window: "minute", Limit: 100, Remaining: 9}, {Window: "hour", Limit: 100, Remaining: 0}, {Window: "hour", Limit: 100, Remaining: 10}, {Window: "hour", Limit: 100, Remaining: 140}})
	got := fmt.Sprint(bars[0].Tone, bars[0].Width, " ", bars[1].Tone, bars[1].Width, " ", bars[2].Tone, bars[2].Width, " ", bars[3].Width)
	if want := "warn9.00% bad0.00% 10.00% 100.00%"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

func TestRowsAreCapped(t *testing.T) {
	w := healthy()
	for i := range 100 {
		w.recent.Requests = append(w.recent.Requests, ResultRow{RequestID: fmt.Sprintf("result-%03d-", i)})
		w.recent.DeadLetters = append(w.recent.DeadLetters, DeadLetterRow{ResultRow: ResultRow{RequestID: fmt.Sprintf("dead-%03d-", i)}})
	}
	s := start(t, Config{}, w.sources(), nil)
	_, page := s.get(t, "/")
	if r, d := strings.Count(page, "<bdi class=\"mono\">result-0"), strings.Count(page, "<bdi class=\"mono\">dead-0"); r != shownRequests || d != shownRows {
		t.Errorf("%d requests and %d dead letters, want %d and %d", r, d, shownRequests, shownRows)
	}
}
