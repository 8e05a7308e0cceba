package main

import (
	"io"
	"os"
	"strings"
	"unicode/utf8"

	"golang.org/x/term"
)

// screen is how text for people may look where it is written to.
type screen struct {
	out    io.Writer
	width  int // columns
	colour bool
}

// newScreen: colours on a terminal alone, and there unless NO_COLOR says no. [doc] no-color.org
func newScreen(env *Env) screen {
	s := screen{out: env.Stdout, width: columns(env.Stdout)}
	off, _ := env.Lookup("NO_COLOR")
	kind, _ := env.Lookup("TERM")
	s.colour = isTerminal(env.Stdout) && off == "" && kind != "dumb"
	return s
}

// The colours in use, as SGR parameters.
const (
	green  = "32"
	yellow = "33"
	red    = "31"
)

func (s screen) paint(colour, text string) string {
	if !s.colour || text == "" {
		return text
	}
	return "\x1b[" + colour + "m" + text + "\x1b[0m"
}

// field writes a name and a text that is wrapped beside it; colour may be "".
func (s screen) field(name, colour, text string) error {
	const indent = 14
	lines := wrap(plain(text), max(s.width-indent, 20))
	for i, line := range lines {
		lines[i] = s.paint(colour, line)
	}
	label := name + strings.Repeat(" ", max(indent-utf8.RuneCountInString(name), 1))
	_, err := io.WriteString(s.out, label+strings.Join(lines, "\n"+strings.Repeat(" ", indent))+"\n")
	return err
}

// defaultColumns is the width where nobody tells.
const defaultColumns = 80

func columns(out io.Writer) int {
	if file, ok := out.(*os.File); ok {
		if width, _, err := term.GetSize(int(file.Fd())); err == nil && width > 0 {
			return width
		}
	}
	return defaultColumns
}

// isTerminalInput tells whether somebody can answer.
func isTerminalInput(r io.Reader) bool {
	file, ok := r.(*os.File)
	return ok && term.IsTerminal(int(file.Fd()))
}

// wrap breaks text between words; a word that is too long stays whole, so that it can be copied.
func wrap(text string, width int) []string {
	var lines []string
	line := ""
	for word := range strings.FieldsSeq(text) {
		switch {
		case line == "":
			line = word
		case utf8.RuneCountInString(line)+1+utf8.RuneCountInString(word) > width:
			lines, line = append(lines, line), word
		default:
			line += " " + word
		}
	}
	return append(lines, line)
}

// fit is write, with rows cut to the width of the terminal, if out is one.
func (t *table) fit(out io.Writer) error {
	if w, ok := out.(*os.File); !ok || !isTerminal(w) {
		return t.write(out)
	}
	var b strings.Builder
	if err := t.write(&b); err != nil {
		return err
	}
	width := columns(out)
	for line := range strings.Lines(b.String()) {
		if runes := []rune(strings.TrimRight(line, "\n")); len(runes) > width {
			line = string(runes[:width-1]) + "…\n"
		}
		if _, err := io.WriteString(out, line); err != nil {
			return err
		}
	}
	return nil
}
