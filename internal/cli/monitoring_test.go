package cli

import (
	"encoding/json"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/goccy/go-yaml"
)

// rule is an alert, or a recording rule, of deploy/monitoring/alerts.yaml.
type rule struct {
	Record, Alert, Expr, For string
	Labels, Annotations      map[string]string
}

func (r rule) name() string { return r.Record + r.Alert }

func monitoringFile(t *testing.T, name string) []byte {
	t.Helper()
	content, err := os.ReadFile(filepath.Join(repository, "deploy", "monitoring", name))
	if err != nil {
		t.Fatal(err)
	}
	return content
}

func alertRules(t *testing.T) (rules []rule) {
	t.Helper()
	var file struct{ Groups []struct{ Rules []rule } }
	if err := yaml.UnmarshalWithOptions(monitoringFile(t, "alerts.yaml"), &file); err != nil {
		t.Fatal(err)
	}
	for _, g := range file.Groups {
		rules = append(rules, g.Rules...)
	}
	if len(rules) < 10 {
		t.Fatalf("only %d rules", len(rules))
	}
	return rules
}

// panel is one panel of deploy/monitoring/dashboard.json.
type panel struct {
	ID          int
	Type, Title string
	GridPos     struct{ H, W, X, Y int }
	Targets     []struct {
		Expr       string
		Datasource struct{ UID string }
	}
}

func dashboard(t *testing.T) (panels []panel) {
	t.Helper()
	var file struct{ Panels []panel }
	if err := json.Unmarshal(monitoringFile(t, "dashboard.json"), &file); err != nil {
		t.Fatal(err)
	}
	if len(file.Panels) < 10 {
		t.Fatalf("only %d panels", len(file.Panels))
	}
	return file.Panels
}

// selector is what one series selector asks for.
type selector struct {
	text, metric string
	matchers     [][]string // of each: the whole, label, operator, value
}

var (
	grouping  = regexp.MustCompile(`\b(?:by|without|on|ignoring|group_left|group_right)\s*\(([^)]*)\)`)
	span      = regexp.MustCompile(`\[[^\]]*\]`)
	named     = regexp.MustCompile(`\b([a-zA-Z_:][\w:]*)(\{[^}]*\})?\s*(\(?)`)
	matcher   = regexp.MustCompile(`(\w+)\s*(=~|!~|!=|=)\s*"([^"]*)"`)
	labelName = regexp.MustCompile(`\w+`)
)

// selectors reads an expression as far as these files need it: its series selectors, and the labels that it groups by.
func selectors(expr string) (found []selector, groupedBy []string) {
	for _, m := range grouping.FindAllStringSubmatch(expr, -1) {
		groupedBy = append(groupedBy, labelName.FindAllString(m[1], -1)...)
	}
	for _, m := range named.FindAllStringSubmatch(span.ReplaceAllString(grouping.ReplaceAllString(expr, ""), ""), -1) {
		if m[3] == "(" || slices.Contains([]string{"and", "or", "unless", "bool", "offset"}, m[1]) {
			continue
		}
		found = append(found, selector{text: m[1] + m[2], metric: m[1], matchers: matcher.FindAllStringSubmatch(m[2], -1)})
	}
	return found, groupedBy
}

// series are the names of what is scraped, with the values of each label.
type series map[string]map[string][]string

// seriesOf asks a worker for its metrics.
func seriesOf(t *testing.T, addr string) series {
	t.Helper()
	found := series{}
	for line := range strings.Lines(scrape(t, addr)) {
		if strings.HasPrefix(line, "#") {
			continue
		}
		name := line[:strings.IndexAny(line, "{ ")]
		if found[name] == nil {
			found[name] = map[string][]string{}
		}
		for _, m := range matcher.FindAllStringSubmatch(line, -1) {
			found[name][m[1]] = append(found[name][m[1]], m[3])
		}
	}
	return found
}

// TestMonitoringNames holds the alerts and the dashboard against what a worker that has done some work reports: each
// metric, each label, and each value that is asked for by name.
func TestMonitoringNames(t *testing.T) {
	t.Parallel()
	demo := start(t, terminal(t.TempDir()), []string{"worker", "demo", "--stay"}, false)
	var addr string
	demo.until(t, func(line string) bool {
		if page, found := strings.CutPrefix(line, "Status page: http://"); found {
			addr = strings.TrimSuffix(page, "/")
		}
		return strings.HasPrefix(line, "Everything keeps running")
	})
	have := seriesOf(t, addr)
	for name, labels := range seriesOf(t, intakeAtWork(t).addr) {
		if strings.HasPrefix(name, "unrestrict_intake_") {
			have[name] = labels
		}
	}
	http.DefaultClient.CloseIdleConnections()
	demo.stop(t)
	own := slices.Collect(func(yield func(string) bool) {
		for name := range have {
			if strings.HasPrefix(name, "unrestrict_") && !yield(name) {
				return
			}
		}
	})
	if len(own) < 15 {
		t.Fatalf("scraped only %q", own)
	}
	have["up"], have["ALERTS"] = map[string][]string{}, map[string][]string{"alertname": nil, "alertstate": nil} // Prometheus's own
	for _, r := range alertRules(t) {
		if r.Record != "" {
			have[r.Record] = map[string][]string{}
		}
	}
	runbook := pages(t)["docs/runbook.md"]

	shown := map[string]bool{}
	for _, p := range dashboard(t) {
		for _, target := range p.Targets {
			have.knows(t, "panel "+p.Title, target.Expr, runbook)
			names, _ := selectors(target.Expr)
			for _, s := range names {
				shown[s.metric] = true
			}
		}
	}
	for _, r := range alertRules(t) {
		have.knows(t, r.name(), r.Expr, runbook)
	}
	for _, name := range own {
		base := regexp.MustCompile(`_(bucket|sum|count)$`).ReplaceAllString(name, "")
		if !shown[name] && !shown[base+"_bucket"] {
			t.Errorf("no panel shows %s", name)
		}
	}
}

// knows reports what an expression asks for and nobody has.
func (have series) knows(t *testing.T, where, expr, runbook string) {
	t.Helper()
	labels := []string{"namespace", "job", "instance", "tenant"} // of the target, and WORKER_TENANT
	names, groupedBy := selectors(expr)
	if len(names) == 0 {
		t.Errorf("%s: no metric in %s", where, expr)
	}
	for _, s := range names {
		of, found := have[s.metric]
		if !found {
			t.Errorf("%s: no worker has %s", where, s.metric)
			continue
		}
		for label := range of {
			labels = append(labels, label)
		}
		for _, m := range s.matchers {
			label, op, value := m[1], m[2], m[3]
			values, found := of[label]
			switch {
			case slices.Contains(labels[:4], label) || label == "alertname" || label == "alertstate":
				continue
			case !found:
				t.Errorf("%s: %s has no label %s", where, s.metric, label)
				continue
			case label == "code" || strings.ContainsAny(value, ".+[("): // of the API's making, or a pattern
				continue
			}
			for v := range strings.SplitSeq(value, "|") {
				if !slices.Contains(values, v) && !strings.Contains(runbook, "| `"+v+"` |") {
					t.Errorf("%s: neither a worker nor the runbook knows %s%s%q", where, label, op, v)
				}
			}
		}
	}
	for _, label := range groupedBy {
		if !slices.Contains(labels, label) {
			t.Errorf("%s: groups by %s, which nothing in it has", where, label)
		}
	}
}

// TestAlertsAreExplained: who gets an alert learns how urgent it is, what it means, and where the runbook deals with it.
func TestAlertsAreExplained(t *testing.T) {
	headings := anchors(pages(t)["docs/runbook.md"])
	for _, r := range alertRules(t) {
		if r.Record != "" {
			continue
		}
		if s := r.Labels["severity"]; s != "critical" && s != "warning" {
			t.Errorf("%s: severity %q", r.Alert, s)
		}
		for _, name := range []string{"summary", "description"} {
			if r.Annotations[name] == "" {
				t.Errorf("%s has no %s", r.Alert, name)
			}
		}
		page, anchor, _ := strings.Cut(r.Annotations["runbook_url"], "#")
		if page != "https://example.com/unrestrict-worker/docs/runbook.md" || anchor != strings.ToLower(r.Alert) || !slices.Contains(headings, anchor) {
			t.Errorf("%s: the runbook has no section of its own at %s", r.Alert, r.Annotations["runbook_url"])
		}
	}
}

// TestAlertsAreTested: alerts_test.yaml has each fire at some time, and be silent at another.
func TestAlertsAreTested(t *testing.T) {
	var file struct {
		Tests []struct {
			Checks []struct {
				Alert    string           `yaml:"alertname"`
				Expected []map[string]any `yaml:"exp_alerts"`
			} `yaml:"alert_rule_test"`
		}
	}
	if err := yaml.Unmarshal(monitoringFile(t, "alerts_test.yaml"), &file); err != nil {
		t.Fatal(err)
	}
	fires, silent := map[string]bool{}, map[string]bool{}
	for _, test := range file.Tests {
		for _, c := range test.Checks {
			if len(c.Expected) > 0 {
				fires[c.Alert] = true
			} else {
				silent[c.Alert] = true
			}
		}
	}
	for _, r := range alertRules(t) {
		if r.Alert != "" && (!fires[r.Alert] || !silent[r.Alert]) {
			t.Errorf("%s: tested to fire: %v, to be silent: %v", r.Alert, fires[r.Alert], silent[r.Alert])
		}
	}
}

// TestDashboardIsWhole: what Grafana would draw wrong without a word.
func TestDashboardIsWhole(t *testing.T) {
	taken, ids := map[[2]int]string{}, map[int]bool{}
	for _, p := range dashboard(t) {
		if ids[p.ID] || p.ID == 0 {
			t.Errorf("%s: id %d is another panel's", p.Title, p.ID)
		}
		ids[p.ID] = true
		if p.Type != "row" && len(p.Targets) == 0 {
			t.Errorf("%s shows nothing", p.Title)
		}
		for _, target := range p.Targets {
			if target.Datasource.UID != "${datasource}" {
				t.Errorf("%s: data source %q is not the one that is chosen", p.Title, target.Datasource.UID)
			}
		}
		g := p.GridPos
		for x := g.X; x < g.X+g.W; x++ {
			for y := g.Y; y < g.Y+g.H; y++ {
				if other := taken[[2]int{x, y}]; other != "" || x >= 24 {
					t.Fatalf("%s lies over %q or the edge", p.Title, other)
				}
				taken[[2]int{x, y}] = p.Title
			}
		}
	}
}
