package session

import (
	"io"
	"os"
	"strings"
	"unicode/utf8"

	"golang.org/x/term"

	"example.com/unrestrict-worker/internal/service"
)

// Screen is where text for people is written, and what it can show.
type Screen struct {
	Out    io.Writer
	Width  int // columns
	Colour bool
}

// NewScreen is the screen of standard output. Colours are used only on a terminal, unless NO_COLOR is set ([doc] no-color.org).
func NewScreen(env *Env) Screen {
	s := Screen{Out: env.Stdout, Width: columns(env.Stdout)}
	off, _ := env.Lookup("NO_COLOR")
	kind, _ := env.Lookup("TERM")
	s.Colour = service.IsTerminal(env.Stdout) && off == "" && kind != "dumb"
	return s
}

// The colours in use, as SGR parameters.
const (
	Green  = "32"
	Yellow = "33"
	Red    = "31"
)

// Paint colours text, if the screen has colours.
func (s Screen) Paint(colour, text string) string {
	if !s.Colour || text == "" {
		return text
	}
	return "\x1b[" + colour + "m" + text + "\x1b[0m"
}

// Field writes a name and a text that is wrapped beside it; colour may be "".
func (s Screen) Field(name, colour, text string) error {
	const indent = 14
	lines := Wrap(Plain(text), max(s.Width-indent, 20))
	for i, line := range lines {
		lines[i] = s.Paint(colour, line)
	}
	label := name + strings.Repeat(" ", max(indent-utf8.RuneCountInString(name), 1))
	_, err := io.WriteString(s.Out, label+strings.Join(lines, "\n"+strings.Repeat(" ", indent))+"\n")
	return err
}

// DefaultColumns is the width if the output is no terminal.
const DefaultColumns = 80

func columns(out io.Writer) int {
	if file, ok := out.(*os.File); ok {
		if width, _, err := term.GetSize(int(file.Fd())); err == nil && width > 0 {
			return width
		}
	}
	return DefaultColumns
}

// IsTerminalInput reports whether r is a terminal, so that somebody can answer.
func IsTerminalInput(r io.Reader) bool {
	file, ok := r.(*os.File)
	return ok && term.IsTerminal(int(file.Fd()))
}

// Wrap breaks text between words; a word that is too long stays whole, so that it can be copied.
func Wrap(text string, width int) []string {
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

// Fit is Write, with the rows cut to the terminal's width if out is a terminal.
func (t *Table) Fit(out io.Writer) error {
	if w, ok := out.(*os.File); !ok || !service.IsTerminal(w) {
		return t.Write(out)
	}
	var b strings.Builder
	if err := t.Write(&b); err != nil {
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
