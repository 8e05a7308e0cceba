package cli

import (
	"strings"
	"testing"
)

// TestMistyped: whoever mistypes a command line is told in plain words what is wrong and what to do, never in the parser's.
func TestMistyped(t *testing.T) {
	for typed, want := range map[string]string{
		"foo":                              `there is no command "foo"`,
		"help foo":                         `there is no command "foo"`,
		"submt":                            `there is no command "submt"; did you mean "submit"?`,
		"deadletter sow":                   `there is no command "sow"; did you mean "show"?`,
		"deadletter":                       `say what to do: one of "list", "show", "replay", "drop"`,
		"status x":                         `"x" is one argument too many; leave it out, or quote a text of several words`,
		"run --concurrency":                "--concurrency: its value is missing; give it as --concurrency=VALUE",
		"results --id --json":              "--id: its value is missing, for --json is a flag; give it as --id=VALUE",
		"results --outcome":                "--outcome: its value is missing; give it as --outcome=VALUE",
		"results --outcome won":            `--outcome: "won" is none of awaitingApproval, submitted, succeeded, failed, timedOut, cancelled, rejected, abandoned, dryRun; give one of these`,
		"deadletter show --seq":            "--seq: its value is missing; give it as --seq=VALUE",
		"deadletter show --seq 1,2":        `--seq: "1,2" is no whole number; give one, such as 5`,
		"submit --file - --canary ten":     `--canary: "ten" is no whole number; give one, such as 5`,
		"demo --stay=perhaps":              `--stay: "perhaps" is neither true nor false; give one of the two`,
		"why":                              "<id> is missing; give it, as in worker why INC-4711-1",
		"batch show":                       "<name> is missing; give it, as in worker batch show monday",
		"schema request2":                  `<document>: "request2" is none of request, result, audit, control, asyncapi, openapi; give one of these`,
		"completion":                       "<shell> is missing; give it, as in source <(worker completion bash)",
		"pause":                            "a flag is missing: --reason=TEXT",
		"simulate --fault x":               `--fault x: invalid character 'x' at start of value; give JSON such as {"op":"unrestrict","status":503,"times":1}`,
		"simulate --fault {\"oop\":\"x\"}": `unknown object member name "oop"; give JSON such as`,
	} {
		status, _, stderr := command(t, nil, strings.Fields(typed)...)
		first, _, _ := strings.Cut(stderr, "\n")
		if status != 2 || !strings.Contains(first, want) || strings.Contains(stderr, "EOL") || strings.Contains(stderr, "jsontext") {
			t.Errorf("worker %s: exit status %d, %s\nwant %s", typed, status, stderr, want)
		}
	}
}
