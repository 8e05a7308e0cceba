package ledger

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
)

// FormatVersion is written into every value of the ledger. It rises when the meaning or the type of a field changes; a new
// field does not raise it (docs/adr/0011-formats-and-versions.md).
const FormatVersion = 1

// ErrNewer is returned for a value that a newer version of this program wrote: its format is newer, or it has a field or a
// state that this version does not know. The value is left alone, because an overwrite would lose what this version does not
// understand.
var ErrNewer = errors.New("written by a newer version of the worker, which alone may go on with it")

// ErrGarbled is returned for a value that no version wrote. Only its own request is affected, which waits for an operator.
var ErrGarbled = errors.New("not understood; look at it with the nats command, and delete the key to start over")

// decode reads a value of the ledger into a struct whose version field version is. It returns ErrNewer for a value of a
// newer version, and ErrGarbled for one that no version wrote.
func decode(value []byte, into any, version *int) error {
	d := json.NewDecoder(bytes.NewReader(value))
	d.DisallowUnknownFields()
	strict := d.Decode(into)
	if strict == nil && d.More() {
		strict = errors.New("something stands behind it")
	}
	if strict == nil && *version <= FormatVersion {
		return nil
	}
	var head struct {
		Version int `json:"v"`
	}
	err := json.Unmarshal(value, &head)
	// A newer format is only known to have a version field. In this format, a value that decodes once unknown fields are
	// allowed is newer too.
	if err == nil && (head.Version > FormatVersion || json.Unmarshal(value, into) == nil) {
		return ErrNewer
	}
	return fmt.Errorf("%w (%w)", ErrGarbled, strict)
}
