package service

import (
	"io"
	"os"

	"golang.org/x/term"
)

// IsTerminal tells whether somebody is looking at w.
func IsTerminal(w io.Writer) bool {
	file, ok := w.(*os.File)
	return ok && term.IsTerminal(int(file.Fd()))
}
