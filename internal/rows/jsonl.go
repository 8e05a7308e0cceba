package rows

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"iter"
	"strings"
	"time"

	"example.com/unrestrict-worker/internal/message"
)

// maxJSONLine bounds what is read of one line: a request has at most 64 KiB.
const maxJSONLine = 1 << 20

// JSON reads one request a line, in any form that the worker takes. Blank lines are skipped. comment is the comment of
// all rows, if they have none of their own.
func JSON(content io.Reader, comment string, rules message.Rules) iter.Seq[Row] {
	return func(yield func(Row) bool) {
		lines := bufio.NewScanner(content)
		lines.Buffer(nil, maxJSONLine)
		n := 0
		for lines.Scan() {
			n++
			text := bytes.TrimSpace(lines.Bytes())
			if len(text) == 0 {
				continue
			}
			next := Row{Line: n}
			if text, next.Err = withComment(text, comment); next.Err == nil {
				next.Message, next.Err = readMessage(text, rules)
			}
			if !yield(next) {
				return
			}
		}
		err := lines.Err()
		if errors.Is(err, bufio.ErrTooLong) {
			err = errors.New("is longer than 1 MiB; a request has at most 64 KiB")
		}
		if err != nil {
			yield(Row{Line: n + 1, Err: err})
		}
	}
}

// readMessage reads a request as the worker does, and leaves out what the worker ignores.
func readMessage(text []byte, rules message.Rules) (Message, error) {
	r, invalid := rules.Parse(message.Delivery{Stream: rules.Stream, Data: text})
	if invalid != nil {
		return Message{}, errors.New(invalid.Message)
	}
	m := Message{
		MachineID: r.MachineID, Comment: r.Comment, RequestedBy: r.RequestedBy, Ticket: r.Ticket, Batch: r.Batch,
		Metadata: r.Metadata, ReplyTo: r.ReplyTo,
	}
	if !r.Derived {
		m.ID = r.ID
	}
	if !r.ExpiresAt.IsZero() {
		m.ExpiresAt = r.ExpiresAt.Format(time.RFC3339Nano)
	}
	return m, nil
}

// withComment adds the comment of all rows to a row that has none. What is no object stays as it is, and readMessage rejects it.
func withComment(text []byte, comment string) ([]byte, error) {
	var object map[string]json.RawMessage
	if comment == "" || text[0] != '{' || json.Unmarshal(text, &object) != nil {
		return text, nil
	}
	for name := range object {
		if strings.EqualFold(name, "comment") {
			return nil, errors.New("has a comment although --comment gives one for all rows; leave one of them out")
		}
	}
	quoted, err := message.EncodeJSON(comment)
	if err != nil {
		return nil, err
	}
	added := append([]byte(`{"comment":`), quoted...)
	if len(object) > 0 {
		added = append(added, ',')
	}
	return append(added, text[1:]...), nil
}
