package main

import (
	"io"
	"strings"
	"text/tabwriter"
	"time"

	"example.com/unrestrict-worker/internal/admin"
	"example.com/unrestrict-worker/internal/remediation"
)

// table is rows under a heading, in columns.
type table struct{ lines []string }

func newTable(heading ...string) *table {
	t := &table{}
	t.row(heading...)
	return t
}

func (t *table) row(cells ...string) {
	for i, c := range cells {
		cells[i] = plain(c)
	}
	t.lines = append(t.lines, strings.Join(cells, "\t"))
}

func (t *table) write(out io.Writer) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	if _, err := io.WriteString(w, strings.Join(t.lines, "\n")+"\n"); err != nil {
		return err
	}
	return w.Flush()
}

// plain is foreign text as it may stand on a terminal, on one line: it can neither move the cursor nor pass for what it
// is not.
func plain(s string) string {
	return admin.Printable(strings.Map(func(r rune) rune {
		if r == '\n' || r == '\r' || r == '\t' {
			return ' '
		}
		return r
	}, s))
}

// plainLines is plain for text whose lines are its own.
func plainLines(s string) string {
	lines := strings.Split(s, "\n")
	for i, line := range lines {
		lines[i] = plain(line)
	}
	return strings.Join(lines, "\n")
}

// resultLine is a result for people, on one line.
func resultLine(at time.Time, r remediation.Result) string {
	parts := []string{clock(at), plain(claiming(r.RequestID, r.ClaimedID)), plain(r.Outcome)}
	if r.MachineID != "" {
		parts = append(parts, "machine "+plain(r.MachineID))
	}
	if r.Adopted {
		parts = append(parts, "(action was under way)")
	}
	if f := whyEnded(r); f != nil {
		parts = append(parts, plain(f.Code+": "+f.Message))
	}
	return strings.Join(parts, "  ")
}
