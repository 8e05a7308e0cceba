package defender

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"encoding/ascii85"
	"encoding/base32"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"net/url"
	"slices"
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
	if piece := repeats(string(a.Raw)+a.RequestorComment, secretToken); piece != "" {
		t.Fatalf("%s in %s", piece, a.Raw)
	}
	if want := strings.Replace(created, `"why"`, `"`+redacted+`"`, 1); string(a.Raw) != want {
		t.Errorf("%s", a.Raw)
	}
}

func TestRedact(t *testing.T) {
	for in, want := range map[string]string{
		"nothing to hide, e.g. the bearer token has expired": "nothing to hide, e.g. the bearer token has expired",
		"see https://user:pass@host/x":                       "see https://[redacted]@host/x",
		"the value is my-secret-value":                       "[redacted]",
		"Authorization: Bearer abcdefghijklmnop.q":           "Authorization: Bearer [redacted]",
		"jwt eyJhbGciOiJSUzI1NiJ9.eyJh":                      "jwt [redacted]",
		"short x":                                            "short x",
		"two\nlines, \u202eturned\x1b[2J":                    "two lines, \ufffdturned\ufffd[2J",
		strings.Repeat("é", maxText+1):                       strings.Repeat("é", maxText) + "...",
	} {
		if got := redact(in, newSecret("my-secret-value"), newSecret(""), newSecret("x")); got != want {
			t.Errorf("%q: %q", in, got)
		}
	}
}

// spellings are how something that repeats a secret may write it.
var spellings = map[string]func(string) string{
	"plain": func(s string) string { return s }, "query": url.QueryEscape, "path": url.PathEscape,
	"base64":           func(s string) string { return base64.StdEncoding.EncodeToString([]byte(s)) },
	"base64url":        func(s string) string { return base64.URLEncoding.EncodeToString([]byte(s)) },
	"base64 of more":   func(s string) string { return base64.StdEncoding.EncodeToString([]byte("Bearer " + s + " x")) },
	"base64 of a pair": func(s string) string { return base64.RawURLEncoding.EncodeToString([]byte("client:" + s)) },
	"base64 in lines":  func(s string) string { return folded(base64.StdEncoding.EncodeToString([]byte(s)), 76, "\r\n") },
	"base64 twice":     func(s string) string { return b64(b64(s)) },
	"base64 of hex":    func(s string) string { return b64(hex.EncodeToString([]byte(s))) },
	"hex":              func(s string) string { return hex.EncodeToString([]byte(s)) },
	"HEX":              func(s string) string { return fmt.Sprintf("%X", s) },
	"hex with colons":  func(s string) string { return folded(hex.EncodeToString([]byte(s)), 2, ":") },
	"base32":           func(s string) string { return base32.StdEncoding.EncodeToString([]byte(s)) },
	"base32hex":        func(s string) string { return strings.ToLower(base32.HexEncoding.EncodeToString([]byte(s))) },
	"percent":          func(s string) string { return each(s, "%%%02x") },
	"PERCENT":          func(s string) string { return each(s, "%%%02X") },
	"percent twice":    func(s string) string { return url.QueryEscape(each(s, "%%%02X")) },
	"percent, base64":  func(s string) string { return url.QueryEscape(b64(s)) },
	"entities":         func(s string) string { return each(s, "&#%d;") },
	"hex entities":     func(s string) string { return each(s, "&#x%X;") },
	"json":             func(s string) string { return strings.Trim(string(must(json.Marshal(s))), `"`) },
	"json numbers":     func(s string) string { return each(s, `\u%04x`) },
	"escapes":          func(s string) string { return each(s, `\x%02x`) },
	"octal":            func(s string) string { return each(s, `\%03o`) },
	"quoted-printable": func(s string) string { return each(s, "=%02X") },
	"folded":           func(s string) string { return folded(s, 10, "\n ") },
	"with blanks":      func(s string) string { return folded(s, 1, " ") },
}

func b64(s string) string { return base64.StdEncoding.EncodeToString([]byte(s)) }

func each(s, format string) string {
	var b strings.Builder
	for i := range len(s) {
		fmt.Fprintf(&b, format, s[i])
	}
	return b.String()
}

func folded(s string, width int, with string) string {
	var lines []string
	for ; len(s) > width; s = s[width:] {
		lines = append(lines, s[:width])
	}
	return strings.Join(append(lines, s), with)
}

// repeats is a piece of what a secret is in some spelling that stands in text and is worth more than 16 characters of it.
func repeats(text, of string) string {
	if of == "" {
		return ""
	}
	for _, spell := range spellings {
		form := spell(of)
		length := min(len(form), (minPiece+1)*len(form)/len(of)+6)
		for i := 0; i+length <= len(form); i++ {
			if strings.Contains(text, form[i:i+length]) {
				return form[i : i+length]
			}
		}
	}
	return ""
}

// TestSpellings: a piece of a secret is recognised however what repeats it has written it, in text and in an action, at any
// place, and nothing else is lost of either.
func TestSpellings(t *testing.T) {
	for _, value := range []string{secretToken, "opaque/token+of~some-length==", `p4ss"w<ord>&\+!x`, secretToken[50:90]} {
		for name, spell := range spellings {
			text := "before: " + spell(value) + " :after"
			if got := newSecret(value).cut(text); !strings.Contains(got, redacted) || repeats(got, value) != "" {
				t.Errorf("%s of %q: %q", name, value, got)
			}
			for escaping, quote := range map[string]func(string) string{"as JSON has it": quoted, "by numbers": func(s string) string { return `"` + each(s, `\u%04x`) + `"` }} {
				body := `{"id":"a","comment":` + quote(text) + `,"n":1.50E+3,"path":"C:\\x\/","other":"ed74c544-91d4-414d-8805-5c26e028ef7e 0123456789abcdef0123456789abcdef01234567"}`
				got := string(newSecret(value).cutJSON([]byte(body)))
				if !strings.Contains(got, redacted) || repeats(got, value) != "" || !json.Valid([]byte(got)) {
					t.Errorf("%s of %q in an action, %s: %s", name, value, escaping, got)
				}
				before, after, _ := strings.Cut(got, redacted)
				if !strings.HasPrefix(before, `{"id":"a","comment":`) || !strings.HasSuffix(after, body[strings.Index(body, `,"n":`):]) {
					t.Errorf("%s of %q in an action, %s: more was lost: %s", name, value, escaping, got)
				}
			}
		}
	}
}

func quoted(s string) string { return string(must(json.Marshal(s))) }

// TestPieces: sixteen characters in a row are a piece, fifteen are not; and a long string is searched to its end.
func TestPieces(t *testing.T) {
	secret := newSecret(secretToken)
	for n, want := range map[int]bool{minPiece - 1: false, minPiece: true, minPiece + 1: true} {
		for at := range len(secretToken) - n {
			text := "~" + secretToken[at:at+n] + "~"
			got := secret.cut(text)
			if cut := got != text; cut != want && (n >= minPiece || strings.Count(secretToken, secretToken[at:at+n]) == 1) {
				t.Fatalf("%d at %d: %s", n, at, got)
			}
		}
	}
	for _, pad := range []string{"x ", `\\`, `\u00e9`, `\n`} {
		for before := range 20 {
			body := `{"b":1.50,"a":"` + strings.Repeat(pad, 5000+before) + secretToken + strings.Repeat(pad, 5000) + `","c":[]}`
			if got, want := string(secret.cutJSON([]byte(body))), `{"b":1.50,"a":"`+redacted+`","c":[]}`; got != want {
				t.Fatalf("%q, %d: %d bytes, %q", pad, before, len(got), repeats(got, secretToken))
			}
		}
	}
	for _, harmless := range []string{`{"a":"C:\\Windows"}`, `{"requestor":"DOMAIN\\user"}`, `{}`, created, `[]`, `"\u00e9"`} {
		if got := string(secret.cutJSON([]byte(harmless))); got != harmless {
			t.Errorf("%s became %s", harmless, got)
		}
	}
}

// TestForms: what is shown of an answer, at the bounds.
func TestForms(t *testing.T) {
	token := newSecret(secretToken)
	for in, want := range map[string]string{
		"ActiveRequestAlreadyExists": "ActiveRequestAlreadyExists", "429": "429", "": "", "Not a code": "", "a-b": "", "E_FAIL": "E_FAIL", "a\n": "",
		strings.Repeat("a", maxCode): strings.Repeat("a", maxCode), strings.Repeat("a", maxCode+1): "", "Error4711": "Error4711", "Error47110": "", "1234567": "", "Y29tZSBiYWNrIGFuZCBzYXkgaXQ": "", secretToken[5:30]: "", b64(secretToken)[8:44]: "", "é": "",
	} {
		if got := token.asCode(in); got != want {
			t.Errorf("code %q: %q", in, got)
		}
	}
	long := strings.Repeat("word ", maxMessage/5)
	for in, want := range map[string]string{
		"": "", "API calls quota exceeded! Maximum allowed 30 per 00:01:00 for the key Destination+TenantID+AppID. You can send requests again in 8 seconds.": "=",
		"Missing application roles. API required roles: Machine.Read.All,Machine.ReadWrite.All, application roles: Machine.Isolate.": "=",
		"Machine " + machine + " was not found": "=", machine + " " + machine: "=", machine + " " + machine + " " + machine: withheld, "Machine action " + actionID + " was not found": "=",
		"The query specified in the URI is not valid. Custom query option '$stop' that starts with '$' is not supported.": "=",
		"<p>Échec : la machine n’existe pas</p>": "=", "two\nlines": "two lines", "turned\u202e": "turned\ufffd",
		strings.Repeat("a", maxWord): "=", strings.Repeat("a", maxWord+1): withheld,
		strings.Repeat("1 ", maxNumbers): strings.TrimSpace(strings.Repeat("1 ", maxNumbers)), strings.Repeat("1 ", maxNumbers+1): withheld,
		long: strings.TrimSpace(long), long + "more words": long + "...",
		"You sent Bearer " + secretToken: "You sent Bearer [redacted]",
	} {
		if want == "=" {
			want = in
		}
		if got := token.asMessage(in); got != want {
			t.Errorf("message %q: %q", in, got)
		}
	}
}

// TestSpellingsInMessages: nor does a message bear the token in a spelling that nobody undoes.
func TestSpellingsInMessages(t *testing.T) {
	more := map[string]func(string) string{
		"reversed":        func(s string) string { r := []byte(s); slices.Reverse(r); return string(r) },
		"upper case":      strings.ToUpper,
		"lower case":      strings.ToLower,
		"lower, folded":   func(s string) string { return folded(strings.ToLower(s), 8, " ") },
		"reversed, lines": func(s string) string { r := []byte(s); slices.Reverse(r); return folded(string(r), 12, "\n") },
		"base64 thrice":   func(s string) string { return b64(b64(b64(s))) },
		"decimal":         func(s string) string { return each(s, "%d ") },
		"octal numbers":   func(s string) string { return each(s, "%o,") },
		"binary":          func(s string) string { return each(s, "%08b ") },
		"UTF-16":          func(s string) string { return b64(each(s, "%c\x00")) },
		"ascii85": func(s string) string {
			b := make([]byte, ascii85.MaxEncodedLen(len(s)))
			return string(b[:ascii85.Encode(b, []byte(s))])
		},
		"zipped": func(s string) string {
			var b bytes.Buffer
			z := gzip.NewWriter(&b)
			_, _ = io.WriteString(z, s)
			_ = z.Close()
			return b64(b.String())
		},
	}
	maps.Copy(more, spellings)
	for name, spell := range more {
		got := newSecret(secretToken).asMessage("The header was: " + spell(secretToken))
		if got != withheld && !strings.Contains(got, redacted) || len(got) > 200 {
			t.Errorf("%s: %q", name, got)
		}
	}
}

func FuzzRedact(f *testing.F) {
	f.Add("before ", " after")
	f.Add("Bearer ", "x")
	f.Add("eyJ", ".eyJ")
	f.Add("\\\"", "\\")
	f.Fuzz(func(t *testing.T, before, after string) {
		token := newSecret(secretToken)
		if got := token.cut(before + secretToken + after); repeats(strings.NewReplacer(before, "", after, "").Replace(got), secretToken) != "" {
			t.Fatalf("%q", got)
		}
		escaped := each(before, `\u%04x`) + each(secretToken, `\u%04x`) + each(after, `\u%04x`)
		for _, text := range []string{quoted(before + secretToken + after), `"` + escaped + `"`} {
			if got := token.cutJSON([]byte(`{"a":` + text + `}`)); !json.Valid(got) || !bytes.Contains(got, []byte(redacted)) {
				t.Fatalf("%s", got)
			}
		}
	})
}
