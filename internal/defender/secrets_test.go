package defender

import (
	"bufio"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"testing"
)

// TestNoTokenInErrors: an API, a gateway or whatever else answers may repeat what it was sent, in every place it has.
func TestNoTokenInErrors(t *testing.T) {
	opaque := "opaque/token+of~some-length=="
	for _, token := range []string{secretToken, opaque} {
		quoted := string(must(json.Marshal("You sent: Authorization: Bearer " + token + " to us")))
		escaped := strings.ReplaceAll(quoted, "/", `\/`)
		cut := string(must(json.Marshal("starts with " + token[:len(token)*3/4])))
		tokens := map[string]func(string) string{
			"whole":   func(form string) string { return fmt.Sprintf(form, quoted) },
			"escaped": func(form string) string { return fmt.Sprintf(form, escaped) },
			"cut":     func(form string) string { return fmt.Sprintf(form, cut) },
		}
		forms := []string{
			`{"error":{"code":"Some","message":%s}}`, `{"error":{"code":%s}}`, `{"error":{"code":"a","target":%s}}`,
			`{"error":%s}`, `<html>%s</html>`, `%s`, `{"value":%s}`, `{"value":[{"id":7,"x":%s}]}`, `{"id":%s}`, `{"machineId":%s,"id":"a","type":"x"}`, `{"id":"a" %s`,
		}
		for how, echo := range tokens {
			if how == "cut" && token == opaque {
				continue // what is left of it looks like nothing in particular
			}
			for _, form := range forms {
				for _, status := range []int{200, 201, 302, 400, 401, 403, 404, 408, 429, 500} {
					c := clientOf(t, serve(t, answer(status, echo(form), "Retry-After", "Bearer "+token, "X-Echo", token)).URL,
						tokensOf(t, always(token)), &openBudget{})
					for op, call := range calls {
						err := call(t.Context(), c)
						var e *Error
						if err != nil && !errors.As(err, &e) {
							t.Fatalf("%s %d: %v", op, status, err)
						}
						if err != nil {
							noSecret(t, err, token)
						}
					}
					c.Close()
				}
			}
		}
	}
}

// TestNoTokenInFaults: nor where the answer is no HTTP at all.
func TestNoTokenInFaults(t *testing.T) {
	for _, reply := range []string{"%s", "HTTP/1.1 %s\r\n\r\n", "HTTP/1.1 201 Created\r\n%s\r\n\r\n", "HTTP/1.1 201 Created\r\nContent-Length: %s\r\n\r\n", "HTTP/1.1 201 Created\r\nTransfer-Encoding: chunked\r\n\r\n%s\r\n"} {
		c, _ := dialTo(t, listen(t, func(conn net.Conn) {
			req, err := http.ReadRequest(bufio.NewReader(conn))
			if err == nil {
				_, _ = io.Copy(io.Discard, req.Body)
				_, _ = fmt.Fprintf(conn, reply, req.Header.Get("Authorization"))
			}
		}))
		for _, call := range calls {
			if e := failed(t, call(t.Context(), c)); e.Class != Ambiguous {
				t.Errorf("%q: %v", reply, e)
			}
		}
	}
}

// TestNoTokenInActions: what the API gave is kept byte for byte but for the token.
func TestNoTokenInActions(t *testing.T) {
	text := strings.Replace(created, `"why"`, `"Bearer `+secretToken+`"`, 1)
	c, _ := dialTo(t, serve(t, answer(201, text)).URL)
	a, err := post(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	for _, part := range secretParts(secretToken) {
		if strings.Contains(string(a.Raw)+a.RequestorComment, part) {
			t.Fatalf("%s", a.Raw)
		}
	}
	if want := strings.Replace(created, `"why"`, `"Bearer `+redacted+`"`, 1); string(a.Raw) != want {
		t.Errorf("%s", a.Raw)
	}
}

func TestRedact(t *testing.T) {
	for in, want := range map[string]string{
		"nothing to hide, e.g. the bearer token has expired": "nothing to hide, e.g. the bearer token has expired",
		"see https://user:pass@host/x":                       "see https://[redacted]@host/x",
		"my-secret-value and my-secret-value":                "[redacted] and [redacted]",
		"Authorization: Bearer abcdefghijklmnop.q":           "Authorization: Bearer [redacted]",
		"jwt eyJhbGciOiJSUzI1NiJ9.eyJh":                      "jwt [redacted]",
		"short x":                                            "short x",
	} {
		if got := redact(in, 100, "my-secret-value", "", "x"); got != want {
			t.Errorf("%q: %q", in, got)
		}
	}
	if got := redact(strings.Repeat("é", 60), 101); got != strings.Repeat("é", 50)+"..." {
		t.Errorf("%q", got)
	}
}

// spellings are how something that repeats a secret may write it.
var spellings = map[string]func(string) string{
	"plain": func(s string) string { return s }, "query": url.QueryEscape, "path": url.PathEscape,
	"base64":           func(s string) string { return base64.StdEncoding.EncodeToString([]byte(s)) },
	"base64url":        func(s string) string { return base64.URLEncoding.EncodeToString([]byte(s)) },
	"base64 of more":   func(s string) string { return base64.StdEncoding.EncodeToString([]byte("Bearer " + s + " x")) },
	"base64 of a pair": func(s string) string { return base64.RawURLEncoding.EncodeToString([]byte("client:" + s)) },
	"hex":              func(s string) string { return hex.EncodeToString([]byte(s)) }, "HEX": func(s string) string { return fmt.Sprintf("%X", s) },
	"json": func(s string) string { return strings.Trim(string(must(json.Marshal(s))), `"`) },
}

// TestSecretForms: a secret is recognised however what repeats it has written it, in text and in an answer's body, at any place.
func TestSecretForms(t *testing.T) {
	escape := func(s string) string { // every character by its number
		var b strings.Builder
		for _, r := range s {
			fmt.Fprintf(&b, `\u%04x`, r)
		}
		return b.String()
	}
	for _, secret := range []string{secretToken, "opaque/token+of~some-length==", `p4ss"w<ord>&\ü!x`} {
		for _, part := range secretParts(secret) {
			for name, form := range spellings {
				text := "before " + form(part) + " after"
				if got := redact(text, 1<<20, secret); !strings.Contains(got, redacted) || leaks(got, form(part)) {
					t.Errorf("%s of %q: %q", name, part, got)
				}
				body := string(must(json.Marshal(map[string]string{"a": text})))
				if got := string(redactBody([]byte(body), needlesOf(secret))); !strings.Contains(got, redacted) || leaks(got, form(part)) || !json.Valid([]byte(got)) {
					t.Errorf("%s of %q in a body: %s", name, part, got)
				}
			}
			body := `{"a":"x","b":"` + escape("Bearer "+part) + `","c":"y\\\"z"}`
			if got := string(redactBody([]byte(body), needlesOf(secret))); got != `{"a":"x","b":"[redacted]","c":"y\\\"z"}` {
				t.Errorf("escaped %q: %s", part, got)
			}
		}
	}
	for _, harmless := range []string{`{"a":"C:\\Windows"}`, `{"a":"`, `"\`, `{"requestor":"DOMAIN\\user"}`, "", `\`} {
		if got := string(redactBody([]byte(harmless), needlesOf(secretToken))); got != harmless {
			t.Errorf("%s became %s", harmless, got)
		}
	}
}

// leaks: eight digits or characters of a secret in a row are too many.
func leaks(got, form string) bool {
	for i := 0; i+12 <= len(form); i++ {
		if strings.Contains(got, form[i:i+12]) && !strings.Contains(form[i:i+12], "Bearer") {
			return true
		}
	}
	return false
}

func FuzzRedact(f *testing.F) {
	f.Add("before ", " after")
	f.Add("Bearer ", "x")
	f.Add("eyJ", ".eyJ")
	f.Fuzz(func(t *testing.T, before, after string) {
		parts := strings.Split(secretToken, ".")
		got := redact(before+secretToken+after, 1<<20, secretToken)
		if strings.Contains(got, parts[1]) || strings.Contains(got, parts[2]) {
			t.Fatalf("%q", got)
		}
	})
}
