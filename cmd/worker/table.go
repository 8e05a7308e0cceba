package main

import (
	"io"
	"strings"
	"text/tabwriter"
	"time"

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

// plain keeps what others wrote from moving the cursor or colouring the terminal.
func plain(s string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || r >= 0x7f && r < 0xa0 {
			return ' '
		}
		return r
	}, s)
}

// resultLine is a result for people, on one line.
func resultLine(at time.Time, r remediation.Result) string {
	parts := []string{at.Local().Format("15:04:05"), plain(r.RequestID), r.Outcome}
	if r.MachineID != "" {
		parts = append(parts, "machine "+r.MachineID)
	}
	if r.Adopted {
		parts = append(parts, "(action was under way)")
	}
	if r.Error != nil {
		parts = append(parts, plain(r.Error.Code+": "+r.Error.Message))
	}
	return strings.Join(parts, "  ")
}
