package defender

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"unicode/utf8"
)

const redacted = "[redacted]"

// Text from outside is never trusted to hold no secret: servers and proxies do repeat what they were sent.
var (
	tokenLike = regexp.MustCompile(`eyJ[A-Za-z0-9_-]{8,}(\.[A-Za-z0-9_-]*)*`)
	bearerIs  = regexp.MustCompile(`(?i)\bbearer\s+[A-Za-z0-9._~+/=-]{16,}`)
	userInfo  = regexp.MustCompile(`//[^/@\s]+@`)
)

// blanks are what \s is to the patterns.
const blanks = "\t\n\f\r "

// redact takes the given secrets, their parts and everything that looks like a token or a password in an
// address out of s, and keeps what is left within limit bytes.
func redact(s string, limit int, secrets ...string) string {
	for _, secret := range secrets {
		s = needlesOf(secret).takenOut(s)
	}
	return redactLikely(s, limit)
}

// redactLikely is redact for text from which the known secrets were taken.
func redactLikely(s string, limit int) string {
	s = tokenLike.ReplaceAllString(s, redacted)
	if strings.ContainsAny(s, blanks) { // ids are many, and have none; the pattern is slow
		s = bearerIs.ReplaceAllString(s, "Bearer "+redacted)
	}
	s = userInfo.ReplaceAllString(s, "//"+redacted+"@")
	if len(s) <= limit {
		return s
	}
	for limit > 0 && !utf8.RuneStart(s[limit]) {
		limit--
	}
	return s[:limit] + "..."
}

// needles are the forms of one secret, ready to be looked for: there are dozens, and every answer is searched for them.
type needles struct {
	forms  []string             // the longest first
	starts [1 << 16 / 64]uint64 // a bit for what the first four bytes of each form come to
}

// needleStart is how many bytes of a form starts knows; no form is shorter (secretParts).
const needleStart = 4

func needlesOf(secret string) *needles {
	n := &needles{forms: secretForms(secret)}
	for _, form := range n.forms {
		var start uint32
		for i := range needleStart {
			start = start<<8 | uint32(form[i])
		}
		word, bit := n.bit(start)
		n.starts[word] |= bit
	}
	return n
}

func (n *needles) bit(start uint32) (word uint32, bit uint64) {
	h := start * 2654435761 >> 16 // multiplicative hashing, Knuth, The Art of Computer Programming 3, 6.4
	return h / 64, 1 << (h % 64)
}

// in says whether one of the forms stands in text.
func (n *needles) in(text []byte) bool {
	var start uint32
	for i, c := range text {
		start = start<<8 | uint32(c)
		if word, bit := n.bit(start); n.starts[word]&bit == 0 || i < needleStart-1 {
			continue
		}
		from := text[i-(needleStart-1):]
		if slices.ContainsFunc(n.forms, func(form string) bool { return len(form) <= len(from) && string(from[:len(form)]) == form }) {
			return true
		}
	}
	return false
}

// takenOut is s without the forms.
func (n *needles) takenOut(s string) string {
	if !n.in([]byte(s)) {
		return s
	}
	for _, form := range n.forms {
		s = strings.ReplaceAll(s, form, redacted)
	}
	return s
}

// redactBody takes the forms of a token out of an answer's bytes, before anything is decoded from them. A string of JSON
// that holds one behind escapes is left out whole.
func redactBody(body []byte, token *needles) []byte {
	if token.in(body) {
		body = []byte(token.takenOut(string(body)))
	}
	if len(token.forms) == 0 || bytes.IndexByte(body, '\\') < 0 {
		return body
	}
	return redactEscaped(body, token)
}

// redactEscaped looks into every string that has an escape.
func redactEscaped(body []byte, token *needles) []byte {
	var out []byte
	done, shortest := 0, len(token.forms[len(token.forms)-1])
	for i := 0; i < len(body); {
		at := bytes.IndexByte(body[i:], '"')
		if at < 0 {
			break
		}
		from := i + at
		end, escaped := stringEnd(body, from)
		if i = end; !escaped || end-from < shortest {
			continue // without its escapes it is shorter still
		}
		var plain string
		if json.Unmarshal(body[from:end], &plain) == nil && token.in([]byte(plain)) {
			out = append(append(out, body[done:from]...), `"`+redacted+`"`...)
			done = end
		}
	}
	if out == nil {
		return body
	}
	return append(out, body[done:]...)
}

// stringEnd is where the string that begins at from ends, behind its quote, and whether there is an escape in it.
func stringEnd(body []byte, from int) (end int, escaped bool) {
	for i := from + 1; i < len(body); i++ {
		switch body[i] {
		case '\\':
			escaped = true
			i++
		case '"':
			return i + 1, escaped
		}
	}
	return len(body), escaped
}

// secretForms are the secret, its parts, and each of them as what repeats it may have written it: percent-encoded, in
// base64 at any offset, in hexadecimal, as JSON and HTML escape it. The longest come first, so that none leaves the rest of another.
func secretForms(secret string) []string {
	var forms []string
	for _, part := range secretParts(secret) {
		quoted, _ := json.Marshal(part)
		forms = append(forms, part, url.QueryEscape(part), url.PathEscape(part), strings.Trim(string(quoted), `"`),
			strings.ReplaceAll(part, "/", `\/`), hex.EncodeToString([]byte(part)), strings.ToUpper(hex.EncodeToString([]byte(part))))
		for _, encoding := range []*base64.Encoding{base64.RawStdEncoding, base64.RawURLEncoding} {
			for offset := range 3 {
				forms = append(forms, base64At(encoding, offset, part))
			}
		}
	}
	slices.SortFunc(forms, func(a, b string) int {
		if len(a) != len(b) {
			return len(b) - len(a)
		}
		return strings.Compare(a, b)
	})
	return slices.Compact(forms)
}

// base64At is what base64 makes of s behind so many bytes of something else, without the digits that depend on its
// neighbours.
func base64At(encoding *base64.Encoding, offset int, s string) string {
	digits := encoding.EncodeToString(append(make([]byte, offset), s...))
	from := (offset*8 + 5) / 6
	to := (offset + len(s)) * 8 / 6
	return digits[from:to]
}

// secretParts are the secret and, of a JWT, its parts: the signature alone is as good as the whole.
// What is too short to be a secret would only riddle harmless text.
func secretParts(secret string) []string {
	if len(secret) < 8 {
		return nil
	}
	parts := []string{secret}
	for part := range strings.SplitSeq(secret, ".") {
		if len(part) >= 16 && part != secret {
			parts = append(parts, part)
		}
	}
	return parts
}

// redactErr is err itself where its text is harmless, else its text without what is secret.
func redactErr(err error, secrets ...string) error {
	if err == nil {
		return nil
	}
	if clean := redact(err.Error(), 1000, secrets...); clean != err.Error() {
		return errors.New(clean)
	}
	return err
}
