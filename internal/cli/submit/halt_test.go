package submit

import "testing"

func TestHowManyMayFail(t *testing.T) {
	for name, c := range map[string]struct {
		limit         string
		failed, final int
		all, want     bool
	}{
		"no limit":                        {"", 9, 9, true, false},
		"as many as may":                  {"25", 25, 30, false, false},
		"one more":                        {"25", 26, 30, false, true},
		"none may":                        {"0", 1, 1, false, true},
		"none has":                        {"0", 0, 10, true, false},
		"as large a share as may":         {"20%", 1, 5, true, false},
		"a larger one":                    {"20%", 1, 4, true, true},
		"a larger one of few so far":      {"20%", 1, 4, false, false},
		"a larger one of enough so far":   {"20%", 2, 5, false, true},
		"a share of a percent, too early": {"0.5%", 1, 199, false, false},
		"a share of a percent":            {"0.5%", 2, 200, false, true},
		"no share may":                    {"0%", 1, 1, false, true},
	} {
		var l Limit
		if c.limit != "" {
			if err := l.UnmarshalText([]byte(c.limit)); err != nil {
				t.Fatal(err)
			}
		}
		if got := l.Exceeded(c.failed, c.final, c.all); got != c.want {
			t.Errorf("%s: %d of %d: %t", name, c.failed, c.final, got)
		}
	}
	for _, text := range []string{"-1", "101%", "-5%", "NaN%", "five", "%", "5 %", "1.5"} {
		if err := new(Limit).UnmarshalText([]byte(text)); err == nil {
			t.Errorf("%q is taken", text)
		}
	}
}
