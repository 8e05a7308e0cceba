package defender

import (
	"errors"
	"regexp"
	"strings"
	"unicode"
	"unicode/utf8"
)

// A text of an answer is shown only in the form of Defender's texts, because the server that answers has received the
// token and may repeat it. A code is one short word; a message is printable and consists of words. A text in another form
// is withheld, not repaired.
const (
	maxCode    = 40   // the longest documented one has 26
	maxMessage = 1000 // characters
	maxWord    = 32   // letters and digits in a row
	maxNumbers = 20
	maxMixed   = 8 // words with digits and letters; a GUID has five at most
	withheld   = "[withheld: it has not the form of a message]"
)

var (
	codeForm  = regexp.MustCompile(`^(?:[A-Za-z_]+[0-9]{0,4}|[0-9]{1,6})$`)
	machineIn = regexp.MustCompile(`\b[0-9a-fA-F]{40}\b`)

	tokenLike = regexp.MustCompile(`eyJ[A-Za-z0-9_-]{8,}(\.[A-Za-z0-9_-]*)*`)
	bearerIs  = regexp.MustCompile(`(?i)\bbearer\s+[A-Za-z0-9._~+/=-]{16,}`)
	userInfo  = regexp.MustCompile(`//[^/@\s]+@`)

	notHTTP = regexp.MustCompile(`(malformed (?:HTTP|MIME) [a-z]+(?: [a-z]+)?|bad Content-Length)[:"\s].*`) // net/http shows what it read instead
)

// asCode returns an error's code, "" if it does not have the form of one.
func (s *secret) asCode(code string) string {
	if len(code) > maxCode || !codeForm.MatchString(code) || s.in([]byte(code)) {
		return ""
	}
	return code
}

// asMessage returns an error's message, as far as it may be shown.
func (s *secret) asMessage(message string) string {
	message = clean(message)
	if s.in([]byte(message)) {
		return withheld
	}
	if message = oneLine(message, maxMessage); !worded(message) {
		return withheld
	}
	return message
}

// worded reports whether a text consists of words and few numbers. One or two machine ids are allowed.
func worded(s string) bool {
	if len(machineIn.FindAllString(s, 3)) > 2 {
		return false
	}
	numbers, mixed := 0, 0
	for word := range strings.FieldsFuncSeq(machineIn.ReplaceAllString(s, "0"), func(r rune) bool { return !unicode.IsLetter(r) && !unicode.IsDigit(r) }) {
		digits, letters := strings.ContainsFunc(word, unicode.IsDigit), strings.ContainsFunc(word, unicode.IsLetter)
		switch {
		case utf8.RuneCountInString(word) > maxWord:
			return false
		case digits && letters:
			mixed++
		case digits:
			numbers++
		}
	}
	return numbers <= maxNumbers && mixed <= maxMixed
}

// clean removes from s everything that looks like a token, or like a password in an address.
func clean(s string) string {
	s = tokenLike.ReplaceAllString(s, redacted)
	s = bearerIs.ReplaceAllString(s, "Bearer "+redacted)
	return userInfo.ReplaceAllString(s, "//"+redacted+"@")
}

// oneLine returns at most limit characters of s in one line, all of them safe to print anywhere: none moves a cursor or
// changes the direction of writing.
func oneLine(s string, limit int) string {
	s = strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return utf8.RuneError
		}
		return r
	}, strings.Join(strings.Fields(s), " "))
	for i := range s {
		if limit--; limit < 0 {
			return s[:i] + "..."
		}
	}
	return s
}

// maxText bounds the text of a lower-level error, in characters.
const maxText = 600

// redact makes a text of ours, which may quote what others have sent, safe to show: in one line, and withheld
// completely if it repeats a secret.
func redact(text string, secrets ...*secret) string {
	text = clean(notHTTP.ReplaceAllString(text, "$1"))
	for _, s := range secrets {
		text = s.cut(text)
	}
	return oneLine(text, maxText)
}

// sanitize returns err itself if its text can be shown as it is, else an error with the redacted text.
func (s *secret) sanitize(err error) error {
	if text := redact(err.Error(), s); text != err.Error() {
		return errors.New(text)
	}
	return err
}
