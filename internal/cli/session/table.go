package session

import (
	"io"
	"strings"
	"text/tabwriter"
	"time"

	"example.com/unrestrict-worker/internal/admin"
	"example.com/unrestrict-worker/internal/message"
	"example.com/unrestrict-worker/internal/service"
)

// Table is rows under a heading, in columns.
type Table struct{ lines []string }

// NewTable returns a table with a heading.
func NewTable(heading ...string) *Table {
	t := &Table{}
	t.Row(heading...)
	return t
}

// Row adds a row.
func (t *Table) Row(cells ...string) {
	for i, c := range cells {
		cells[i] = Plain(c)
	}
	t.lines = append(t.lines, strings.Join(cells, "\t"))
}

// Write writes the table with aligned columns.
func (t *Table) Write(out io.Writer) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	if _, err := io.WriteString(w, strings.Join(t.lines, "\n")+"\n"); err != nil {
		return err
	}
	return w.Flush()
}

// Plain makes text from outside safe for one line of a terminal: it can neither move the cursor nor look like something else.
func Plain(s string) string {
	return admin.Printable(strings.Map(func(r rune) rune {
		if r == '\n' || r == '\r' || r == '\t' {
			return ' '
		}
		return r
	}, s))
}

// PlainLines is Plain for text of several lines.
func PlainLines(s string) string {
	lines := strings.Split(s, "\n")
	for i, line := range lines {
		lines[i] = Plain(line)
	}
	return strings.Join(lines, "\n")
}

// ResultLine is a result for people, on one line.
func ResultLine(at time.Time, r message.Result) string {
	parts := []string{admin.Clock(at), Plain(Claiming(r.RequestID, r.ClaimedID)), Plain(r.Outcome)}
	if r.MachineID != "" {
		parts = append(parts, "machine "+Plain(r.MachineID))
	}
	if r.Lane != message.LaneNormal && r.Lane != "" {
		parts = append(parts, string(r.Lane))
	}
	if r.Adopted {
		parts = append(parts, "(action was under way)")
	}
	if f := service.WhyEnded(r); f != nil {
		parts = append(parts, Plain(f.Code+": "+f.Message))
	}
	return strings.Join(parts, "  ")
}
