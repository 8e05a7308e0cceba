package session

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"time"
)

// ShellQuote leaves plain words as they are.
func ShellQuote(s string) string {
	if strings.Trim(s, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_./:=") == "" {
		return s
	}
	return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
}

// WriteJSONLine writes v as one line.
func WriteJSONLine(out io.Writer, v any) error {
	line, err := AsJSON(v)
	if err != nil {
		return err
	}
	_, err = out.Write(append(line, '\n'))
	return err
}

// Count is a number with its noun.
func Count(n int, one, many string) string {
	if n == 1 {
		return "1 " + one
	}
	return fmt.Sprint(n, " ", many)
}

// Pronoun is the pronoun for n things.
func Pronoun(n int) string {
	if n == 1 {
		return "it"
	}
	return "them"
}

// AsJSON leaves <, > and & as they are, which encoding/json would make longer.
func AsJSON(v any) ([]byte, error) {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		return nil, err
	}
	return bytes.TrimSuffix(b.Bytes(), []byte("\n")), nil
}

// Claiming is a request's id, with the id that its message claimed.
func Claiming(id, claimed string) string {
	if claimed == "" {
		return id
	}
	return id + " (claims " + claimed + ")"
}

// Remembered is how long the worker remembers an id after the request's end (docs/messages.md).
const Remembered = 7 * 24 * time.Hour
