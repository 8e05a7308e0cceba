package cli

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"example.com/unrestrict-worker/internal/cli/submit"
	"example.com/unrestrict-worker/internal/message"
)

// TestMeterLines: a line every five seconds while something changes, else every minute.
func TestMeterLines(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out bytes.Buffer
		m := submit.NewMeter(&out, false, "finished", 10)
		defer m.End()
		for second := range 180 {
			done := min(second/4, 3)
			m.Show(done, fmt.Sprintf("succeeded %d", done), "")
			time.Sleep(time.Second)
		}
		want := "finished 1 of 10; 12/min; succeeded 1\nfinished 2 of 10; 12/min; succeeded 2\nfinished 3 of 10; 12/min; succeeded 3\n" +
			"finished 3 of 10; 2/min; succeeded 3\nfinished 3 of 10; 1/min; succeeded 3\n"
		if out.String() != want {
			t.Errorf("got\n%swant\n%s", out.String(), want)
		}
	})
}

func TestMeterIsSilentForAMoment(t *testing.T) {
	var out bytes.Buffer
	m := submit.NewMeter(&out, false, "published", 10)
	m.Show(10)
	m.End()
	var none *submit.Meter
	none.Show(1)
	none.End()
	if out.Len() > 0 {
		t.Errorf("got %q", out.String())
	}
}

// TestMeterBar: what a terminal gets, which is no colour.
func TestMeterBar(t *testing.T) {
	var out bytes.Buffer
	m := submit.NewMeter(&out, true, "finished", 10)
	m.Show(4, "succeeded 3, failed 1", "last call at about Nov 24 18:00")
	m.End()
	for _, want := range []string{"finished 4 of 10 ", "succeeded 3, failed 1; last call"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("no %q in %q", want, out.String())
		}
	}
	if strings.Contains(out.String(), "\x1b[3") || strings.Contains(out.String(), "m\x1b") {
		t.Errorf("colours in %q", out.String())
	}
}

func TestRate(t *testing.T) {
	for want, c := range map[string]struct {
		n  int
		in time.Duration
	}{"1500/s": {3000, 2 * time.Second}, "25/min": {50, 2 * time.Minute}, "1000/s": {1, 0}} {
		if got := submit.Rate(c.n, c.in); got != want {
			t.Errorf("%d in %s: %s, want %s", c.n, c.in, got, want)
		}
	}
}

func TestSummaryOfManyFailures(t *testing.T) {
	var fates []*submit.RowStatus
	for i := range submit.ShownFailures + 3 {
		fates = append(fates, &submit.RowStatus{Line: i + 2, ID: "\x1b[31mid", Machine: MachineOf(i), Outcome: message.Abandoned, Final: true, Code: "gaveUp", Message: "two\nlines"})
	}
	fates = append(fates, &submit.RowStatus{Line: 1000, ID: "open"})
	var out bytes.Buffer
	if err := submit.WriteSummary(&out, fates); err != nil {
		t.Fatal(err)
	}
	text := out.String()
	if !strings.HasPrefix(text, "OUTCOME        ROWS\nabandoned      103\nnot final yet  1\n\nLINE ") || !strings.HasSuffix(text, "\nand 3 more; --report FILE has all\n") ||
		strings.Count(text, "gaveUp: two lines\n") != submit.ShownFailures || strings.Contains(text, "\x1b") {
		t.Errorf("got %s", text)
	}
}

func TestReportThatCannotBeWritten(t *testing.T) {
	dir := t.TempDir()
	path := WriteTestFile(t, "machines.csv", csvOf(1))
	status, _, stderr := command(t, nil, "submit", "--file", path, "--wait", "--report", filepath.Join(dir, "none", "report.csv"))
	if status != 2 || !strings.Contains(stderr, "--report: ") {
		t.Errorf("exit status %d, %s", status, stderr)
	}
	// What is in the file stays until there is something to write.
	report := filepath.Join(dir, "report.csv")
	if err := os.WriteFile(report, []byte("the last report, which is longer than the next\n"+strings.Repeat("x\n", 1000)), 0o600); err != nil {
		t.Fatal(err)
	}
	r, err := submit.OpenReport(report)
	if err != nil {
		t.Fatal(err)
	}
	if content, err := os.ReadFile(report); err != nil || !strings.HasPrefix(string(content), "the last report") {
		t.Errorf("%q, %v", content, err)
	}
	if err := r.Write([]*submit.RowStatus{{Line: 2, ID: "a", Machine: "m"}}); err != nil {
		t.Fatal(err)
	}
	want := "line,id,machineId,outcome,final,code,message,actionId,run,receivedAt,finishedAt,ticket,metadata\n2,a,m,,false,,not published,,,,,,\n"
	if content, err := os.ReadFile(report); err != nil || string(content) != want {
		t.Errorf("%q, %v", content, err)
	}
}
