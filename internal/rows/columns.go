package rows

import (
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	"example.com/unrestrict-worker/internal/config"
	"example.com/unrestrict-worker/internal/message"
)

// Message is the payload of a request, docs/messages.md.
type Message struct {
	MachineID   string          `json:"machineId"`
	Comment     string          `json:"comment"`
	ID          string          `json:"id,omitempty"`
	RequestedBy string          `json:"requestedBy,omitempty"`
	Ticket      string          `json:"ticket,omitempty"`
	Batch       string          `json:"batch,omitempty"`
	Metadata    json.RawMessage `json:"metadata,omitempty"`
	ExpiresAt   string          `json:"expiresAt,omitempty"`
	ReplyTo     string          `json:"replyTo,omitempty"`
}

const metadataPrefix = "metadata."

// columnNames are the columns there may be, metadata.KEY aside.
func columnNames() []string {
	return []string{"machineId", "comment", "id", "requestedBy", "ticket", "batch", "metadata", "expiresAt", "replyTo"}
}

// columnsOf returns the columns by their names in columnNames, or metadata.KEY; or everything that is wrong with them.
func columnsOf(header []string, comment string) (columns []string, faults []error) {
	fault := func(format string, args ...any) { faults = append(faults, fmt.Errorf(format, args...)) }
	if i := slices.IndexFunc(header, isMachineID); i >= 0 {
		fault("column %d has a machine id where the first line names the columns; put a line such as machineId,comment above it", i+1)
		return nil, faults
	}
	for i, text := range header {
		name := columnName(text)
		switch {
		case name == "" && strings.TrimSpace(text) == "":
			fault("column %d has no name; name it or take it out", i+1)
		case name == "":
			fault("unknown column %s%s (metadata.%s is a name of your own that results echo)", strconv.Quote(text), meantColumn(text), strings.TrimSpace(text))
		case slices.Contains(columns, name):
			fault("the column %s is there twice", name)
		}
		columns = append(columns, name)
	}
	if !slices.Contains(columns, "machineId") {
		fault("there is no column machineId; add it, or name that of the machine ids so")
	}
	switch has := slices.Contains(columns, "comment"); {
	case has && comment != "":
		fault("there is a column comment although --comment gives one for all rows; leave one of them out")
	case !has && comment == "":
		fault("there is no column comment; add it, or give one for all rows with --comment")
	}
	if slices.Contains(columns, "metadata") && slices.ContainsFunc(columns, func(c string) bool { return strings.HasPrefix(c, metadataPrefix) }) {
		fault("there are columns metadata and metadata.KEY; use one or the other")
	}
	return columns, faults
}

// meantColumn returns a hint at the column that a wrong name was meant to be, or "".
func meantColumn(text string) string {
	bare := func(name string) string {
		return strings.Map(func(r rune) rune {
			if unicode.IsLetter(r) || unicode.IsDigit(r) {
				return unicode.ToLower(r)
			}
			return -1
		}, name)
	}
	if slices.Contains([]string{"deviceid", "device", "machine", "mdatpdeviceid"}, bare(text)) { // as Defender's portal and tables call it
		return "; did you mean machineId?"
	}
	for _, name := range columnNames() {
		if bare(name) == bare(text) {
			return "; did you mean " + name + "?"
		}
	}
	return config.DidYouMean(text, columnNames())
}

// isMachineID distinguishes a machine id from the name of a column.
func isMachineID(text string) bool {
	id := strings.TrimSpace(text)
	_, err := hex.DecodeString(id)
	return err == nil && len(id) == 40
}

// columnName returns the name of a column as columnNames has it; "" if there is no such column.
func columnName(text string) string {
	text = strings.TrimSpace(text)
	if n := len(metadataPrefix); len(text) > n && strings.EqualFold(text[:n], metadataPrefix) {
		return metadataPrefix + text[n:]
	}
	for _, name := range columnNames() {
		if strings.EqualFold(name, text) {
			return name
		}
	}
	return ""
}

// fill sets the fields from a record. Empty ones count as absent. White space around a value is dropped where it can't
// have a meaning.
func (m *Message) fill(columns, record []string) error {
	fields, metadata := map[string]any{}, map[string]string{}
	for i, value := range record {
		name := columns[i]
		if !utf8.ValidString(value) {
			return fmt.Errorf("%s: is not UTF-8; save the file as UTF-8", name)
		}
		key, isMetadata := strings.CutPrefix(name, metadataPrefix)
		switch trimmed := strings.TrimSpace(value); {
		case name == "comment":
			fields[name] = value
		case isMetadata && value != "":
			metadata[key] = value
		case trimmed == "" || isMetadata:
		case name != "metadata":
			fields[name] = trimmed
		case !json.Valid([]byte(trimmed)):
			return errors.New("metadata: is no JSON; write an object, or use columns metadata.KEY")
		default:
			fields[name] = json.RawMessage(trimmed)
		}
	}
	if len(metadata) > 0 {
		fields["metadata"] = metadata
	}
	text, err := message.EncodeJSON(fields)
	if err != nil {
		return err
	}
	return json.Unmarshal(text, m)
}
