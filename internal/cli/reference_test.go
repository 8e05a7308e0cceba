package cli

import (
	"fmt"
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"example.com/unrestrict-worker/internal/cli/session"
	"example.com/unrestrict-worker/internal/config"
	"example.com/unrestrict-worker/internal/defender"
)

//go:generate go test . -run "TestReference|TestRunbookConditions|TestScripts|TestSimulatorPage|TestMetricsAfterEveryOutcome|TestMetricsOfIntake" -update

const referencePath = "../../docs/configuration.md"

// TestReference holds docs/configuration.md against the declared settings;
// -update writes it.
func TestReference(t *testing.T) {
	want := reference()
	if *update {
		if err := os.WriteFile(referencePath, []byte(want), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	got, err := os.ReadFile(referencePath)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, string(got)); diff != "" {
		t.Errorf("docs/configuration.md is not what the settings say (make generate):\n%s", diff)
	}
}

const referenceHead = `<!-- Generated from internal/config/settings.go by "make generate"; changes here are overwritten. -->
# Configuration

Every setting is a flag, an environment variable and a key in the YAML file that ` + "`--config FILE`" + ` names; secrets have
no flag.
The flag comes before the variable, the variable before the file, the file before the context of the nats command that
` + "`NATS_CONTEXT`" + ` names, that before the default.
An empty variable or key counts as not given. A variable in NAME_LIKE_THIS without ` + "`WORKER_`" + ` is the flag
in kebab-case and the key in snake_case:

    worker run --rate-per-hour=700          # a flag
    WORKER_RATE_PER_HOUR=700 worker run     # the environment
    rate_per_hour: 700                      # a line of worker.yaml, for worker run --config worker.yaml

Every mistake is listed at once, with exit status 2, and nothing is started. Unknown and repeated keys in the file are
mistakes too, and so is a variable that is one of these but for a slip: a letter more, less or other, or two swapped.
Other variables that begin with ` + "`WORKER_` or `DEFENDER_`" + ` and are not here are warned of, those aside that Kubernetes
injects for a Service. Each command reads and checks only the settings that its ` + "`--help`" + ` names.

A duration is a number with its unit: ` + "`500ms`, `30s`, `5m`, `24h`" + `.
Secrets have no flag, since other people on the machine can read a command line. Each can be put into a file instead,
named by the variable that ends in ` + "`_FILE`" + `; setting both is a mistake.
`

// referenceSignIn is about variables of the Azure SDK, which the program reads without declaring them.
func referenceSignIn(ways []string) string {
	var b strings.Builder
	b.WriteString("\n### Signing in at Entra ID\n\n| `DEFENDER_AUTH` | takes |\n|---|---|\n")
	for _, way := range ways {
		fmt.Fprintf(&b, "| `%s` | %s |\n", way, regexp.MustCompile(`\b[A-Z]+_[A-Z_]+|_FILE|az login`).ReplaceAllString(defender.SignsInWith(way), "`$0`"))
	}
	b.WriteString("\n`AZURE_AUTHORITY_HOST` goes before the authority of `DEFENDER_CLOUD`.\n")
	return b.String()
}

// referenceTraces is about variables of OpenTelemetry's SDK, which the program does not declare.
const referenceTraces = `
## Traces

OpenTelemetry's variables, for ` + "`worker run`" + `, as its
[specification](https://opentelemetry.io/docs/specs/otel/configuration/sdk-environment-variables/) has them; they have
no flag and no key. [observability.md](observability.md#traces) says what is traced.

| variable | default | meaning |
|---|---|---|
| ` + "`OTEL_EXPORTER_OTLP_ENDPOINT`, `OTEL_EXPORTER_OTLP_TRACES_ENDPOINT`" + ` | none: traces are off | The collector's address, ` + "`http://HOST:4318`" + `; the second as it is, with its path. |
| ` + "`OTEL_EXPORTER_OTLP_HEADERS`, `..._TRACES_HEADERS`" + ` | | Headers to send, such as a key: ` + "`NAME=VALUE,NAME=VALUE`" + `. |
| ` + "`OTEL_EXPORTER_OTLP_PROTOCOL`, `..._TRACES_PROTOCOL`" + ` | ` + "`http/protobuf`" + ` | Or ` + "`http/json`" + `. |
| ` + "`OTEL_EXPORTER_OTLP_CERTIFICATE`, `..._CLIENT_CERTIFICATE`, `..._CLIENT_KEY`, `..._COMPRESSION`, `..._TIMEOUT`" + ` | | As the specification says. |
| ` + "`OTEL_SERVICE_NAME`, `OTEL_RESOURCE_ATTRIBUTES`" + ` | ` + "`unrestrict-worker`" + ` | What the spans are of. |
| ` + "`OTEL_TRACES_SAMPLER`, `OTEL_TRACES_SAMPLER_ARG`" + ` | ` + "`parentbased_always_on`" + ` | Which traces are recorded. |
| ` + "`OTEL_BSP_...`, `OTEL_SPAN_...`" + ` | | Batches and limits. |
| ` + "`OTEL_TRACES_EXPORTER`" + ` | ` + "`otlp`" + ` | ` + "`none`" + ` switches traces off. |
| ` + "`OTEL_SDK_DISABLED`" + ` | ` + "`false`" + ` | ` + "`true`" + ` switches traces off. |
`

// TestReferenceSignIn: of each way to sign in it is said what it takes, with every variable that it misses where none is set.
func TestReferenceSignIn(t *testing.T) {
	for _, mode := range waysToSignIn(t) {
		says := defender.SignsInWith(mode)
		if says == "" {
			t.Errorf("%s: it is not said what it takes", mode)
		}
		_, err := defender.NewCredential(defender.CredentialConfig{Mode: mode, Cloud: "commercial", Getenv: func(string) string { return "" }})
		if err == nil {
			continue
		}
		for _, name := range regexp.MustCompile(`\b(?:AZURE|DEFENDER_TOKEN)_[A-Z_]+`).FindAllString(err.Error(), -1) {
			if !strings.Contains(says, name) {
				t.Errorf("%s needs %s, which is not said: %s", mode, name, says)
			}
		}
	}
}

func waysToSignIn(t *testing.T) []string {
	t.Helper()
	for _, s := range config.NewTable().Settings {
		if s.Env == "DEFENDER_AUTH" {
			return s.OneOf
		}
	}
	t.Fatal("DEFENDER_AUTH is no setting")
	return nil
}

func reference() string {
	var b strings.Builder
	b.WriteString(referenceHead)
	group, ways := "", []string(nil)
	for _, s := range config.NewTable().Settings {
		if s.Env == "DEFENDER_AUTH" {
			ways = s.OneOf
		}
		if s.Group != group {
			if group == "defender" {
				b.WriteString(referenceSignIn(ways))
			}
			group = s.Group
			fmt.Fprintf(&b, "\n## %s\n\n", groupOf(s).Title)
			if text := groupOf(s).Description; text != "" {
				b.WriteString(strings.Join(session.Wrap(text, 120), "\n") + "\n\n")
			}
			b.WriteString("| variable | flag | key | default | meaning |\n|---|---|---|---|---|\n")
		}
		flag, fallback := "`--"+s.Flag+"`", s.Fallback()
		if s.Secret {
			flag = "none"
		}
		if s.HasDefault {
			fallback = "`" + fallback + "`"
		}
		help := s.Help
		if list := s.OneOf; list != nil {
			help += " One of `" + strings.Join(list, "`, `") + "`."
		}
		fmt.Fprintf(&b, "| `%s` | %s | `%s` | %s | %s |\n", s.Env, flag, s.Key, fallback, help)
	}
	b.WriteString(referenceTraces)
	return b.String()
}
