package cli

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"maps"
	"net/http"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus/testutil/promlint"

	"example.com/unrestrict-worker/internal/defender/defendersim"
	"example.com/unrestrict-worker/internal/message"
	"example.com/unrestrict-worker/internal/service"
)

// metricNames are the worker's own metrics, which dashboards and alerts are written against, with their labels.
var metricNames = []string{
	"unrestrict_actions_followed gauge",
	"unrestrict_api_call_duration_seconds histogram operation",
	"unrestrict_api_calls_total counter code,operation",
	"unrestrict_budget_limit gauge window",
	"unrestrict_budget_remaining gauge window",
	"unrestrict_build_info gauge version",
	"unrestrict_condition gauge code",
	"unrestrict_deadletters_not_kept_total counter",
	"unrestrict_deadletters_total counter code",
	"unrestrict_in_flight gauge",
	"unrestrict_lane_pending gauge lane",
	"unrestrict_paused gauge reason",
	"unrestrict_queue_expected_wait_seconds gauge lane",
	"unrestrict_queue_pending gauge",
	"unrestrict_request_duration_seconds histogram outcome",
	"unrestrict_requests_total counter outcome",
	"unrestrict_retries_total counter reason",
	"unrestrict_stage_duration_seconds histogram stage",
	"unrestrict_token_expiry_timestamp_seconds gauge",
}

// everyOutcome makes a worker end requests in each way that its settings allow, and waits for their final results.
func everyOutcome(t *testing.T, s *system, requests map[string]string) {
	t.Helper()
	b := s.work.Broker
	before, _, _, err := s.work.Parts.Tally.Counts(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	before = maps.Clone(before)
	for outcome, payload := range requests {
		if _, err := b.Publish(t.Context(), message.LaneNormal, nil, []byte(payload)); err != nil {
			t.Fatalf("%s: %v", outcome, err)
		}
	}
	p := s.work.Parts
	for {
		counts, _, _, err := p.Tally.Counts(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		ended := 0
		for outcome := range requests {
			if counts[outcome] > before[outcome] {
				ended++
			}
		}
		// The last line of a request's story is written after its result.
		if ended == len(requests) && p.Consumer.InFlight() == 0 && p.Tracker.Following() == 0 {
			return
		}
		if !service.Pause(t.Context(), 20*time.Millisecond) {
			t.Fatalf("ended so far: %v", counts)
		}
	}
}

// scrape is what Prometheus gets from a worker.
func scrape(t *testing.T, addr string) string {
	t.Helper()
	resp, err := http.Get("http://" + addr + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != http.StatusOK {
		t.Fatalf("%s: %v", resp.Status, err)
	}
	return string(body)
}

// TestMetricsAfterEveryOutcome runs workers through every kind of outcome, and holds what they export against the list,
// against what happened, and against Prometheus' own rules.
func TestMetricsAfterEveryOutcome(t *testing.T) {
	t.Parallel()
	request := func(n int) string { return fmt.Sprintf(`{"id":"r%d","machineId":%q,"comment":"c"}`, n, MachineOf(n)) }
	s, err := newSystem(t.TempDir())
	t.Cleanup(s.close)
	if err != nil {
		t.Fatal(err)
	}
	for n, outcome := range []string{"Succeeded", "Failed", "TimeOut", "Cancelled"} {
		s.sim.AddMachine(MachineOf(n+1), defendersim.Machine{Outcome: outcome})
	}
	s.refuse(MachineOf(5))
	s.sim.Inject(defendersim.Fault{Op: "unrestrict", Machine: MachineOf(6), Status: http.StatusConflict, Code: "ActiveRequestAlreadyExists"})
	s.sim.Inject(defendersim.Fault{Op: "unrestrict", Machine: MachineOf(1), Status: http.StatusTooManyRequests, RetryAfter: time.Second, Times: 1})
	start := func(more map[string]string) {
		s.stop()
		if err := s.start(context.WithoutCancel(t.Context()), more); err != nil {
			t.Fatal(err)
		}
	}

	start(map[string]string{"WORKER_GIVE_UP_AFTER": "300ms", "WORKER_RECONCILE_DELAY": "200ms", "WORKER_RATE_PER_HOUR": "1000"})
	everyOutcome(t, s, map[string]string{
		"succeeded": request(1), "failed": request(2), "timedOut": request(3), "cancelled": request(4), "rejected": request(5), "abandoned": request(6),
	})
	everyOutcome(t, s, map[string]string{"rejected": `{"machineId":"none"}`})
	all := scrape(t, s.work.AdminAddr.String())
	wantSamples(t, all, map[string]string{
		`unrestrict_requests_total{outcome="succeeded"}`: "1", `unrestrict_requests_total{outcome="failed"}`: "1",
		`unrestrict_requests_total{outcome="timedOut"}`: "1", `unrestrict_requests_total{outcome="cancelled"}`: "1",
		`unrestrict_requests_total{outcome="rejected"}`: "2", `unrestrict_requests_total{outcome="abandoned"}`: "1",
		`unrestrict_request_duration_seconds_count{outcome="timedOut"}`:        "1",
		`unrestrict_request_duration_seconds_count{outcome="rejected"}`:        "1", // a message that is malformed is never taken
		`unrestrict_deadletters_total{code="OsPlatformNotSupported"}`:          "1",
		`unrestrict_deadletters_total{code="malformed"}`:                       "1",
		`unrestrict_deadletters_total{code="gaveUp"}`:                          "1",
		`unrestrict_api_calls_total{code="201",operation="unrestrict"}`:        "4",
		`unrestrict_api_calls_total{code="429",operation="unrestrict"}`:        "1",
		`unrestrict_api_calls_total{code="400",operation="unrestrict"}`:        "1",
		`unrestrict_stage_duration_seconds_count{stage="queue"}`:               "6",
		`unrestrict_stage_duration_seconds_count{stage="quota"}`:               "6",
		`unrestrict_stage_duration_seconds_count{stage="api"}`:                 "6",
		`unrestrict_stage_duration_seconds_count{stage="device"}`:              "4",
		`unrestrict_retries_total{reason="throttled"}`:                         "1",
		`unrestrict_budget_remaining{window="minute"}`:                         "+Inf",
		`unrestrict_paused{reason="paused"}`:                                   "0",
		`unrestrict_condition{code="paused"}`:                                  "0",
		`unrestrict_build_info{version="` + service.ThisBuild().Version + `"}`: "1",
		"unrestrict_queue_pending":                                             "0",
		`unrestrict_lane_pending{lane="bulk"}`:                                 "0",
		"unrestrict_in_flight":                                                 "0",
		"unrestrict_actions_followed":                                          "0",
	})
	if diff := cmp.Diff(metricNames, describedMetrics(t, s)); diff != "" {
		t.Errorf("the list and the worker differ: %s", diff)
	}
	rows := metricRows(t, s)
	checkMetricsPage(t, `metrics, by "make generate"`, "end", rows)

	start(map[string]string{"WORKER_DRY_RUN": "true"})
	everyOutcome(t, s, map[string]string{"dryRun": request(7)})
	dry := scrape(t, s.work.AdminAddr.String())
	wantSamples(t, dry, map[string]string{`unrestrict_requests_total{outcome="dryRun"}`: "1", `unrestrict_stage_duration_seconds_count{stage="queue"}`: "1"})

	start(map[string]string{"WORKER_TRACK": "false"})
	everyOutcome(t, s, map[string]string{"submitted": request(8)})
	untracked := scrape(t, s.work.AdminAddr.String())
	wantSamples(t, untracked, map[string]string{`unrestrict_requests_total{outcome="submitted"}`: "1", `unrestrict_stage_duration_seconds_count{stage="api"}`: "1"})

	for _, text := range []string{all, dry, untracked} {
		problems, err := promlint.New(strings.NewReader(text)).Lint()
		if err != nil || len(problems) > 0 {
			t.Errorf("Prometheus' linter: %v %v", problems, err)
		}
		if strings.Contains(text, "unrestrict_stage_duration_seconds_count{stage=\"device\"}") != (text == all) {
			t.Error("only what is followed has a time on the device")
		}
	}
}

func wantSamples(t *testing.T, text string, want map[string]string) {
	t.Helper()
	got := map[string]string{}
	for line := range strings.Lines(text) {
		if name, value, ok := strings.Cut(strings.TrimSpace(line), " "); ok && want[name] != "" {
			got[name] = value
		}
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

// describedMetrics are the worker's metrics as metricNames has them.
func describedMetrics(t *testing.T, s *system) (all []string) {
	t.Helper()
	for _, row := range metricRows(t, s) {
		all = append(all, strings.TrimSpace(row.name+" "+row.kind+" "+row.labels))
	}
	return all
}

type metricRow struct{ name, kind, labels, help string }

func metricRows(t *testing.T, s *system) (rows []metricRow) {
	t.Helper()
	families, err := s.work.Registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		if !strings.HasPrefix(f.GetName(), "unrestrict_") {
			continue
		}
		labels := map[string]bool{}
		for _, m := range f.GetMetric() {
			for _, l := range m.GetLabel() {
				labels[l.GetName()] = true
			}
		}
		names := slices.Sorted(maps.Keys(labels))
		rows = append(rows, metricRow{f.GetName(), strings.ToLower(f.GetType().String()), strings.Join(names, ","), f.GetHelp()})
	}
	return rows
}

const metricsPage = "../../docs/observability.md"

// checkMetricsPage holds a table of docs/observability.md, between two marks, against what is exported; -update writes it.
func checkMetricsPage(t *testing.T, head, foot string, rows []metricRow) {
	t.Helper()
	var table bytes.Buffer
	table.WriteString("| metric | type | labels | meaning |\n|---|---|---|---|\n")
	for _, r := range rows {
		labels := r.labels
		if labels != "" {
			labels = "`" + strings.ReplaceAll(labels, ",", "`, `") + "`"
		}
		fmt.Fprintf(&table, "| `%s` | %s | %s | %s |\n", r.name, r.kind, labels, r.help)
	}
	page, err := os.ReadFile(metricsPage)
	if err != nil {
		t.Fatal(err)
	}
	head, foot = "<!-- "+head+" -->\n", "<!-- "+foot+" -->\n"
	before, rest, found := strings.Cut(string(page), head)
	have, after, ends := strings.Cut(rest, foot)
	if !found || !ends {
		t.Fatalf("docs/observability.md has no place for the metrics: %s", head)
	}
	if *update {
		if err := os.WriteFile(metricsPage, []byte(before+head+table.String()+foot+after), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	if diff := cmp.Diff(table.String(), have); diff != "" {
		t.Errorf("docs/observability.md is not what is exported (make generate): %s", diff)
	}
}
