package trail

import (
	"cmp"
	"fmt"
)

// Head identifies one record of a writer, such as its last. Kept elsewhere, it proves later that the trail still has this record,
// and all of the writer's records before it, unaltered.
type Head struct {
	Writer   string `json:"writer"`
	N        uint64 `json:"n"`
	Sequence uint64 `json:"sequence"`
	SHA256   string `json:"sha256"`
}

// Break is a place where the audit trail is not as it was written.
type Break struct {
	Sequence uint64 `json:"sequence"`         // in the stream
	Writer   string `json:"writer,omitempty"` // "" if it is not known
	N        uint64 `json:"n,omitempty"`      // of the writer's records
	What     string `json:"what"`
}

func (b *Break) Error() string {
	if b.Writer == "" {
		return fmt.Sprintf("sequence %d: %s", b.Sequence, b.What)
	}
	return fmt.Sprintf("sequence %d, record %d of writer %q: %s", b.Sequence, b.N, b.Writer, b.What)
}

// Kept is what an earlier verification found, kept where nobody could alter it.
type Kept struct {
	First        uint64 `json:"first,omitempty"` // the trail's first message then; 0: not known
	Last         uint64 `json:"last,omitempty"`
	ExportSHA256 string `json:"exportSha256,omitempty"` // of these messages as Export writes them; "": not known
	Heads        []Head `json:"heads"`                  // the last record of each writer
}

func broken(at Head, format string, args ...any) error {
	return &Break{Sequence: at.Sequence, Writer: at.Writer, N: at.N, What: fmt.Sprintf(format, args...)}
}

func byPlace(a, b Head) int { return cmp.Compare(a.Sequence, b.Sequence) }
