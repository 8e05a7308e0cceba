package defendersim

import (
	"strings"
	"testing"
	"time"
)

// sample are three actions, a day apart, of three types and statuses.
func sample() (actions []*action, now time.Time) {
	day := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	for i, c := range []struct{ id, kind, status string }{
		{"aaaaaaaa-0000-4000-8000-000000000001", "UnrestrictCodeExecution", "Succeeded"},
		{"bbbbbbbb-0000-4000-8000-000000000002", "RestrictCodeExecution", "InProgress"},
		{"cccccccc-0000-4000-8000-000000000003", "Isolate", "Pending"},
	} {
		a := &action{id: c.id, kind: c.kind, machineID: machineID(i), requestor: "o'neil (soc), x", created: day.AddDate(0, 0, i)}
		switch c.status {
		case "Succeeded":
			a.fate.Store(&fate{begins: a.created, ends: a.created, final: c.status})
		case "InProgress":
			a.fate.Store(&fate{begins: a.created})
		default:
			a.fate.Store(&fate{})
		}
		actions = append(actions, a)
	}
	return actions, day.AddDate(0, 0, 10)
}

func TestFilter(t *testing.T) {
	actions, now := sample()
	for text, want := range map[string]string{
		"type eq 'Isolate'":                                                  "3",
		"Type EQ 'Isolate'":                                                  "3",
		"type ne 'Isolate'":                                                  "12",
		"type eq 'isolate'":                                                  "",
		"type gt 'Isolate'":                                                  "12",
		"type ge 'RestrictCodeExecution'":                                    "12",
		"type lt 'RestrictCodeExecution'":                                    "3",
		"type le 'RestrictCodeExecution'":                                    "23",
		"status eq 'Pending' or status eq 'InProgress'":                      "23",
		"status in ('Pending','Succeeded')":                                  "13",
		"status in ( 'Pending' , 'Nonsense' )":                               "3",
		"not status in ('Pending')":                                          "12",
		"not (status eq 'Pending') and type ne 'Isolate'":                    "12",
		"not status eq 'Pending' and type eq 'Isolate'":                      "",
		"machineId eq '" + machineID(1) + "'":                                "2",
		"requestor eq 'o''neil (soc), x'":                                    "123",
		"id in ('AAAAAAAA-0000-4000-8000-000000000001','none')":              "1",
		"id eq bbbbbbbb-0000-4000-8000-000000000002":                         "2",
		"creationDateTimeUtc ge 2026-03-02T12:00:00Z":                        "23",
		"creationDateTimeUtc gt 2026-03-02T12:00:00.0000000Z":                "3",
		"creationDateTimeUtc ge 2026-03-02Z":                                 "23",
		"startswith(type,'Un')":                                              "1",
		"endswith(type, 'CodeExecution') eq true and status eq 'InProgress'": "2",
		"not contains(machineId,'1')":                                        "13",
		"creationDateTimeUtc le 2026-03-02T13:00:00+01:00":                   "12",
		"creationDateTimeUtc eq 2026-03-02T12:00:00Z":                        "2",
		"creationDateTimeUtc ne 2026-03-02T12:00:00Z":                        "13",
		"creationDateTimeUtc in (2026-03-01T12:00:00Z,2026-03-03T12:00:00Z)": "13",
		// and binds more than or, not more than and
		"type eq 'Isolate' or type eq 'RestrictCodeExecution' and status eq 'Pending'":   "3",
		"(type eq 'Isolate' or type eq 'RestrictCodeExecution') and status eq 'Pending'": "3",
		"status eq 'Succeeded' or type eq 'Isolate' and status eq 'InProgress'":          "1",
		"(status eq 'Succeeded' or type eq 'Isolate') and status eq 'InProgress'":        "",
		"((status eq 'Succeeded'))": "1",
		"creationDateTimeUtc ge 2026-03-03T00:00:00Z or status eq 'Succeeded'":                                        "13",
		"not creationDateTimeUtc ge 2026-03-02T00:00:00Z":                                                             "1",
		"creationDateTimeUtc ge 2026-03-01T00:00:00Z and creationDateTimeUtc ge 2026-03-02T00:00:00Z":                 "23",
		"creationDateTimeUtc lt 2026-03-02T00:00:00Z or creationDateTimeUtc gt 2026-03-03T00:00:00Z":                  "13",
		"creationDateTimeUtc lt 2026-03-02T00:00:00Z and type ne 'x' and creationDateTimeUtc le 2026-03-09T00:00:00Z": "1",
	} {
		p, err := actionSchema.parseFilter(text)
		if err != nil {
			t.Errorf("%s: %v", text, err)
			continue
		}
		got := ""
		for i, a := range actions {
			if p(a, now) {
				got += string(rune('1' + i))
			}
		}
		if got != want {
			t.Errorf("%s: matches %q, want %q", text, got, want)
		}
	}
}

func TestBadFilters(t *testing.T) {
	for text, says := range map[string]string{
		"":                "Syntax error",
		"   ":             "Syntax error",
		"type":            "Syntax error",
		"type eq":         "Syntax error",
		"type eq Isolate": "Could not find a property named 'Isolate'",
		"status eq 1":     "incompatible types",
		"id eq 17":        "incompatible types",
		"id eq 'bbbbbbbb-0000-4000-8000-000000000002'": "Found operand types 'Edm.Guid' and 'Edm.String'",
		"type is 'x'":                 "Syntax error at 'is'",
		"type eq 'x' and":             "Syntax error",
		"type eq 'x' xor type eq 'y'": "Syntax error at 'xor'",
		"type eq 'x' type eq 'y'":     "Syntax error at 'type'",
		"type eq 'x')":                "Syntax error at ')'",
		"(type eq 'x'":                "')' or operator expected",
		"type eq 'x":                  "unterminated string literal",
		"type eq 'x''":                "unterminated string literal",
		"type in 'x'":                 "Syntax error",
		"type in ()":                  "Syntax error at ')'",
		"type in ('x'":                "Syntax error",
		"type in ('x' 'y')":           "Syntax error",
		"'x' eq type":                 "Syntax error",
		"not":                         "Syntax error",
		"title eq 'x'":                "Could not find a property named 'title'",
		"lastUpdateDateTimeUtc gt 2026-03-01T00:00:00Z": "Could not find a property named 'lastUpdateDateTimeUtc'",
		"substringof('x',type)":                         "An unknown function with name 'substringof' was found",
		"creationDateTimeUtc gt 2026-03-01":             "Could not find a property named '2026-03-01'",
		"creationDateTimeUtc gt 'yesterday'":            "incompatible types",
		"creationDateTimeUtc is 2026-03-01T00:00:00Z":   "Syntax error",
		strings.Repeat("(", 5000) + "type eq 'x'":       "recursion limit",
		strings.Repeat("not ", 101) + "type eq 'x'":     "limit of '100'",
	} {
		if _, err := actionSchema.parseFilter(text); err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("%.60s: error %v, want %q in it", text, err, says)
		}
	}
}

func TestNodeLimit(t *testing.T) {
	in := func(n int) string { return "id in (" + strings.Repeat("'x',", n-1) + "'x')" }
	or := func(n int) string { return strings.Repeat("type eq 'x' or ", n-1) + "type eq 'x'" }
	for text, fits := range map[string]bool{
		in(98): true, in(99): false,
		or(25): true, or(26): false, // 4 n - 1
		in(40) + " and type eq 'x' and creationDateTimeUtc ge 2026-03-01T00:00:00Z": true,

		or(24) + " or not type eq 'x'":     true,
		or(24) + " or not not type eq 'x'": false,
	} {
		_, err := actionSchema.parseFilter(text)
		if (err == nil) != fits || err != nil && !strings.Contains(err.Error(), "The node count limit of '100' has been exceeded") {
			t.Errorf("%.40s... of %d bytes: %v", text, len(text), err)
		}
	}
}

// FuzzFilter: no text breaks the parser or the filter that comes of it.
func FuzzFilter(f *testing.F) {
	for _, text := range []string{
		"type eq 'x'", "id in ('a','b') and not (status eq 'Pending' or machineId ne 'x''y')",
		"creationDateTimeUtc ge 2026-03-02T12:00:00Z and creationDateTimeUtc lt '2026-03-03T12:00:00Z'",
		"not creationDateTimeUtc gt 2026-03-02T12:00:00Z or type eq 'Isolate'", "((((", "'", "not not", "in in in", "type eq 'x", ",",
	} {
		f.Add(text)
	}
	actions, now := sample()
	f.Fuzz(func(t *testing.T, text string) {
		p, err := actionSchema.parseFilter(text)
		if err != nil {
			if err.Error() == "" {
				t.Error("an error without words")
			}
			return
		}
		for _, a := range actions {
			if once, again := p(a, now), p(a, now); once != again {
				t.Errorf("%q matches once and once not", text)
			}
		}
	})
}
