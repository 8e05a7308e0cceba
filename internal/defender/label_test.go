package defender

import "testing"

func TestCodeLabel(t *testing.T) {
	for code, want := range map[string]string{
		"ResourceNotFound": "ResourceNotFound", "http404": "http404", "http599": "http599", codeNotDefender: codeNotDefender,
		"http999": OtherCode, "http+99": OtherCode, "http-99": OtherCode, "http40": OtherCode, "": OtherCode, "ResourceNotFound1": OtherCode,
		"resourcenotfound": OtherCode, "\u202eX": OtherCode, "other": OtherCode,
	} {
		if got := CodeLabel(code); got != want {
			t.Errorf("%q: got %q, want %q", code, got, want)
		}
	}
}
