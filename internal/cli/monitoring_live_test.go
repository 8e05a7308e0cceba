//go:build monitoring

package cli

import (
	"context"
	"encoding/json"
	"fmt"
	"math"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"example.com/unrestrict-worker/internal/message"
	"example.com/unrestrict-worker/internal/service"
)

// silent are the alerts that a run of some minutes can't bring about, and why.
var silent = map[string]string{
	"UnrestrictReleaseSLOFastBurn": "every result comes within 15 minutes",
	"UnrestrictReleaseSLOSlowBurn": "every result comes within 15 minutes",
	"UnrestrictTokenNotRenewed":    "the simulator's tokens last an hour",
	"UnrestrictBrokerUnreachable":  "the broker is embedded",
	"UnrestrictStoreFault":         "the disk is not full",
	"UnrestrictCallbackGaveUp":     "a result is given up after three days",
	"UnrestrictCallbackBehind":     "there are not a hundred results",
}

// TestMonitoringLive has a real Prometheus scrape a worker, provokes what the alerts are about, and then asks for every
// expression of the rules and of the dashboard: `make monitoring-test`. Each must have had data, but for the silent.
func TestMonitoringLive(t *testing.T) {
	if _, err := exec.LookPath("prometheus"); err != nil {
		t.Fatal("the program prometheus is not installed (Debian: apt-get install prometheus)")
	}
	dir := t.TempDir()
	env := terminal(dir)
	sim, pasted := startSimulator(t, env, []string{"worker", "simulate"})
	run, broker, admin := startRun(t, append(append(env, pasted...), "WORKER_RATE_PER_MINUTE=20", "WORKER_BACKOFF_MAX=2s"), []string{"worker", "run"})
	at, err := url.Parse(broker)
	if err != nil {
		t.Fatal(err)
	}
	set := map[string]string{}
	for _, v := range pasted {
		name, value, _ := strings.Cut(v, "=")
		set[name] = value
	}
	l := &live{t: t, env: append(env, "WORKER_EMBEDDED_ADDR="+at.Host), simulator: set["DEFENDER_API_URL"] + "/sim/", rules: alertRules(t), fired: map[string]bool{}}
	file, posted := calledBack(t)
	door, intake := startIntake(t, append(l.env, "WORKER_INTAKE_CLIENTS_FILE="+file))
	prometheus := l.prometheus(dir, admin, door.addr)
	began := time.Now()

	// The first call is told to wait; then its action stays open, and may not be looked up.
	l.told("machines", `{"id":"`+machine(1)+`","offline":true}`)
	l.told("machines", `{"id":"`+machine(2)+`","outcome":"Failed"}`)
	l.told("faults", `{"op":"list","status":403,"code":"Forbidden","message":"Missing application roles"}`)
	l.told("faults", `{"op":"unrestrict","times":1,"status":429,"retryAfter":"12s"}`)
	l.submit("open", 1, 1)
	l.fires("UnrestrictQueueStalled")
	l.fires("UnrestrictNoFinalResults")
	l.fires("UnrestrictNotFollowing")
	l.mended()

	// A machine that nobody knows.
	l.told("faults", `{"op":"unrestrict","machine":"`+machine(3)+`","status":404,"code":"ResourceNotFound"}`)
	l.submit("some", 2, 4)
	l.fires("UnrestrictDeadLetters")

	// More than the minute allows, and an operator who stops it.
	l.submit("bulk", 10, 45)
	l.fires("UnrestrictBudgetExhausted")
	l.command("pause", "--reason", "change freeze")
	l.fires("UnrestrictPausedByOperator")
	l.command("resume")

	// No token, then an API that throttles, then one that is in trouble.
	token, err := os.ReadFile(set["DEFENDER_TOKEN_FILE"])
	if err != nil {
		t.Fatal(err)
	}
	l.write(set["DEFENDER_TOKEN_FILE"], "")
	l.fires("UnrestrictNoToken")
	l.write(set["DEFENDER_TOKEN_FILE"], string(token))
	l.told("faults", `{"op":"unrestrict","times":8,"status":429,"retryAfter":"2s"}`)
	l.fires("UnrestrictThrottled")
	l.told("faults", `{"status":503}`)
	l.submit("trouble", 60, 66)
	l.fires("UnrestrictPaused")
	l.fires("UnrestrictAPIErrors")
	l.mended()
	l.await("all is well again", `min(unrestrict_paused) == 0 and max(unrestrict_queue_pending) == 0`)

	l.asksOverHTTP(door, file, posted)
	l.dashboard(began)
	l.write(file, "clients: none")
	l.fires("UnrestrictIntakeImpaired")
	run.stop(t)
	l.asksInVain(door, intake)
	l.fires("UnrestrictWorkerDown")
	l.fires("UnrestrictWorkerAbsent")
	l.alerts(began)
	prometheus.stop(t)
	sim.stop(t)
}

// asksOverHTTP has what is asked over HTTP posted to one callback, and not to another.
func (l *live) asksOverHTTP(door *door, file string, posted <-chan message.Result) {
	l.t.Helper()
	l.write(file, strings.Replace(string(l.read(file)), "callbacks: [", `callbacks: [{name: gone, url: "http://127.0.0.1:1/", secret_file: `+secretOf(string(l.read(file)))+`}, `, 1))
	if status, text := door.ask("POST", "/v1/requests", `{"id":"http","machineId":"`+machine(90)+`","comment":"c"}`); status != http.StatusAccepted {
		l.t.Fatalf("the intake answers %d %s", status, text)
	}
	<-posted
	l.fires("UnrestrictCallbackFails")
}

// asksInVain is about an intake that has lost its broker, and then ends.
func (l *live) asksInVain(door *door, intake *process) {
	l.t.Helper()
	l.fires("UnrestrictIntakeNotReady")
	for _, id := range []string{"away", "still-away"} { // a counter's first value is no increase
		if status, text := door.ask("POST", "/v1/requests", `{"id":"`+id+`","machineId":"`+machine(91)+`","comment":"c"}`); status != http.StatusServiceUnavailable {
			l.t.Errorf("without a broker the intake answers %d %s", status, text)
		}
		l.await("the answer is counted", `unrestrict_intake_requests_total{code="503"}`)
	}
	l.fires("UnrestrictIntakeErrors")
	l.fires("UnrestrictIntakeNotStored")
	intake.stop(l.t)
	l.fires("UnrestrictIntakeDown")
}

// secretOf is the file that the first callback of a clients file has its secret from.
func secretOf(clients string) string {
	return regexp.MustCompile(`secret_file: ("[^"]+")`).FindStringSubmatch(clients)[1]
}

func machine(n int) string { return fmt.Sprintf("%040x", n) }

// live is a worker, a simulated API and a Prometheus at work.
type live struct {
	t         *testing.T
	env       []string
	simulator string // the simulator's own API
	api       string // Prometheus's
	rules     []rule
	fired     map[string]bool // alerts whose condition has held
}

// prometheus starts one that scrapes and evaluates every second.
func (l *live) prometheus(dir, worker, intake string) *process {
	l.t.Helper()
	rules, err := filepath.Abs(filepath.Join(repository, "deploy", "monitoring", "alerts.yaml"))
	if err != nil {
		l.t.Fatal(err)
	}
	config := filepath.Join(dir, "prometheus.yml")
	l.write(config, fmt.Sprintf(`
global: {scrape_interval: 1s, evaluation_interval: 1s}
rule_files: [%q]
scrape_configs:
  - job_name: unrestrict-worker
    static_configs:
      - targets: [%q]
        labels: {namespace: soc}
  - job_name: unrestrict-intake
    static_configs:
      - targets: [%q]
        labels: {namespace: soc}
`, rules, worker, intake))
	p := start(l.t, l.env, []string{
		"prometheus", "--config.file=" + config, "--storage.tsdb.path=" + filepath.Join(dir, "tsdb"), "--web.listen-address=127.0.0.1:0",
	}, true)
	listens := regexp.MustCompile(`msg="Listening on" address=(\S+)`)
	p.until(l.t, func(line string) bool {
		m := listens.FindStringSubmatch(line)
		if m != nil {
			l.api = "http://" + m[1] + "/api/v1/"
		}
		return strings.Contains(line, "Server is ready")
	})
	l.await("the worker is scraped", "unrestrict_paused")
	l.await("the intake is scraped", "unrestrict_intake_condition")
	return p
}

func (l *live) read(file string) []byte {
	l.t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		l.t.Fatal(err)
	}
	return text
}

func (l *live) write(file, content string) {
	l.t.Helper()
	if err := os.WriteFile(file, []byte(content), 0o600); err != nil {
		l.t.Fatal(err)
	}
}

// told tells the simulator about a machine or a fault.
func (l *live) told(what, body string) {
	l.t.Helper()
	resp, err := http.Post(l.simulator+what, "application/json", strings.NewReader(body))
	if err != nil {
		l.t.Fatal(err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusNoContent {
		l.t.Fatalf("%s: %s", body, resp.Status)
	}
}

// mended ends all faults.
func (l *live) mended() {
	l.t.Helper()
	req, err := http.NewRequestWithContext(l.t.Context(), http.MethodDelete, l.simulator+"faults", http.NoBody)
	if err != nil {
		l.t.Fatal(err)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		l.t.Fatal(err)
	}
	resp.Body.Close()
}

func (l *live) command(args ...string) {
	l.t.Helper()
	succeeds(l.t, l.env, append([]string{"worker"}, args...)...)
}

// submit asks for machines first to last, without waiting for them.
func (l *live) submit(batch string, first, last int) {
	l.t.Helper()
	file := filepath.Join(l.t.TempDir(), batch+".csv")
	rows := "machineId,comment\n"
	for n := first; n <= last; n++ {
		rows += machine(n) + ",cleaned\n"
	}
	l.write(file, rows)
	l.command("submit", "--file", file, "--batch", batch)
}

// points are the samples of one series that a query gave.
type points struct {
	Metric map[string]string
	Value  []any   // an instant
	Values [][]any // a range
}

// ask queries Prometheus.
func (l *live) ask(ctx context.Context, path string, query url.Values) (result []points, err error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, l.api+path+"?"+query.Encode(), http.NoBody)
	if err != nil {
		return nil, err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	var answer struct {
		Error string
		Data  struct{ Result []points }
	}
	if err := json.NewDecoder(resp.Body).Decode(&answer); err != nil {
		return nil, err
	}
	if answer.Error != "" {
		return nil, fmt.Errorf("%s: %s", query.Get("query"), answer.Error)
	}
	return answer.Data.Result, nil
}

// await waits until a query has a result.
func (l *live) await(what, query string) {
	l.t.Helper()
	ctx, cancel := context.WithTimeout(l.t.Context(), 3*time.Minute)
	defer cancel()
	for {
		result, err := l.ask(ctx, "query", url.Values{"query": {query}})
		if err != nil {
			l.t.Fatalf("%s: %v", what, err)
		}
		if len(result) > 0 {
			l.t.Logf("%s: %d series, the first %v", what, len(result), result[0].Value[1])
			return
		}
		service.Pause(ctx, 500*time.Millisecond)
	}
}

// fires waits until an alert's condition holds. For how long it must before the alert fires is in alerts_test.yaml.
func (l *live) fires(name string) {
	l.t.Helper()
	for _, r := range l.rules {
		if r.Alert == name {
			l.await(name, r.Expr)
			l.fired[name] = true
			return
		}
	}
	l.t.Errorf("there is no alert %s", name)
}

// had is how many series with numbers an expression had since then.
func (l *live) had(expr string, since time.Time) (series int) {
	l.t.Helper()
	result, err := l.ask(l.t.Context(), "query_range", url.Values{
		"query": {expr}, "start": {stamp(since)}, "end": {stamp(time.Now())}, "step": {"1"},
	})
	if err != nil {
		l.t.Error(err)
	}
	for _, r := range result {
		for _, v := range r.Values {
			if f, err := strconv.ParseFloat(v[1].(string), 64); err == nil && !math.IsNaN(f) {
				series++
				break
			}
		}
	}
	return series
}

func stamp(t time.Time) string { return strconv.FormatFloat(float64(t.UnixMilli())/1000, 'f', 3, 64) }

// dashboard asks for everything that the dashboard shows, as Grafana would.
func (l *live) dashboard(since time.Time) {
	fill := strings.NewReplacer("$namespace", "soc", "$job", ".*", "$tenant", ".*", "$__rate_interval", "10s", "$__range", "10m")
	asked := 0
	for _, p := range dashboard(l.t) {
		for _, target := range p.Targets {
			asked++
			n := l.had(fill.Replace(target.Expr), since)
			if n == 0 {
				l.t.Errorf("panel %s: no data for %s", p.Title, target.Expr)
			}
			l.t.Logf("panel %s: %d series", p.Title, n)
		}
	}
	l.t.Logf("%d expressions of the dashboard", asked)
}

// alerts asks for every rule, and for all that each one reads.
func (l *live) alerts(since time.Time) {
	for _, r := range l.rules {
		n := l.had(r.Expr, since)
		if why := silent[r.Alert]; (n > 0 || l.fired[r.Alert]) == (why != "") { // a range may miss what held for a moment
			l.t.Errorf("%s: %d series; expected to be silent: %q", r.name(), n, why)
		}
		l.t.Logf("%s: %d series", r.name(), n)
		names, _ := selectors(r.Expr)
		for _, s := range names {
			if l.had(s.text, since) == 0 && !strings.Contains(s.text, `reason="store"`) && !strings.Contains(s.text, `reason="broker"`) {
				l.t.Errorf("%s: no data for %s", r.name(), s.text)
			}
		}
	}
	var answer struct {
		Data struct {
			Groups []struct {
				Rules []struct{ Name, Health, LastError string }
			}
		}
	}
	resp, err := http.Get(l.api + "rules")
	if err != nil {
		l.t.Fatal(err)
	}
	defer resp.Body.Close()
	if err := json.NewDecoder(resp.Body).Decode(&answer); err != nil {
		l.t.Fatal(err)
	}
	seen := 0
	for _, g := range answer.Data.Groups {
		for _, r := range g.Rules {
			seen++
			if r.Health != "ok" {
				l.t.Errorf("Prometheus on %s: %s %s", r.Name, r.Health, r.LastError)
			}
		}
	}
	if seen != len(l.rules) {
		l.t.Errorf("Prometheus has %d rules of %d", seen, len(l.rules))
	}
}
