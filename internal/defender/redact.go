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
	var forms []string
	for _, secret := range secrets {
		forms = append(forms, secretForms(secret)...)
	}
	return redactForms(s, limit, forms)
}

// redactForms is redact for secrets whose forms are known.
func redactForms(s string, limit int, forms []string) string {
	for _, form := range forms {
		s = strings.ReplaceAll(s, form, redacted)
	}
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

// redactBody takes the forms of a token out of an answer's bytes, before anything is decoded from them. A string of JSON
// that holds one behind escapes is left out whole.
func redactBody(body []byte, forms []string) []byte {
	if len(forms) == 0 {
		return body
	}
	for _, form := range forms {
		// A short needle is found many times faster, and the forms are seldom there.
		if bytes.Contains(body, []byte(form[:min(len(form), 32)])) {
			body = bytes.ReplaceAll(body, []byte(form), []byte(redacted))
		}
	}
	if bytes.IndexByte(body, '\\') < 0 {
		return body
	}
	return redactEscaped(body, forms)
}

// redactEscaped looks into every string that has an escape.
func redactEscaped(body []byte, forms []string) []byte {
	var out []byte
	done, shortest := 0, len(forms[len(forms)-1])
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
		if json.Unmarshal(body[from:end], &plain) == nil && slices.ContainsFunc(forms, func(form string) bool { return strings.Contains(plain, form) }) {
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
