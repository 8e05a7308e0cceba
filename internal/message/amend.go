package message

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"slices"
	"strings"
	"time"
)

// Naming is the id and the end that a message gives itself, whether valid or not.
type Naming struct {
	ID      bool   // the request object has an id
	Expires bool   // and an expiresAt
	EventID string // SOURCE#ID of a CloudEvent, "" of none
}

// ReadNaming reads a message's Naming, as far as the message can be read.
func ReadNaming(d Delivery) (n Naming) {
	c, _ := openMessage(d) // Parse reports its faults
	n.EventID = c.eventID
	for _, m := range c.object {
		if string(m.value) == "null" {
			continue
		}
		switch fieldName(m.name) {
		case "id":
			n.ID = true
		case "expiresAt":
			n.Expires = true
		}
	}
	return n
}

// Amend writes an id and an expiresAt into the request object of a message that has none of its own; "" and zero leave them
// out. The rest of the payload stays byte for byte.
func Amend(d Delivery, id string, expiresAt time.Time) ([]byte, error) {
	var set []member
	if id != "" {
		value, err := EncodeJSON(id)
		if err != nil {
			return nil, err
		}
		set = append(set, member{"id", value})
	}
	if !expiresAt.IsZero() {
		set = append(set, member{"expiresAt", []byte(expiresAt.UTC().Format(`"` + time.RFC3339 + `"`))})
	}
	object, err := readObject(d.Data)
	if err != nil {
		return nil, err
	}
	structured := strings.HasPrefix(mediaType(d.Header.Get("Content-Type")), "application/cloudevents")
	if isEvent := slices.ContainsFunc(object, func(m member) bool { return m.name == "specversion" }); !structured && (!isEvent || isBinary(d.Header)) {
		return amendObject(d.Data, object, set)
	}
	for _, m := range object {
		var amended []byte
		switch m.name {
		case "data":
			amended, err = amendText(m.value, set)
		case "data_base64":
			var decoded []byte
			if err = json.Unmarshal(m.value, &decoded); err == nil {
				amended, err = amendText(decoded, set)
				amended = []byte(`"` + base64.StdEncoding.EncodeToString(amended) + `"`)
			}
		default:
			continue
		}
		if err != nil {
			return nil, err
		}
		return replaced(d.Data, m.value, amended), nil
	}
	return nil, errors.New("the event has no data")
}

func amendText(text []byte, set []member) ([]byte, error) {
	object, err := readObject(text)
	if err != nil {
		return nil, err
	}
	return amendObject(text, object, set)
}

// amendObject inserts members at the beginning, or in the place of a null with the same name. object holds the members of
// text.
func amendObject(text []byte, object, set []member) ([]byte, error) {
	var first []byte
	var nulls [][2][]byte // from the end on, so that earlier offsets stay valid
	for _, s := range set {
		at := slices.IndexFunc(object, func(m member) bool { return fieldName(m.name) == s.name })
		if at >= 0 {
			nulls = append(nulls, [2][]byte{object[at].value, s.value})
			continue
		}
		first = slices.Concat(first, []byte(`"`+s.name+`":`), s.value, []byte(","))
	}
	if len(object) == 0 {
		first = bytes.TrimSuffix(first, []byte(","))
	}
	slices.SortFunc(nulls, func(a, b [2][]byte) int { return cap(a[0]) - cap(b[0]) })
	amended := text
	for _, n := range nulls {
		amended = splice(amended, offset(text, n[0]), len(n[0]), n[1])
	}
	return splice(amended, bytes.IndexByte(text, '{')+1, 0, first), nil
}

// replaced returns text with part, which is a slice of it, replaced.
func replaced(text, part, by []byte) []byte { return splice(text, offset(text, part), len(part), by) }

// offset is where part, a slice of text, begins in it: the capacity of both ends where their array does.
func offset(text, part []byte) int { return cap(text) - cap(part) }

func splice(text []byte, at, n int, by []byte) []byte {
	return slices.Concat(text[:at], by, text[at+n:])
}

// Field is the request's field that an Invalid is about; "" if it is about none or several.
func (i *Invalid) Field() string {
	name, _, _ := strings.Cut(i.Message, ": ")
	if fieldName(name) == name {
		return name
	}
	return ""
}
