package defender

import (
	"bytes"
	"errors"
	"regexp"
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

// redact takes the given secrets, their parts and everything that looks like a token or a password in an
// address out of s, and keeps what is left within limit bytes.
func redact(s string, limit int, secrets ...string) string {
	for _, secret := range secrets {
		for _, part := range secretParts(secret) {
			s = strings.ReplaceAll(s, part, redacted)
		}
	}
	s = tokenLike.ReplaceAllString(s, redacted)
	s = bearerIs.ReplaceAllString(s, "Bearer "+redacted)
	s = userInfo.ReplaceAllString(s, "//"+redacted+"@")
	if len(s) <= limit {
		return s
	}
	for limit > 0 && !utf8.RuneStart(s[limit]) {
		limit--
	}
	return s[:limit] + "..."
}

// redactBody takes the token out of an answer's bytes, before anything is decoded from them.
func redactBody(body []byte, token string) []byte {
	for _, part := range secretParts(token) {
		if bytes.Contains(body, []byte(part)) {
			body = bytes.ReplaceAll(body, []byte(part), []byte(redacted))
		}
	}
	return body
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
