package config

// Secret is a value that no log, error or page may show: every way of printing
// it gives a placeholder.
type Secret struct{ value string }

// Reveal returns the value, for the one place that needs it.
func (s Secret) Reveal() string { return s.value }

// IsSet tells whether there is a value.
func (s Secret) IsSet() bool { return s.value != "" }

// String is for fmt and zap.
func (s Secret) String() string {
	if s.IsSet() {
		return "(secret)"
	}
	return ""
}

// GoString is for %#v.
func (s Secret) GoString() string { return s.String() }

// MarshalText is for encoding/json.
func (s Secret) MarshalText() ([]byte, error) {
	return []byte(s.String()), nil
}
