package trail

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"time"
)

// exportLine is one line of an export.
type exportLine struct {
	Sequence uint64          `json:"sequence"`
	StoredAt time.Time       `json:"storedAt"`         // by the broker's clock
	Record   json.RawMessage `json:"record,omitempty"` // byte for byte
	Data     []byte          `json:"data,omitempty"`   // in base64, if it is not JSON on one line
}

// Export renders a message as a line of JSON, with its line end. It inserts the record byte for byte, because encoding/json
// would change its bytes.
func Export(m Message) ([]byte, error) {
	if !json.Valid(m.Data) || bytes.ContainsAny(m.Data, "\r\n") || len(bytes.TrimSpace(m.Data)) != len(m.Data) {
		line, err := json.Marshal(exportLine{Sequence: m.Sequence, StoredAt: m.Time.UTC(), Data: m.Data})
		return append(line, '\n'), err
	}
	line, err := json.Marshal(exportLine{Sequence: m.Sequence, StoredAt: m.Time.UTC()})
	if err != nil {
		return nil, err
	}
	line = append(line[:len(line)-1], `,"record":`...)
	return append(append(line, m.Data...), "}\n"...), nil
}

// Import reads a line of Export. If Export would not have written the same line, byte for byte, the error is a *Break:
// programs differ in which of two members with the same name they read, and in how they treat unknown ones.
func Import(line []byte) (Message, error) {
	var l exportLine
	if err := json.Unmarshal(line, &l); err != nil {
		return Message{}, fmt.Errorf("is no line of an export: %w", err)
	}
	if l.Sequence == 0 {
		return Message{}, errors.New("is no line of an export: sequence is missing")
	}
	m := Message{Sequence: l.Sequence, Time: l.StoredAt, Data: l.Data}
	if l.Record != nil {
		m.Data = l.Record
	}
	if written, err := Export(m); err != nil || !bytes.Equal(written, line) {
		return m, &Break{Sequence: m.Sequence, What: "its line is not as `worker audit export` writes it: something in it was added, repeated or altered"}
	}
	return m, nil
}
