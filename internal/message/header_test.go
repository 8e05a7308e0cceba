package message

import (
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"

	"pgregory.net/rapid"
)

func TestHeaderGet(t *testing.T) {
	h := Header{"TraceParent": {"b"}, "Traceparent": {"c", "d"}, "ce-id": {"x"}, "CE-ID": {"y"}, "empty": {}, "EMPTY": {"z"}}
	for name, want := range map[string]string{"traceparent": "b", "Traceparent": "c", "ce-id": "x", "Ce-Id": "y", "empty": "z", "none": ""} {
		for range 20 { // the order of a map must not matter
			if got := h.Get(name); got != want {
				t.Fatalf("Get(%q) = %q, want %q", name, got, want)
			}
		}
	}
	if got := Header(nil).Get("x"); got != "" {
		t.Errorf("Get on no header = %q", got)
	}
}

func TestPercent(t *testing.T) {
	for _, c := range []struct{ in, encoded, text string }{
		{"plain-1.2/3:4", "plain-1.2/3:4", "plain-1.2/3:4"},
		{"a b", "a%20b", "a b"},
		{" lead", "%20lead", "%20lead"},
		{"lead ", "lead%20", "lead%20"},
		{" ", "%20", "%20"},
		{"100%", "100%25", "100%"},
		{"a%20b", "a%2520b", "a%2520b"},
		{"%%41", "%25%2541", "%%2541"},
		{`q"d`, "q%22d", `q"d`},
		{"語", "%E8%AA%9E", "語"},
		{"x\r\ny", "x%0D%0Ay", "x%0D%0Ay"},
		{"~\x7f", "~%7F", "~%7F"},
		{"", "", ""},
	} {
		if got := percentEncode(c.in); got != c.encoded {
			t.Errorf("percentEncode(%q) = %q, want %q", c.in, got, c.encoded)
		}
		if got := headerText(c.in); got != c.text {
			t.Errorf("headerText(%q) = %q, want %q", c.in, got, c.text)
		}
	}
	for in, want := range map[string]string{"%": "%", "%4": "%4", "%zz": "%zz", "%41%4": "A%4", "%e8%AA%9e": "語", "%2541": "%41"} {
		if got := percentDecode(in); got != want {
			t.Errorf("percentDecode(%q) = %q, want %q", in, got, want)
		}
	}
}

// anyText leans to what an encoding can trip over.
func anyText() *rapid.Generator[string] {
	return rapid.OneOf(
		rapid.String(),
		rapid.StringOfN(rapid.SampledFrom([]rune("%0123456789abcdefABCDEF \t\r\n\":語é\x7f\u0085")), -1, 40, -1),
	)
}

func TestEncodingsAreInjectiveAndHeaderSafe(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := anyText().Draw(t, "s")
		encoded := percentEncode(s)
		if strings.ContainsFunc(encoded, func(r rune) bool { return r <= ' ' || r > '~' || r == '"' }) {
			t.Fatalf("percentEncode(%q) = %q is not safe", s, encoded)
		}
		text := headerText(s)
		if strings.Trim(text, " \t") != text {
			t.Fatalf("headerText(%q) = %q loses its ends in a header", s, text)
		}
		if strings.ContainsAny(text, "\r\n\x00") {
			t.Fatalf("headerText(%q) = %q breaks out of its header", s, text)
		}
		// What decodes to what it was can't be the same for two.
		if got := percentDecode(encoded); got != s {
			t.Fatalf("percentEncode(%q) = %q decodes to %q", s, encoded, got)
		}
		if got := percentDecode(text); got != s {
			t.Fatalf("headerText(%q) = %q decodes to %q", s, text, got)
		}
	})
}

func TestOneLine(t *testing.T) {
	for _, c := range []struct {
		in    string
		limit int
		want  string
	}{
		{"a\r\nDeadletter-Reason: forged\tb", 99, "a Deadletter-Reason: forged b"},
		{"  a  \u2028 b\x00\x7fc\u0085 ", 99, "a b c"},
		{"\xff語", 99, "\uFFFD語"},
		{"日本日本", 3, "日本…"},
		{"日本日本", 4, "日本日本"},
	} {
		if got := OneLine(c.in, c.limit); got != c.want {
			t.Errorf("oneLine(%q, %d) = %q, want %q", c.in, c.limit, got, c.want)
		}
	}
	rapid.Check(t, func(t *rapid.T) {
		got := OneLine(string(rapid.SliceOf(rapid.Byte()).Draw(t, "bytes")), 50)
		if !utf8.ValidString(got) || utf8.RuneCountInString(got) > 50 || strings.ContainsFunc(got, unicode.IsControl) {
			t.Fatalf("oneLine gave %q", got)
		}
	})
}

const sampleTrace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"

func TestTraceOf(t *testing.T) {
	for parent, valid := range map[string]bool{
		sampleTrace: true,
		"cc-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00": true,
		"":                           false,
		sampleTrace + "-x":           false,
		sampleTrace[:54] + "\n":      false,
		"ff" + sampleTrace[2:]:       false,
		strings.ToUpper(sampleTrace): false,
		"00-00000000000000000000000000000000-00f067aa0ba902b7-01": false,
		"00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01": false,
		"00_4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01": false,
	} {
		got := traceOf(parent, "vendor=1")
		if valid && got != (Trace{parent, "vendor=1"}) || !valid && got != (Trace{}) {
			t.Errorf("traceOf(%q) = %+v", parent, got)
		}
	}
	for _, state := range []string{"a\nb", "é", strings.Repeat("x", 513)} {
		if got := traceOf(sampleTrace, state); got != (Trace{Parent: sampleTrace}) {
			t.Errorf("traceOf(..., %.20q) = %+v", state, got)
		}
	}
}
