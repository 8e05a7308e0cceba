package config

import (
	"fmt"
)

// InputError is a mistake of whoever typed the command.
type InputError struct{ error }

// Unwrap returns the mistake itself.
func (e *InputError) Unwrap() error { return e.error }

// BadInput makes an error that ends the program with exit status 2.
func BadInput(format string, args ...any) error {
	return &InputError{fmt.Errorf(format, args...)}
}

// BadConfiguration ends a command with all the mistakes in the settings it uses.
func BadConfiguration(mistakes []Mistake) error {
	text := "bad configuration:"
	if n := len(mistakes); n > 1 {
		text = fmt.Sprintf("bad configuration, %d mistakes:", n)
	}
	for _, m := range mistakes {
		text += "\n  " + m.Text
	}
	return BadInput("%s", text)
}
