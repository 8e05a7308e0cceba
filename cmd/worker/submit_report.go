package main

import (
	"encoding/csv"
	"fmt"
	"io"
	"os"
	"strconv"
	"time"

	"example.com/unrestrict-worker/internal/remediation"
)

// shownFailures is how many failed rows the table at the end has; a report has all.
const shownFailures = 100

// outcomes in the order of the tables.
func outcomes() []string {
	return []string{
		remediation.Succeeded, remediation.Submitted, remediation.DryRun, remediation.Failed, remediation.TimedOut,
		remediation.Cancelled, remediation.Rejected, remediation.Abandoned,
	}
}

// writeSummary writes counts by outcome and the rows that failed.
func writeSummary(out io.Writer, fates []*fate) error {
	counts, failed, unfinished := map[string]int{}, []*fate(nil), 0
	for _, f := range fates {
		switch {
		case !f.final:
			unfinished++
			continue
		case !f.succeeded():
			failed = append(failed, f)
		}
		counts[f.outcome]++
	}
	t := newTable("OUTCOME", "ROWS")
	for _, outcome := range outcomes() {
		if n := counts[outcome]; n > 0 {
			t.row(outcome, strconv.Itoa(n))
		}
	}
	if unfinished > 0 {
		t.row("not final yet", strconv.Itoa(unfinished))
	}
	if err := t.write(out); err != nil || len(failed) == 0 {
		return err
	}
	t = newTable("LINE", "ID", "MACHINE", "OUTCOME", "WHY")
	for _, f := range failed[:min(len(failed), shownFailures)] {
		why := f.code
		if f.message != "" {
			why += ": " + f.message
		}
		t.row(strconv.Itoa(f.line), f.id, f.machine, f.outcome, why)
	}
	fmt.Fprintln(out)
	if err := t.write(out); err != nil {
		return err
	}
	if n := len(failed) - shownFailures; n > 0 {
		fmt.Fprintf(out, "and %d more; --report FILE has all\n", n)
	}
	return nil
}

// report is the file that --report names; a nil one is none.
type report struct{ file *os.File }

// openReport sees to it, before anything is published, that the file can be written. What is in it stays until then.
func openReport(path string) (*report, error) {
	if path == "" {
		return nil, nil
	}
	f, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, badInput("--report: %w", err)
	}
	return &report{f}, nil
}

// write puts every row into the file, with what is known of it by now, and closes it.
func (r *report) write(fates []*fate) error {
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
	for _, f := range fates {
		rows = append(rows, f.record())
	}
	if err := w.WriteAll(rows); err != nil {
		return fmt.Errorf("--report: %w", err)
	}
	return r.file.Close()
}

func (f *fate) record() []string {
	run, message := "", f.message
	if f.run > 0 {
		run = strconv.Itoa(f.run)
	}
	if f.seq == 0 && f.told == 0 {
		message = "not published"
	}
	return []string{
		strconv.Itoa(f.line), f.id, f.machine, f.outcome, strconv.FormatBool(f.final), f.code, message, f.action, run,
		reportTime(f.received), reportTime(f.finished), f.ticket, f.metadata,
	}
}

func reportTime(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return t.UTC().Format(time.RFC3339)
}
