package message

import (
	"encoding/hex"
	"regexp"
	"strings"
	"unicode"
	"unicode/utf8"
)

// Header is a message's headers, with the names as they came. Names match in any case, because clients spell them
// differently and the broker leaves them as they are.
type Header map[string][]string

// Get returns the first value under name in any case, "" if there is none. Of several spellings the exact one counts,
// otherwise the first in byte order, so that every delivery of a message gives the same value.
func (h Header) Get(name string) string {
	value, _ := h.lookup(name)
	return value
}

// lookup is Get, but distinguishes an empty value from a missing one.
func (h Header) lookup(name string) (value string, there bool) {
	if v := h[name]; len(v) > 0 {
		return v[0], true
	}
	found := ""
	for k, v := range h {
		if len(v) > 0 && len(k) == len(name) && strings.EqualFold(k, name) && (found == "" || k < found) {
			found = k
		}
	}
	if found == "" {
		return "", false
	}
	return h[found][0], true
}

// size is the size of the header block in a message, including its first line and the blank last one.
func (h Header) size() int {
	n := len("NATS/1.0\r\n\r\n")
	for name, values := range h {
		n += headerSize(name, values)
	}
	return n
}

func headerSize(name string, values []string) int {
	n := 0
	for _, v := range values {
		n += len(name) + len(": \r\n") + len(v)
	}
	return n
}

// hasPrefix is strings.HasPrefix in any case, for names in ASCII.
func hasPrefix(name, prefix string) bool {
	return len(name) >= len(prefix) && strings.EqualFold(name[:len(prefix)], prefix)
}

const upperHex = "0123456789ABCDEF"

// percentEncode writes s as CloudEvents' NATS and HTTP bindings write an attribute into a header: the bytes of space,
// double quote, per cent sign and of everything outside U+0021 to U+007E become %XX. It is injective.
func percentEncode(s string) string {
	return escapeBytes(s, func(i int) bool {
		c := s[i]
		return c <= ' ' || c == '"' || c == '%' || c > '~'
	})
}

// headerText encodes s for a header. It percent-encodes only what a header would lose or a reader would mistake: control
// characters, spaces at the ends, and a per cent sign that reads as an escape. percentDecode undoes it.
func headerText(s string) string {
	return escapeBytes(s, func(i int) bool {
		switch c := s[i]; c {
		case ' ':
			return i == 0 || i == len(s)-1
		case '%':
			return escaped.MatchString(s[i:min(i+3, len(s))])
		default:
			return c < ' ' || c == 0x7f
		}
	})
}

func escapeBytes(s string, escape func(i int) bool) string {
	var b strings.Builder
	last := 0
	for i := range len(s) {
		if escape(i) {
			b.WriteString(s[last:i])
			b.Write([]byte{'%', upperHex[s[i]>>4], upperHex[s[i]&15]})
			last = i + 1
		}
	}
	if last == 0 {
		return s
	}
	return b.String() + s[last:]
}

var escaped = regexp.MustCompile(`%[0-9A-Fa-f]{2}`)

// percentDecode replaces each %XX by its byte, once. Any other per cent sign stays, because not every client encodes.
func percentDecode(s string) string {
	return escaped.ReplaceAllStringFunc(s, func(xx string) string {
		b, _ := hex.DecodeString(xx[1:])
		return string(b)
	})
}

// OneLine makes text of any origin fit for a header or a table: white space and control characters become single spaces,
// invalid UTF-8 is replaced, and the text is cut to limit characters.
func OneLine(s string, limit int) string {
	s = strings.Join(strings.FieldsFunc(strings.ToValidUTF8(s, "\uFFFD"), func(r rune) bool {
		return unicode.IsSpace(r) || unicode.IsControl(r)
	}), " ")
	return Shorten(s, limit)
}

// Shorten cuts s to limit characters, the last of them an ellipsis.
func Shorten(s string, limit int) string {
	if utf8.RuneCountInString(s) <= limit {
		return s
	}
	return string([]rune(s)[:limit-1]) + "…"
}

// isNameByte reports whether every client can send a header whose name contains c: a token of RFC 9110 without the
// characters that nats.go refuses.
func isNameByte(c byte) bool {
	return c > ' ' && c <= '~' && !strings.ContainsRune(`"()/,:;<=>?@[\]{}`, rune(c))
}

func noLineEnd(s string) string {
	return strings.NewReplacer("\r", " ", "\n", " ").Replace(s)
}
