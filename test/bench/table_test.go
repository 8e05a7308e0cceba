// Package bench_test measures the program from outside, beside a loop that somebody writes by hand in an afternoon.
package bench_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"text/tabwriter"
)

// BenchmarkTable prints one table. The numbers in brackets are what is aimed at. BENCH_ONLY=calls, process, recovery, memory, load
// or intake measures that part alone.
func BenchmarkTable(b *testing.B) {
	t := &table{bin: filepath.Join(b.TempDir(), "worker"), lines: []string{"WHAT\tWORKER\tLOOP\tNOTE"}}
	build := exec.CommandContext(b.Context(), "go", "build", "-trimpath", "-ldflags", "-s -w", "-o", t.bin, "example.com/unrestrict-worker/cmd/worker")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		b.Fatalf("%v: %s", err, out)
	}
	for _, m := range []struct {
		name    string
		measure func(*testing.B, *table)
	}{{"calls", calls}, {"process", process}, {"recovery", recovery}, {"memory", memory}, {"load", load}, {"intake", intake}} {
		if only := os.Getenv("BENCH_ONLY"); only == "" || only == m.name {
			m.measure(b, t)
		}
	}
	out := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', 0)
	fmt.Fprintln(out, "\n"+strings.Join(t.lines, "\n"))
	if err := out.Flush(); err != nil {
		b.Fatal(err)
	}
}

// table is rows of a number of the worker's and the loop's.
type table struct {
	bin   string // the program
	lines []string
}

func (t *table) row(what string, worker, loop float64, note string) {
	number := func(n float64) string {
		switch {
		case n < 0:
			return "-"
		case n >= 100:
			return fmt.Sprintf("%.0f", n)
		}
		return fmt.Sprintf("%.2f", n)
	}
	t.lines = append(t.lines, what+"\t"+number(worker)+"\t"+number(loop)+"\t"+note)
}

// none stands for a missing number.
const none = -1
