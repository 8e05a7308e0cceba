package cli

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"example.com/unrestrict-worker/internal/defender/defendersim"
)

const simulatorPage = "../../docs/simulator.md"

// TestSimulatorPage holds the table of docs/simulator.md against the switches that there are; -update writes it.
func TestSimulatorPage(t *testing.T) {
	page, err := os.ReadFile(simulatorPage)
	if err != nil {
		t.Fatal(err)
	}
	var table strings.Builder
	table.WriteString("| switch | default | meaning |\n|---|---|---|\n")
	for _, one := range defendersim.New(defendersim.Config{AllowUnknownMachines: true}).Settings() {
		value := ""
		if one.Value() != "" {
			value = "`" + one.Value() + "`"
		}
		fmt.Fprintf(&table, "| `%s` | %s | %s |\n", one.Name, value, one.Help)
	}
	before, rest, found := strings.Cut(string(page), "by \"make generate\" -->\n")
	_, after, ends := strings.Cut(rest, "<!-- end -->\n")
	if !found || !ends {
		t.Fatal("docs/simulator.md has no place for the switches")
	}
	want := before + "by \"make generate\" -->\n" + table.String() + "<!-- end -->\n" + after
	if *update {
		if err := os.WriteFile(simulatorPage, []byte(want), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	if diff := cmp.Diff(want, string(page)); diff != "" {
		t.Errorf("docs/simulator.md is not what the switches say (make generate):\n%s", diff)
	}
}
