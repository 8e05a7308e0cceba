package defender

import (
	"bytes"
	"encoding/binary"
	"html"
	"iter"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/go-json-experiment/json/jsontext"
)

const redacted = "[redacted]"

// A piece of a secret of minPiece bytes is found anywhere in a text; a shorter secret, only as a whole.
const (
	minPiece  = 16
	minSecret = 8 // anything shorter would match too much harmless text
)

// secret is one that we send, prepared for finding it in what we receive: servers and proxies do repeat what they were
// sent. A nil secret is found nowhere.
type secret struct {
	value []byte
	piece int
	has   [256]bool           // the bytes that occur in it
	fours map[uint32]struct{} // every four consecutive bytes of it
}

func newSecret(value string) *secret {
	if len(value) < minSecret {
		return nil
	}
	s := &secret{value: []byte(value), piece: min(len(value), minPiece), fours: map[uint32]struct{}{}}
	for _, c := range s.value {
		s.has[c] = true
	}
	for i := range len(value) - 3 {
		s.fours[binary.LittleEndian.Uint32(s.value[i:])] = struct{}{}
	}
	return s
}

// plainIn reports whether a piece of the secret occurs unencoded in text. Any eight consecutive bytes contain four that
// begin at a multiple of five, so only those are looked up.
func (s *secret) plainIn(text []byte) bool {
	for i := 0; i+4 <= len(text); i += 5 {
		if _, is := s.fours[binary.LittleEndian.Uint32(text[i:])]; !is {
			continue
		}
		for from := max(0, i+4-s.piece); from <= i && from+s.piece <= len(text); from++ {
			if bytes.Contains(s.value, text[from:from+s.piece]) {
				return true
			}
		}
	}
	return false
}

// maxNested is how many encodings within one another are undone.
const maxNested = 2

// in reports whether text repeats a piece of the secret, plain or encoded.
func (s *secret) in(text []byte) bool { return s != nil && s.encodedIn(text, maxNested) }

func (s *secret) encodedIn(text []byte, depth int) bool {
	if len(text) < s.piece {
		return false
	}
	if s.plainIn(text) {
		return true
	}
	if depth == 0 {
		return false
	}
	for other := range s.decodings(text) {
		if s.encodedIn(other, depth-1) {
			return true
		}
	}
	return false
}

// decodings yields everything that text may be an encoding of; each is valid until the next one. Bytes between digits,
// such as line breaks, are skipped.
func (s *secret) decodings(text []byte) iter.Seq[[]byte] {
	return func(yield func([]byte) bool) {
		if bytes.ContainsAny(text, `%=\&`) && !yield(escapes.ReplaceAllFunc(text, unescape)) {
			return
		}
		foreign := func(c byte) bool { return !s.has[c] } // such as the bytes of line folding
		if slices.ContainsFunc(text, foreign) && !yield(slices.DeleteFunc(slices.Clone(text), foreign)) {
			return
		}
		out := make([]byte, 0, len(text))
		for i := range alphabets {
			for skip := range alphabets[i].period {
				if out, readable := s.decodeDigits(out, text, &alphabets[i], skip); readable && !yield(out) {
					return
				}
			}
		}
	}
}

// alphabet is a way of writing bytes in digits.
type alphabet struct {
	bits   int       // of one digit
	period int       // number of digits after which byte boundaries repeat
	values [256]int8 // of each character; -1: not a digit
}

// alphabets are those of base64 and of base32, both forms of each, and of hexadecimal.
var alphabets = [...]alphabet{
	{6, 4, digits("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/", "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_")},
	{5, 8, digits("ABCDEFGHIJKLMNOPQRSTUVWXYZ234567", "abcdefghijklmnopqrstuvwxyz234567")},
	{5, 8, digits("0123456789ABCDEFGHIJKLMNOPQRSTUV", "0123456789abcdefghijklmnopqrstuv")},
	{4, 2, digits("0123456789ABCDEF", "0123456789abcdef")},
}

func digits(alphabets ...string) (values [256]int8) {
	for i := range values {
		values[i] = -1
	}
	for _, alphabet := range alphabets {
		for i := range len(alphabet) {
			values[alphabet[i]] = int8(i)
		}
	}
	return values
}

// decodeDigits appends to out what the digits in text encode, without the first skip of them. readable reports whether
// the result has a run as long as a piece, of bytes that are printable or occur in the secret; text in another encoding
// decodes to noise. It stops where the rest is too short for a piece.
func (s *secret) decodeDigits(out, text []byte, a *alphabet, skip int) (_ []byte, readable bool) {
	if len(text)*a.bits/8 < s.piece {
		return nil, false
	}
	acc, have, row := 0, -skip*a.bits, 0
	for i, c := range text {
		d := a.values[c]
		if d < 0 {
			continue
		}
		if have += a.bits; have <= 0 {
			continue // one of those to skip
		}
		if acc = acc<<a.bits | int(d); have < 8 {
			continue
		}
		have -= 8
		b := byte(acc >> have)
		out = append(out, b)
		if row++; (b < ' ' || b > '~') && !s.has[b] {
			if row = 0; !readable && 1+(len(text)-i)*a.bits/8 < s.piece {
				return nil, false
			}
		}
		readable = readable || row >= s.piece
	}
	return out, readable
}

// escapes matches one character as URLs, mails, HTML and programming languages write those they can't write plainly.
var escapes = regexp.MustCompile(`%[0-9A-Fa-f]{2}|=[0-9A-Fa-f]{2}|\\x[0-9A-Fa-f]{2}|\\u[0-9A-Fa-f]{4}|\\[0-7]{3}|\\["'\\/bfnrt]|&#?[0-9A-Za-z]{1,8};`)

func unescape(escape []byte) []byte {
	base, number := 16, ""
	switch c := escape[0]; {
	case c == '&':
		return []byte(html.UnescapeString(string(escape)))
	case c != '\\':
		number = string(escape[1:])
	case escape[1] == 'x' || escape[1] == 'u' && len(escape) == 6:
		number = string(escape[2:])
	case len(escape) == 4:
		base, number = 8, string(escape[1:])
	default:
		return []byte(strings.NewReplacer("n", "\n", "r", "\r", "t", "\t", "b", "\b", "f", "\f").Replace(string(escape[1:])))
	}
	n, _ := strconv.ParseUint(number, base, 32) // it is a number, by the pattern
	if n < 256 {
		return []byte{byte(n)}
	}
	return []byte(string(rune(n)))
}

// cut returns text, or a placeholder if it repeats the secret.
func (s *secret) cut(text string) string {
	if s.in([]byte(text)) {
		return redacted
	}
	return text
}

// cutJSON replaces the strings of a JSON document that repeat the secret. All other bytes stay as they are.
func (s *secret) cutJSON(body []byte) []byte {
	if s == nil {
		return body
	}
	var out []byte
	done := 0
	for d := jsontext.NewDecoder(bytes.NewBuffer(body), lenient); ; {
		if d.PeekKind() != '"' {
			if _, err := d.ReadToken(); err != nil {
				break
			}
			continue
		}
		quoted, err := d.ReadValue()
		if err != nil {
			break
		}
		if len(quoted) < s.piece {
			continue
		}
		inside, _ := jsontext.AppendUnquote(nil, quoted) // its error is about invalid UTF-8, which comes out replaced
		if end := int(d.InputOffset()); s.in(inside) {
			out = append(append(out, body[done:end-len(quoted)]...), `"`+redacted+`"`...)
			done = end
		}
	}
	return append(out, body[done:]...)
}
