// Package deploy holds what is in deploy against the program and itself, as far as reading it goes. The shell scripts
// beside it run it ("make deploy-test").
package deploy

import (
	"bytes"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/goccy/go-yaml"
	"github.com/google/go-cmp/cmp"
	"github.com/santhosh-tekuri/jsonschema/v6"
)

//go:generate go test . -run "TestChartReadme|TestChartAlerts" -update

var update = flag.Bool("update", false, "write generated files anew")

const (
	repository = "../.."
	chart      = repository + "/deploy/helm/unrestrict-worker"
)

func read(t *testing.T, path string) []byte {
	t.Helper()
	content, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return content
}

// isWritten holds a generated file against what it should be; -update writes it.
func isWritten(t *testing.T, path string, want []byte) {
	t.Helper()
	if *update {
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, want, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if diff := cmp.Diff(string(want), string(read(t, path))); diff != "" {
		t.Errorf("%s is not up to date (make generate):\n%s", path, diff)
	}
}

// TestChartAlerts: a chart can only load files of its own, so that it has a copy of the alert rules.
func TestChartAlerts(t *testing.T) {
	rules, err := os.ReadFile(repository + "/deploy/monitoring/alerts.yaml")
	copied := chart + "/files/alerts.yaml"
	if errors.Is(err, fs.ErrNotExist) {
		if _, err := os.Stat(copied); err == nil {
			t.Errorf("%s is a copy of rules that are gone", copied)
		}
		return
	}
	if err != nil {
		t.Fatal(err)
	}
	isWritten(t, copied, rules)
}

// values are the chart's values with those of a file in its folder over them.
func values(t *testing.T, file string) map[string]any {
	t.Helper()
	merged := map[string]any{}
	for _, name := range []string{"values.yaml", file} {
		var layer map[string]any
		if err := yaml.Unmarshal(read(t, filepath.Join(chart, name)), &layer); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		overlay(merged, layer)
	}
	return merged
}

func overlay(under, over map[string]any) {
	for key, value := range over {
		below, isMap := under[key].(map[string]any)
		if above, both := value.(map[string]any); isMap && both {
			overlay(below, above)
		} else {
			under[key] = value
		}
	}
}

func schema(t *testing.T) (*jsonschema.Schema, map[string]any) {
	t.Helper()
	raw, err := jsonschema.UnmarshalJSON(bytes.NewReader(read(t, chart+"/values.schema.json")))
	if err != nil {
		t.Fatal(err)
	}
	c := jsonschema.NewCompiler()
	if err := c.AddResource("values.schema.json", raw); err != nil {
		t.Fatal(err)
	}
	compiled, err := c.Compile("values.schema.json")
	if err != nil {
		t.Fatal(err)
	}
	return compiled, raw.(map[string]any)
}

func invalid(t *testing.T, s *jsonschema.Schema, v map[string]any) error {
	t.Helper()
	text, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	instance, err := jsonschema.UnmarshalJSON(bytes.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	return s.Validate(instance)
}

func TestChartValuesFitTheirSchema(t *testing.T) {
	s, _ := schema(t)
	examples, err := filepath.Glob(chart + "/ci/*-values.yaml")
	if err != nil || len(examples) == 0 {
		t.Fatalf("no examples of values: %v", err)
	}
	tenants, err := filepath.Glob(repository + "/deploy/helm/tenants/*.yaml")
	if err != nil || len(tenants) < 3 {
		t.Fatalf("values of tenants: %v, %v", tenants, err)
	}
	for _, path := range append(append(examples, tenants...), chart+"/values.yaml") {
		name, err := filepath.Rel(chart, path)
		if err != nil {
			t.Fatal(err)
		}
		if err := invalid(t, s, values(t, name)); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestChartRefusesMistakes(t *testing.T) {
	s, _ := schema(t)
	for _, mistake := range []string{
		"nats: {urls: 'nats://nats:4222'}",
		"nats: {url: ''}",
		"nats: {url: 'nats://worker:secret@nats:4222'}",
		"nats: {url: 'nats:4222'}",
		"replicaCount: 4",
		"keda: {maxReplicaCount: 10}",
		"config: {WORKER_ADMIN_TOKEN: secret}",
		"config: {NATS_PASSWORD: secret}",
		"config: {WORKER_SHUTDOWN_TIMEOUT: 5m}",
		"config: {WORKER_REPLICAS: 3}",
		"resources: {limits: {memory: 256M}}",
		"admin: {port: 80}",
		"image: {digest: latest}",
		"replicas: 2",
		"intake: {url: 'http://releases.contoso.com'}",
		"intake: {nats: {url: 'nats://nats:4222'}}",
		"intake: {port: 443}",
	} {
		wrong := values(t, "values.yaml")
		var layer map[string]any
		if err := yaml.Unmarshal([]byte(mistake), &layer); err != nil {
			t.Fatal(err)
		}
		overlay(wrong, layer)
		if invalid(t, s, wrong) == nil {
			t.Errorf("taken: %s", mistake)
		}
	}
}

// TestChartSchemaKnowsWhatValuesHave, and the other way round: a key that only one of them has is a typo or undocumented.
func TestChartSchemaKnowsWhatValuesHave(t *testing.T) {
	_, raw := schema(t)
	var declared []string
	properties("", raw, &declared)
	var documented []string
	for _, v := range described(t) {
		documented = append(documented, v.key)
	}
	for _, key := range declared {
		if key != "global" && key != "resources.limits.cpu" && !slices.Contains(documented, key) {
			t.Errorf("values.yaml doesn't document %s", key)
		}
	}
	for _, key := range documented {
		if !slices.Contains(declared, key) {
			t.Errorf("values.schema.json doesn't know %s", key)
		}
	}
}

func properties(prefix string, node map[string]any, leaves *[]string) {
	inner, isObject := node["properties"].(map[string]any)
	if !isObject {
		*leaves = append(*leaves, strings.TrimPrefix(prefix, "."))
		return
	}
	for name, below := range inner {
		properties(prefix+"."+name, below.(map[string]any), leaves)
	}
}

// described are the keys of values.yaml with a comment that begins with --, in order.
func described(t *testing.T) (all []struct{ key, text string }) {
	t.Helper()
	var path []string
	var text string
	for line := range strings.Lines(string(read(t, chart+"/values.yaml"))) {
		bare := strings.TrimSpace(line)
		comment, isComment := strings.CutPrefix(bare, "#")
		switch comment = strings.TrimSpace(comment); {
		case isComment && strings.HasPrefix(comment, "--"):
			text = strings.TrimSpace(comment[2:])
		case isComment && text != "":
			text += " " + comment
		case isComment || bare == "":
		default:
			name, _, isKey := strings.Cut(bare, ":")
			depth := (len(line) - len(strings.TrimLeft(line, " "))) / 2
			if text == "" && (strings.HasPrefix(bare, "-") || depth > len(path)) {
				continue // inside a value
			}
			if !isKey || depth > len(path) {
				t.Fatalf("values.yaml: %q is not read here", line)
			}
			path = append(path[:depth], name)
			if text != "" {
				all = append(all, struct{ key, text string }{strings.Join(path, "."), text})
			}
			text = ""
		}
	}
	return all
}

// TestChartReadme makes the chart's README of README.head.md and a table of the values.
func TestChartReadme(t *testing.T) {
	var b bytes.Buffer
	b.WriteString("<!-- Generated from README.head.md and values.yaml by \"make generate\"; changes here are overwritten. -->\n")
	b.Write(read(t, chart+"/README.head.md"))
	b.WriteString("\n## Values\n\n| value | default | meaning |\n|---|---|---|\n")
	all := values(t, "values.yaml")
	for _, v := range described(t) {
		var value any = all
		for name := range strings.SplitSeq(v.key, ".") {
			value = value.(map[string]any)[name]
		}
		fallback, err := yaml.MarshalWithOptions(value, yaml.Flow(true))
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(&b, "| `%s` | `%s` | %s |\n", v.key, strings.TrimSpace(string(fallback)), v.text)
	}
	isWritten(t, chart+"/README.md", b.Bytes())
}
