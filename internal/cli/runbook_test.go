package cli

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"example.com/unrestrict-worker/internal/health"
)

const runbookPath = "../../docs/runbook.md"

// TestRunbookConditions holds the runbook's tables against the conditions that there are; -update writes them.
func TestRunbookConditions(t *testing.T) {
	page, err := os.ReadFile(runbookPath)
	if err != nil {
		t.Fatal(err)
	}
	want := string(page)
	for _, kind := range []string{"stop", "impair"} {
		var table strings.Builder
		table.WriteString("| code | what it means | what to do | it ends |\n|---|---|---|---|\n")
		for _, row := range health.Table() {
			if row.Stops == (kind == "stop") {
				fmt.Fprintf(&table, "| `%s` | %s | %s | %s |\n", row.Code, row.Means, row.Remedy, row.Ends)
			}
		}
		_, rest, found := strings.Cut(want, "<!-- conditions that "+kind+", from internal/health/table.go by \"make generate\" -->\n")
		_, tail, ends := strings.Cut(rest, "<!-- end -->\n")
		if !found || !ends {
			t.Fatalf("the runbook has no place for the conditions that %s", kind)
		}
		want = want[:len(want)-len(rest)] + table.String() + "<!-- end -->\n" + tail
	}
	if *update {
		if err := os.WriteFile(runbookPath, []byte(want), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	if diff := cmp.Diff(want, string(page)); diff != "" {
		t.Errorf("docs/runbook.md is not what the conditions say (make generate):\n%s", diff)
	}
}
