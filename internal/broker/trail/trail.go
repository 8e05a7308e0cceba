// Package trail is the format of the audit trail: what a line holds, how the lines of a writer make a chain, how a whole trail is
// verified, and what an export looks like. It needs no broker: internal/broker reads and writes the stream.
package trail

import (
	"crypto/sha256"
	"encoding/hex"
	"time"
)

// Message is a message of the stream, or of an export of it.
type Message struct {
	Sequence uint64
	Time     time.Time // when it was stored, by the broker's clock
	Data     []byte
}

// Point identifies one message of the trail, with its content.
type Point struct {
	Sequence uint64 `json:"sequence"`
	SHA256   string `json:"sha256"` // of its payload
}

// Point identifies the message.
func (m Message) Point() Point { return Point{m.Sequence, digest(m.Data)} }

func digest(data []byte) string {
	sum := sha256.Sum256(data)
	return hex.EncodeToString(sum[:])
}
