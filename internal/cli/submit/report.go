package submit

import (
	"encoding/csv"
	"fmt"
	"io"
	"os"
	"strconv"
	"time"

	"example.com/unrestrict-worker/internal/cli/session"
	"example.com/unrestrict-worker/internal/config"
	"example.com/unrestrict-worker/internal/message"
)

// ShownFailures is how many failed rows the table at the end has; a report has all.
const ShownFailures = 100

// Outcomes returns the outcomes in the order of the tables.
func Outcomes() []string {
	return []string{
		message.Succeeded, message.Submitted, message.DryRun, message.Failed, message.TimedOut,
		message.Cancelled, message.Rejected, message.Abandoned,
	}
}

// WriteSummary writes counts by outcome and the rows that failed.
func WriteSummary(out io.Writer, statuses []*RowStatus) error {
	counts, failed, unfinished := map[string]int{}, []*RowStatus(nil), 0
	for _, f := range statuses {
		switch {
		case !f.Final:
			unfinished++
			continue
		case !f.succeeded():
			failed = append(failed, f)
		}
		counts[f.Outcome]++
	}
	t := session.NewTable("OUTCOME", "ROWS")
	for _, outcome := range Outcomes() {
		if n := counts[outcome]; n > 0 {
			t.Row(outcome, strconv.Itoa(n))
		}
	}
	if unfinished > 0 {
		t.Row("not final yet", strconv.Itoa(unfinished))
	}
	if err := t.Write(out); err != nil || len(failed) == 0 {
		return err
	}
	t = session.NewTable("LINE", "ID", "MACHINE", "OUTCOME", "WHY")
	for _, f := range failed[:min(len(failed), ShownFailures)] {
		why := f.Code
		if f.Message != "" {
			why += ": " + f.Message
		}
		t.Row(strconv.Itoa(f.Line), f.ID, f.Machine, f.Outcome, why)
	}
	fmt.Fprintln(out)
	if err := t.Write(out); err != nil {
		return err
	}
	if n := len(failed) - ShownFailures; n > 0 {
		fmt.Fprintf(out, "and %d more; --report FILE has all\n", n)
	}
	return nil
}

// ReportFile is the file that --report names; nil: there is none.
type ReportFile struct{ file *os.File }

// OpenReport makes sure, before anything is published, that the file can be written. Its old content stays until Write.
func OpenReport(path string) (*ReportFile, error) {
	if path == "" {
		return nil, nil
	}
	f, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, config.BadInput("--report: %w", err)
	}
	return &ReportFile{f}, nil
}

// Write puts every row into the file, with what is known of it by now, and closes it.
func (r *ReportFile) Write(statuses []*RowStatus) error {
	if r == nil {
		return nil
	}
	defer r.file.Close()
	if info, err := r.file.Stat(); err == nil && info.Mode().IsRegular() {
		if err := r.file.Truncate(0); err != nil {
			return fmt.Errorf("--report: %w", err)
		}
	}
	w := csv.NewWriter(r.file)
	rows := [][]string{{"line", "id", "machineId", "outcome", "final", "code", "message", "actionId", "run", "receivedAt", "finishedAt", "ticket", "metadata"}}
	for _, f := range statuses {
		rows = append(rows, f.record())
	}
	if err := w.WriteAll(rows); err != nil {
		return fmt.Errorf("--report: %w", err)
	}
	return r.file.Close()
}

func (f *RowStatus) record() []string {
	run, message := "", f.Message
	if f.run > 0 {
		run = strconv.Itoa(f.run)
	}
	if f.seq == 0 && f.resultSeq == 0 {
		message = "not published"
	}
	return []string{
		strconv.Itoa(f.Line), f.ID, f.Machine, f.Outcome, strconv.FormatBool(f.Final), f.Code, message, f.action, run,
		reportTime(f.received), reportTime(f.finished), f.ticket, f.metadata,
	}
}

func reportTime(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return t.UTC().Format(time.RFC3339)
}
