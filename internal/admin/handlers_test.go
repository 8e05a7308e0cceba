package admin

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/testutil/promlint"

	"example.com/unrestrict-worker/internal/health"
)

func TestLivez(t *testing.T) {
	w := healthy()
	s := start(t, Config{}, w.sources(), nil)
	if code, body := s.get(t, "/livez"); code != 200 || !strings.Contains(body, `"alive": true`) {
		t.Errorf("alive: %d %s", code, body)
	}
	w.set(func(w *worker) { w.alive = errors.New("no progress for 2m0s"); w.conditions = nil })
	if code, body := s.get(t, "/livez"); code != 503 || !strings.Contains(body, "no progress for 2m0s") {
		t.Errorf("stuck: %d %s", code, body)
	}
}

func TestReadyz(t *testing.T) {
	paused, detail := stops("paused", "change freeze"), impairs("cannotList", "no permission to list actions")
	paused.Since, paused.Remedy = time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC), "resume"
	detail.Until = paused.Since
	for name, c := range map[string]struct {
		conditions []health.Condition
		code       int
		want       string
	}{
		"ready": {nil, 200, `{"ready":true,"reasons":[],"details":[]}`},
		"not ready": {
			[]health.Condition{paused},
			503,
			`{"ready":false,"reasons":[{"code":"paused","message":"change freeze","remedy":"resume","since":"2026-11-23T12:00:00Z","stops":true}],"details":[]}`,
		},
		"details only tell": {
			[]health.Condition{detail},
			200,
			`{"ready":true,"reasons":[],"details":[{"code":"cannotList","message":"no permission to list actions","until":"2026-11-23T12:00:00Z","stops":false}]}`,
		},
	} {
		t.Run(name, func(t *testing.T) {
			s := start(t, Config{}, (&worker{conditions: c.conditions}).sources(), nil)
			code, body := s.get(t, "/readyz")
			var got bytes.Buffer
			if err := json.Compact(&got, []byte(body)); err != nil || code != c.code || got.String() != c.want {
				t.Errorf("got %d %s, want %d %s", code, got.String(), c.code, c.want)
			}
		})
	}
}

func TestStatus(t *testing.T) {
	since := time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)
	until := since.Add(time.Hour)
	w := &worker{status: Status{
		Paused: &Pause{Kind: KindOperator, Code: "paused", Reason: "freeze", Since: since, Until: &until}, WaitingForQuota: &QuotaWait{until}, Queue: Queue{Pending: 3, InFlight: 2, OldestSeconds: 1.5, Lanes: map[string]Lane{"bulk": {Pending: 4, OldestSeconds: 2.5}}},
		Budget: []Window{{Window: "minute", Limit: 100, Remaining: 7, FreesAt: since, FullAt: until}}, Followed: 4, DeadLetters: 5, Results: map[string]int{"succeeded": 6}, Version: "v1",
		System:   System{API: "https://localhost", Lab: true, Tenant: "t", Account: "a", Broker: "nats://b", Mode: ModeLive, Streams: Streams{"R", "RR", "RD", "RC"}},
		Replicas: []Replica{{ID: "i", Host: "h", Version: "v1", Mode: ModeLive, API: "https://localhost", Ready: true, Conditions: []string{}}},
	}}
	s := start(t, Config{}, w.sources(), nil)
	check := func(want string) {
		t.Helper()
		resp, body := s.ask(t, http.MethodGet, "/status", nil)
		if resp.StatusCode != 200 || resp.Header.Get("Content-Type") != "application/json" {
			t.Errorf("got %d %s", resp.StatusCode, resp.Header.Get("Content-Type"))
		}
		var got bytes.Buffer
		_ = json.Compact(&got, []byte(body))
		if diff := cmp.Diff(want, got.String()); diff != "" {
			t.Error(diff)
		}
	}
	check(`{"healthy":false,"paused":{"kind":"operator","code":"paused","reason":"freeze","since":"2026-11-23T12:00:00Z","until":"2026-11-23T13:00:00Z"},` +
		`"waitingForQuota":{"nextCallAt":"2026-11-23T13:00:00Z"},` +
		`"queue":{"pending":3,"inFlight":2,"oldestSeconds":1.5,"lanes":{"bulk":{"pending":4,"oldestSeconds":2.5}}},"budget":[{"window":"minute","limit":100,"remaining":7,"freesAt":"2026-11-23T12:00:00Z","fullAt":"2026-11-23T13:00:00Z"}],` +
		`"awaitingApproval":0,"followed":4,"deadLetters":5,"results":{"succeeded":6},"version":"v1",` +
		`"system":{"api":"https://localhost","lab":true,"tenant":"t","account":"a","broker":"nats://b","mode":"live","streams":{"requests":"R","results":"RR","deadLetters":"RD","orders":"RC"}},` +
		`"replicas":[{"id":"i","host":"h","version":"v1","mode":"live","api":"https://localhost","ready":true,"conditions":[]}],"conditions":[]}`)
	w.set(func(w *worker) { w.status = Status{Healthy: true, Version: "v1"} })
	check(`{"healthy":true,"paused":null,"waitingForQuota":null,"queue":{"pending":0,"inFlight":0,"oldestSeconds":0,"lanes":{}},"budget":[],` +
		`"awaitingApproval":0,"followed":0,"deadLetters":0,"results":{},"version":"v1",` +
		`"system":{"api":"","lab":false,"tenant":"","account":"","broker":"","mode":"","streams":{"requests":"","results":"","deadLetters":"","orders":""}},"replicas":[],"conditions":[]}`)
	w.set(func(w *worker) { w.statusErr = errors.New("no responders") })
	if code, body := s.get(t, "/status"); code != 503 || !strings.Contains(body, `"error": "no responders"`) {
		t.Errorf("got %d %s", code, body)
	}
}

func TestStatusIsAskedWithATimeLimit(t *testing.T) {
	src := healthy().sources()
	src.Status = func(ctx context.Context) (Status, error) { <-ctx.Done(); return Status{}, ctx.Err() }
	s := start(t, Config{}, src, func(l *limits) { l.source = 10 * time.Millisecond })
	if code, body := s.get(t, "/status"); code != 503 || !strings.Contains(body, "deadline exceeded") {
		t.Errorf("got %d %s", code, body)
	}
	if code, body := s.get(t, "/"); code != 200 || !strings.Contains(body, "could not be read") {
		t.Errorf("got %d %s", code, body)
	}
}

func TestMetrics(t *testing.T) {
	reg := prometheus.NewRegistry()
	pending := prometheus.NewGauge(prometheus.GaugeOpts{Name: "unrestrict_queue_pending", Help: "Requests not taken yet."})
	pending.Set(7)
	reg.MustRegister(pending, collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}), broken{})
	s := start(t, Config{Gatherer: reg}, healthy().sources(), nil)
	code, body := s.get(t, "/metrics")
	if code != 200 {
		t.Fatalf("got %d %s", code, body)
	}
	for _, want := range []string{"\nunrestrict_queue_pending 7\n", "\ngo_goroutines ", "\nprocess_resident_memory_bytes "} {
		if !strings.Contains(body, want) {
			t.Errorf("no %q in %s", want, body)
		}
	}
	problems, err := promlint.New(strings.NewReader(body)).Lint()
	if err != nil || len(problems) > 0 {
		t.Errorf("promlint: %v %v", problems, err)
	}
}

// broken is a collector that fails, which must not take the others with it.
type broken struct{}

func (broken) Describe(ch chan<- *prometheus.Desc) {
	ch <- prometheus.NewDesc("broken", "Fails.", nil, nil)
}

func (broken) Collect(ch chan<- prometheus.Metric) {
	ch <- prometheus.NewInvalidMetric(prometheus.NewDesc("broken", "Fails.", nil, nil), errors.New("fails"))
}

func TestProfiles(t *testing.T) {
	s := start(t, Config{}, healthy().sources(), nil)
	for path, want := range map[string]string{
		"/debug/pprof/": "goroutine", "/debug/pprof/goroutine?debug=1": "goroutine profile:", "/debug/pprof/symbol": "num_symbols",
		"/debug/pprof/trace?seconds=0.1": "go 1.", "/debug/pprof/profile?seconds=1": "", "/debug/pprof/heap": "",
	} {
		if code, body := s.get(t, path); code != 200 || !strings.Contains(body, want) {
			t.Errorf("%s: %d %.200s", path, code, body)
		}
	}
	if code, _ := s.get(t, "/debug/pprof/cmdline"); code != 404 {
		t.Errorf("cmdline, which may hold a secret: %d", code)
	}
	off := start(t, Config{Addr: "0.0.0.0:0", Token: "t"}, healthy().sources(), nil)
	resp, _ := off.ask(t, http.MethodGet, "/debug/pprof/", func(r *http.Request) { r.Header.Set("Authorization", "Bearer t") })
	if resp.StatusCode != 403 {
		t.Errorf("profiles off loopback: %d", resp.StatusCode)
	}
}
