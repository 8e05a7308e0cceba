package main

import (
	"fmt"

	"example.com/unrestrict-worker/internal/config"
)

// inputError is a mistake of whoever typed the command.
type inputError struct{ error }

func (e *inputError) Unwrap() error { return e.error }

// badInput makes an error that ends the program with exit status 2.
func badInput(format string, args ...any) error {
	return &inputError{fmt.Errorf(format, args...)}
}

// badConfiguration ends a command with all the mistakes in the settings it uses.
func badConfiguration(mistakes []config.Mistake) error {
	text := "bad configuration:"
	if n := len(mistakes); n > 1 {
		text = fmt.Sprintf("bad configuration, %d mistakes:", n)
	}
	for _, m := range mistakes {
		text += "\n  " + m.Text
	}
	return badInput("%s", text)
}
